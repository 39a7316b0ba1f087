"""The authors' released checkpoint, converted from the folder they publish to one that `from_pretrained` reads.

Layout of theirs, as their README downloads it: `transformer_ema` or `transformer`, `vae`, `text_encoder`, `tokenizer`,
`scheduler`, `face_encoder/EVA02_CLIP_L_336_psz14_s6B.pt`. The mesh, `assets/transform.pkl`, lies beside their code.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import diffusers
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.sparse import csr_matrix
from torch import Tensor
from tqdm import tqdm

from fantasyid.core.errors import CorruptWeightsError, InvalidRequestError, MissingWeightsError
from fantasyid.core.safetensors_files import load_safetensors
from fantasyid.core.torch_files import load_torch_file
from fantasyid.geometry.spirals import released_spiral_indices
from fantasyid.geometry.topology import MeshTopology
from fantasyid.geometry.transform_pickle import TransformPickle, load_transform_pickle
from fantasyid.pipelines.full_size import load_eva_clip, missing_weights
from fantasyid.pipelines.released_weights import build_released

RELEASE_NAME = "acvlab/FantasyID"
RELEASE_REMEDY = (
    f"the whole release has about 25 GB; get it with: hf download {RELEASE_NAME} --local-dir RELEASED_DIR, "
    "then: fantasyid convert RELEASED_DIR OUT_DIR"
)
MANIFEST = "fantasyid-conversion.json"
MESH_FILE = Path("assets/transform.pkl")
MESH_URL = (
    "https://raw.githubusercontent.com/Fantasy-AMAP/fantasy-id/"
    "c4290929b77ae2fd838440e1a4004331abfd8705/assets/transform.pkl"
)
MESH_SHA256 = "e8dcbc25e8c22fd35b9465c5bdee4c474d08c69047b17ee22dbd01c4858a212e"
NUM_LEVELS = 3
"""Levels of the mesh that the checkpoint uses; the file has five."""
SPIRAL_LENGTH = 9
PIPELINE_CONFIG = {
    "guidance_drops_identity": False,
    "default_num_inference_steps": 50,
    "default_guidance_scale": 6.0,
    "fps": 8,
    "keep_expression_and_pose": True,
}
"""What the authors' scripts ask of their pipeline; its heads keep the photo's expression and pose."""

_BLOCK_BYTES = 2**24
_EVA = "face_encoder/EVA02_CLIP_L_336_psz14_s6B.pt"
_PARTS = {
    "vae/config.json": "the video VAE, 0.4 GB",
    "text_encoder/config.json": "the T5 text encoder, 9.5 GB",
    "tokenizer/tokenizer_config.json": "the tokenizer of T5, 1 MB",
    "scheduler/scheduler_config.json": "the noise schedule, 1 KB",
    _EVA: "the face vision net EVA02-CLIP-L/14-336, 0.9 GB",
}
_COMPONENTS = {
    "tokenizer": ("transformers", "T5Tokenizer"),
    "text_encoder": ("transformers", "T5EncoderModel"),
    "vae": ("diffusers", "AutoencoderKLCogVideoX"),
    "transformer": ("fantasyid.models.transformer", "FantasyIDTransformer3DModel"),
    "scheduler": ("diffusers", "CogVideoXDPMScheduler"),  # infer.py takes it, whatever scheduler_config.json names
    "identity_encoder": ("fantasyid.models.released", "ReleasedIdentityEncoder"),
    "face_vision": ("fantasyid.models.eva_vision", "EvaVisionModel"),
}


class ConvertedFile(BaseModel):
    """One file of a conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    """Hash of the whole file."""
    size_bytes: int
    """Size of the whole file."""


class ConversionManifest(BaseModel):
    """Everything that a conversion wrote; written last, so that it stands for a whole one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Literal["fantasyid-released-2"] = "fantasyid-released-2"
    """Version of the conversion."""
    ignored_config: tuple[str, ...]
    """Fields of the authors' transformer config that nobody reads."""
    files: dict[str, ConvertedFile]
    """By path in the folder."""


