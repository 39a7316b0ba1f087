"""Packed weights: small safetensors shards with a manifest of hashes, written atomically and read strictly.

Layout: `folder/name/manifest.json` and `folder/name/weights-<sha256[:16]>.safetensors`. Shards are named by content, so
a manifest always points at the shards it was written with, also when a save is interrupted.
"""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fantasyid.core.building import BUILDING
from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.core.faults import first_fault
from fantasyid.core.output_files import write_file
from fantasyid.core.safetensors_files import load_safetensors

SHARD_LIMIT = 16 * 2**20
_HEADER_BYTES_PER_TENSOR = 512
_SMALL = 4096
_SCALE_SUFFIX = ":scale"

Storage = Literal["int8", "float16"]


class PackedTensor(BaseModel):
    """How one tensor is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[int, ...]
    """Shape in the model."""
    stored_as: Literal["int8", "float16", "exact"]
    """int8 with one scale per row, float16, or the tensor itself."""
    zeros_before: int = Field(default=0, ge=0)
    """Slices of the third dimension, from the first on, that are zero and not stored: the weights for earlier frames of
    a convolution over time that looks at none."""

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape in the file."""
        if not self.zeros_before:
            return self.shape
        return (*self.shape[:2], self.shape[2] - self.zeros_before, *self.shape[3:])


class PackedShard(BaseModel):
    """One safetensors file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^weights-[0-9a-f]{16}\.safetensors$")
    """File name inside the folder of the manifest."""
    sha256: str
    """Hash of the whole file."""
    size_bytes: int
    """Size of the whole file."""


class PackedManifest(BaseModel):
    """Everything about one packed model but its numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Literal["fantasyid-packed-1"] = "fantasyid-packed-1"
    """Version of this file's layout."""
    model_class: str
    """Class the weights belong to."""
    config: dict[str, Any]
    """Arguments of the class."""
    shards: tuple[PackedShard, ...]
    """Files, in the order they were written."""
    tensors: dict[str, PackedTensor]
    """Every tensor of the model's state."""


def fill_network(network: torch.nn.Module, state: Mapping[str, torch.Tensor], mismatch: str) -> None:
    """Give an empty network its weights, all of them and no others, and make it ready to be used.

    Args:
        network: Without weights, as `accelerate.init_empty_weights` makes it; evaluated and frozen afterwards.
        state: The weights; they are taken as they are, not copied.
        mismatch: What to tell where they do not fit.

    Raises:
        CorruptWeightsError: A tensor is missing, unknown, or of another shape.
    """
    try:
        with BUILDING:
            network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise CorruptWeightsError(f"{mismatch}: {error}") from error
    network.eval().requires_grad_(False)


def save_packed(
    model_state: Mapping[str, torch.Tensor],
    folder: Path | str,
    name: str,
    storage: Storage = "int8",
    *,
    model_class: str,
    config: Mapping[str, Any],
    exact: Collection[str] = (),
) -> PackedManifest:
    """Write a model's state in few bytes.

    Floating-point tensors with two dimensions and 4096 numbers or more are stored as `storage` says; the others
    (biases, norms, small tables, integers) and those in `exact` are stored unchanged. int8 is symmetric with one
    float32 scale per row, a row being an index of the first dimension longer than 1, so one output of a linear layer or
    convolution, or one entry of a table.

    Args:
        model_state: The state dict, without non-persistent buffers.
        folder: Parent folder, made if absent.
        name: Folder of this model inside it, such as `"transformer"`.
        storage: How large tensors are stored.
        model_class: Name of the model's class.
        config: Arguments of the class; keys that start with `_` (diffusers' bookkeeping) are left out.
        exact: Names to store unchanged, such as a mesh's pooling weights.

    Returns:
        The manifest as written.
    """
    target = Path(folder) / name
    target.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, PackedTensor] = {}
    stored: dict[str, dict[str, torch.Tensor]] = {}
    for key in sorted(model_state):
        tensor = model_state[key].detach().cpu().contiguous()
        how = "exact" if key in exact or not _is_large(tensor) else storage
        skipped = _zeros_before(tensor)
        tensors[key] = PackedTensor(shape=tuple(tensor.shape), stored_as=how, zeros_before=skipped)
        stored[key] = _pack(key, tensor[:, :, skipped:].contiguous() if skipped else tensor, how)
    manifest = PackedManifest(
        model_class=model_class,
        config={key: value for key, value in config.items() if not key.startswith("_")},
        shards=tuple(_write_shard(target, shard) for shard in _split(stored)),
        tensors=tensors,
    )
    write_file(target / "manifest.json", (manifest.model_dump_json(indent=1) + "\n").encode())
    current = {shard.file for shard in manifest.shards}
    for stale in target.glob("weights-*.safetensors"):
        if stale.name not in current:
            stale.unlink()
    return manifest