def convert_release(source: Path, target: Path, mesh: Path | None = None) -> ConversionManifest:
    """Convert the authors' release, or check a conversion that is there already.

    The target appears only when it is whole. Files that stay as they are (T5, VAE) are hard links where the file system
    allows, else copies.

    Args:
        source: The release.
        target: Folder to make; one that holds a conversion is checked file by file.
        mesh: The authors' transform.pkl; `assets/transform.pkl` of the release when None.

    Returns:
        What is in the target.

    Raises:
        MissingWeightsError: A file of the release is not there; the message names it, its size and how to get it.
        CorruptWeightsError: A file is damaged, or has weights that this version does not know.
        InvalidRequestError: The target is something else, or the disk is too small.
    """
    if target.exists():
        if not (target / MANIFEST).is_file():
            raise InvalidRequestError(f"{target} exists and is no conversion; choose another folder, or remove it.")
        return check_conversion(target, hashes=True)
    mesh = source / MESH_FILE if mesh is None else mesh
    transformer = _check_release(source, mesh)
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_space(source, transformer, target.parent)
    with (
        tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.partial-") as temporary,
        tqdm(total=5, desc="Converting", unit="part", disable=None) as progress,
    ):
        folder = Path(temporary) / target.name
        heads = load_transform_pickle(mesh)
        hierarchy = released_hierarchy(heads)
        levels = tuple(len(level) for level in heads.vertices[:NUM_LEVELS])
        config = json.loads((transformer / "config.json").read_text(encoding="utf-8"))
        networks = build_released(_read_weights(transformer), config, levels, SPIRAL_LENGTH)
        networks.transformer.save_pretrained(folder / "transformer", max_shard_size="5GB")
        progress.update()
        networks.identity_encoder.set_hierarchy(**hierarchy)
        networks.identity_encoder.save_pretrained(folder / "identity_encoder")
        progress.update()
        load_eva_clip(source / _EVA).save_pretrained(folder / "face_vision")
        progress.update()
        for name in ("tokenizer", "text_encoder", "vae", "scheduler"):
            shutil.copytree(source / name, folder / name, copy_function=_link_or_copy)
        progress.update()
        _write_configs(source, folder)
        manifest = ConversionManifest(ignored_config=networks.ignored_config, files=_hash_files(folder))
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        progress.update()
        folder.rename(target)
    return manifest


def converted_from_hub(snapshot: Path, local_files_only: bool = False) -> Path:
    """The conversion of a downloaded release; made beside it in the Hub's cache the first time.

    Args:
        snapshot: The release as `huggingface_hub.snapshot_download` gives it.
        local_files_only: Whether the mesh may not be downloaded.

    Returns:
        Folder of the conversion.

    Raises:
        FantasyIDError: It cannot be converted, or the conversion lost files since; see `convert_release`.
    """
    target = snapshot.parents[1] / "fantasyid" / snapshot.name
    if target.exists():
        check_conversion(target)
        return target
    mesh = snapshot / MESH_FILE
    if not mesh.is_file():
        mesh = _fetch_mesh(target.parent, local_files_only)
    convert_release(snapshot, target, mesh)
    return target


def check_conversion(folder: Path, hashes: bool = False) -> ConversionManifest:
    """Check that a conversion is whole.

    Args:
        folder: Its folder.
        hashes: Whether to hash the files, which takes a minute, or only to look at their sizes.

    Returns:
        Its manifest.

    Raises:
        MissingWeightsError: A file is gone.
        CorruptWeightsError: A file is not as it was written.
    """
    remedy = f"remove {folder} and convert the release again"
    try:
        manifest = ConversionManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise MissingWeightsError(f"There is no {folder / MANIFEST}; {remedy}.") from error
    except ValidationError as error:
        raise CorruptWeightsError(f"{folder / MANIFEST} is not as this version writes it; {remedy}.") from error
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise MissingWeightsError(f"The file {path} is gone; {remedy}.")
        if path.stat().st_size != expected.size_bytes:
            raise CorruptWeightsError(f"{path} has not the {expected.size_bytes} bytes it was written with; {remedy}.")
    if hashes:
        found = _hash_files(folder)
        changed = [name for name, expected in manifest.files.items() if found[name] != expected]
        if changed:
            raise CorruptWeightsError(f"{folder / changed[0]} has changed since it was written; {remedy}.")
    return manifest


def released_hierarchy(heads: TransformPickle) -> dict[str, Any]:
    """Turn the authors' mesh hierarchy into what their identity encoder was trained with.

    Args:
        heads: Their transform.pkl; its finest `NUM_LEVELS` levels are used.

    Returns:
        Arguments of `ReleasedIdentityEncoder.set_hierarchy`.

    Raises:
        CorruptWeightsError: A mesh is not manifold, or a vertex is mixed from more than three.
    """
    if len(heads.vertices) < NUM_LEVELS:
        raise CorruptWeightsError(
            f"The mesh hierarchy has {len(heads.vertices)} levels and needs {NUM_LEVELS}; take the one at {MESH_URL}."
        )
    steps = NUM_LEVELS - 1
    meshes = [
        MeshTopology(triangles, len(vertices))
        for triangles, vertices in zip(heads.triangles[:steps], heads.vertices[:steps], strict=True)
    ]
    try:
        spirals = [
            released_spiral_indices(mesh, vertices, SPIRAL_LENGTH)
            for mesh, vertices in zip(meshes, heads.vertices[:steps], strict=True)
        ]
    except ValueError as error:
        raise CorruptWeightsError(
            f"The mesh hierarchy cannot be used ({error}); take the one at {MESH_URL}."
        ) from error
    return {
        "spirals": [torch.from_numpy(spiral) for spiral in spirals],
        "down": [_pooling(matrix) for matrix in heads.down[:steps]],
        "up": [_pooling(matrix) for matrix in heads.up[:steps]],
        "topology_hash": meshes[0].hash,
    }


def is_release(folder: Path) -> bool:
    """Whether a folder is laid out as the authors publish theirs."""
    config = _transformer_folder(folder) / "config.json"
    return config.is_file() and "is_train_face" in json.loads(config.read_text(encoding="utf-8"))


def _transformer_folder(source: Path) -> Path:
    """The authors' code takes the averaged weights where there are both."""
    averaged = source / "transformer_ema"
    return averaged if averaged.is_dir() else source / "transformer"


def _check_release(source: Path, mesh: Path) -> Path:
    """Refuse a release that lacks files, all named at once; returns the transformer's folder."""
    transformer = _transformer_folder(source)
    missing = [f"{path} ({what})" for path, what in _PARTS.items() if not (source / path).is_file()]
    if not (transformer / "config.json").is_file() or missing_weights(transformer):
        missing.append(f"{transformer.name} (the video transformer, 13 GB)")
    for name in ("vae", "text_encoder"):
        if (source / name / "config.json").is_file():
            missing += [f"{name}/{file.name}" for file in missing_weights(source / name)]
    if missing:
        raise MissingWeightsError(f"{source} is not the whole release; it lacks {', '.join(missing)}. {RELEASE_REMEDY}")
    if not mesh.is_file():
        raise MissingWeightsError(
            f"There is no mesh hierarchy {mesh} (0.9 MB); get {MESH_URL}, and pass it with --mesh or put it there."
        )
    return transformer


def _check_space(source: Path, transformer: Path, parent: Path) -> None:
    """Refuse a disk without room for what will be written; unchanged files are links on the same disk."""
    written = [transformer, source / "face_encoder"]
    if source.stat().st_dev != parent.stat().st_dev:
        written += [source / "text_encoder", source / "vae"]
    needed = sum(file.stat().st_size for folder in written for file in folder.iterdir() if file.is_file())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise InvalidRequestError(
            f"The conversion needs {needed / 1e9:.1f} GB and {parent} has {free / 1e9:.1f} GB free; "
            "make room or choose another folder."
        )


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of the transformer's folder; files take precedence as in the authors' code."""
    pickled, single = folder / "diffusion_pytorch_model.bin", folder / "diffusion_pytorch_model.safetensors"
    if pickled.is_file():
        return load_torch_file(pickled)
    files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_safetensors(file, "Download it again.").items()}


def _pooling(matrix: csr_matrix) -> tuple[Tensor, Tensor]:
    """Rows of a sparse matrix as three indices and three weights each, filled up with zeros."""
    counts = np.diff(matrix.indptr)
    if counts.max() > 3:
        raise CorruptWeightsError(
            f"The mesh hierarchy mixes a vertex from {counts.max()} others and at most 3 can be; "
            f"take the one at {MESH_URL}."
        )
    rows = np.repeat(np.arange(len(counts)), counts)
    columns = np.arange(len(rows)) - matrix.indptr[rows]
    indices, weights = np.zeros((len(counts), 3), np.int64), np.zeros((len(counts), 3), np.float32)
    indices[rows, columns], weights[rows, columns] = matrix.indices, matrix.data
    return torch.from_numpy(indices), torch.from_numpy(weights)


def _link_or_copy(source: str, target: str) -> None:
    """Hard link, or copy where the file system has none or the disk is another; the content is the same."""
    file = Path(source).resolve()
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _write_configs(source: Path, folder: Path) -> None:
    """The small files that differ from the release's."""
    # Their pipeline multiplies the reference latent by the scaling factor, whatever the VAE's config says.
    vae = json.loads((source / "vae" / "config.json").read_text(encoding="utf-8"))
    (folder / "vae" / "config.json").unlink()
    _write_json(folder / "vae" / "config.json", {**vae, "invert_scale_latents": False})
    index = {"_class_name": "FantasyIDPipeline", "_diffusers_version": diffusers.__version__, **PIPELINE_CONFIG}
    _write_json(folder / "model_index.json", {**index, **_COMPONENTS})


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _hash_files(folder: Path) -> dict[str, ConvertedFile]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    total = sum(path.stat().st_size for path in files)
    hashed = {}
    with tqdm(total=total, desc="Checksums", unit="B", unit_scale=True, leave=False, disable=None) as progress:
        for path in files:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
                    progress.update(len(block))
            name = path.relative_to(folder).as_posix()
            hashed[name] = ConvertedFile(sha256=digest.hexdigest(), size_bytes=path.stat().st_size)
    return hashed


def _fetch_mesh(folder: Path, local_files_only: bool) -> Path:
    """Download the mesh from the authors' code repository, which the release on the Hub lacks, and check its hash."""
    path = folder / MESH_FILE.name
    if path.is_file():
        return path
    remedy = f"download {MESH_URL} (0.9 MB) and put it at {path}"
    if local_files_only:
        raise MissingWeightsError(f"The released checkpoint's mesh is not here, and local_files_only is set; {remedy}.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(MESH_URL, str(path), hash_prefix=MESH_SHA256, progress=False)
    except (OSError, RuntimeError) as error:
        raise MissingWeightsError(f"The released checkpoint's mesh cannot be had ({error}); {remedy}.") from error
    return path