def load_packed(folder: Path | str, name: str) -> dict[str, torch.Tensor]:
    """Read a packed model's state, every file verified.

    Args:
        folder: Parent folder.
        name: Folder of the model inside it.

    Returns:
        The state dict: int8 and float16 tensors as float32, the others in the dtype they were saved with.

    Raises:
        MissingWeightsError: The manifest or a shard is not there.
        CorruptWeightsError: A file does not match the manifest.
    """
    manifest = verify_packed(folder, name)
    target = Path(folder) / name
    stored: dict[str, torch.Tensor] = {}
    for shard in manifest.shards:
        stored.update(load_safetensors(target / shard.file, _REMEDY))
    expected = set(manifest.tensors) | {
        key + _SCALE_SUFFIX for key, tensor in manifest.tensors.items() if tensor.stored_as == "int8"
    }
    if set(stored) != expected:
        raise CorruptWeightsError(_corrupt(target, f"it holds other tensors: {sorted(set(stored) ^ expected)[:4]}"))
    state = {}
    for key, tensor in manifest.tensors.items():
        if tensor.zeros_before and (len(tensor.shape) != 5 or tensor.zeros_before >= tensor.shape[2]):
            raise CorruptWeightsError(_corrupt(target, f"{key} of shape {tensor.shape} leaves nothing to store"))
        if tuple(stored[key].shape) != tensor.stored_shape:
            raise CorruptWeightsError(
                _corrupt(target, f"{key} is {tuple(stored[key].shape)}, not {tensor.stored_shape}")
            )
        if not _is_stored_as(key, stored, tensor.stored_as):
            raise CorruptWeightsError(_corrupt(target, f"{key} is not stored as {tensor.stored_as}"))
        unpacked = _unpack(key, stored, tensor.stored_as)
        state[key] = F.pad(unpacked, (0, 0, 0, 0, tensor.zeros_before, 0)) if tensor.zeros_before else unpacked
    return state


def verify_packed(folder: Path | str, name: str) -> PackedManifest:
    """Check that every file of a packed model is there and has the hash of the manifest.

    Args:
        folder: Parent folder.
        name: Folder of the model inside it.

    Returns:
        The manifest.

    Raises:
        MissingWeightsError: The manifest or a shard is not there.
        CorruptWeightsError: A file does not match the manifest.
    """
    target = Path(folder) / name
    path = target / "manifest.json"
    if not path.is_file():
        raise MissingWeightsError(f"There are no weights at {path}. {_REMEDY}")
    try:
        manifest = PackedManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CorruptWeightsError(_corrupt(path, ": ".join(first_fault(error)))) from error
    for shard in manifest.shards:
        file = target / shard.file
        if not file.is_file():
            raise MissingWeightsError(f"The weights file {file} is missing. {_REMEDY}")
        if file.stat().st_size != shard.size_bytes:
            raise CorruptWeightsError(
                _corrupt(file, f"it has {file.stat().st_size} bytes, and {shard.size_bytes} are in the manifest")
            )
        if hashlib.sha256(file.read_bytes()).hexdigest() != shard.sha256:
            raise CorruptWeightsError(_corrupt(file, "its SHA-256 differs from the manifest's"))
    return manifest


_REMEDY = "Install the package again (pip install --force-reinstall fantasyid), or fetch or train the weights again."


def _corrupt(path: Path, reason: str) -> str:
    return f"The weights {path} are damaged: {reason}. {_REMEDY}"


def _is_large(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim >= 2 and tensor.numel() >= _SMALL


def _zeros_before(tensor: torch.Tensor) -> int:
    """How many slices of a video convolution's weights (out, in, T, H, W) are zero before the first that is not."""
    if tensor.ndim != 5 or not tensor.is_floating_point():
        return 0
    used = tensor.abs().amax(dim=(0, 1, 3, 4)).nonzero()
    return int(used[0]) if len(used) else 0


def _pack(key: str, tensor: torch.Tensor, how: str) -> dict[str, torch.Tensor]:
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ValueError(f"{key} holds numbers that are not finite")
    if how == "exact":
        return {key: tensor}
    if how == "float16":
        half = tensor.half()
        if not torch.isfinite(half).all():
            raise ValueError(f"{key} does not fit into float16; its largest number is {tensor.abs().max():.3g}")
        return {key: half}
    rows = _rows(tensor).float()
    scale = rows.abs().amax(dim=1) / 127
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
    levels = (rows / divisor[:, None]).round().to(torch.int8)
    return {key: levels.view(tensor.shape), key + _SCALE_SUFFIX: scale}


def _is_stored_as(key: str, stored: Mapping[str, torch.Tensor], how: str) -> bool:
    """Whether a tensor of a file has the form that its manifest says."""
    tensor = stored[key]
    if how == "int8":
        scale = stored[key + _SCALE_SUFFIX]
        rows = _rows(tensor) if max(tensor.shape, default=0) > 1 and tensor.numel() else None
        return (
            tensor.dtype == torch.int8
            and scale.dtype == torch.float32
            and rows is not None
            and (tuple(scale.shape) == (len(rows),))
        )
    return how == "exact" or tensor.dtype == torch.float16


def _unpack(key: str, stored: Mapping[str, torch.Tensor], how: str) -> torch.Tensor:
    tensor = stored[key]
    if how == "exact":
        return tensor
    if how == "float16":
        return tensor.float()
    return (_rows(tensor).float() * stored[key + _SCALE_SUFFIX][:, None]).view(tensor.shape)


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    longer = [index for index, size in enumerate(tensor.shape) if size > 1]
    return tensor.reshape(tensor.shape[longer[0]], -1)


def _split(stored: Mapping[str, dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
    shards: list[dict[str, torch.Tensor]] = []
    room = 0
    for key, parts in stored.items():
        size = sum(part.nbytes + _HEADER_BYTES_PER_TENSOR for part in parts.values())
        if size > SHARD_LIMIT:
            raise ValueError(f"{key} alone needs {size} bytes; a shard may have {SHARD_LIMIT}")
        if size > room:
            shards.append({})
            room = SHARD_LIMIT
        shards[-1].update(parts)
        room -= size
    return shards


def _write_shard(target: Path, tensors: dict[str, torch.Tensor]) -> PackedShard:
    data = safetensors.torch.save(tensors)
    assert len(data) <= SHARD_LIMIT
    digest = hashlib.sha256(data).hexdigest()
    file = f"weights-{digest[:16]}.safetensors"
    write_file(target / file, data)
    return PackedShard(file=file, sha256=digest, size_bytes=len(data))
