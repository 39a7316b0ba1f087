"""What full size needs and no package can ship: which files, how large, on which terms, and whether they are here."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor

from fantasyid.core.component_files import WEIGHTS_INDEX, weights_files
from fantasyid.core.errors import MissingWeightsError
from fantasyid.core.json_files import read_json
from fantasyid.core.torch_files import load_torch_file
from fantasyid.models.eva_vision import EvaVisionModel

EVA_HEAD_DIM = 64
"""Channels of an attention head in every EVA02-CLIP."""


@dataclass(frozen=True)
class FullSizePart:
    """Something to download.

    Attributes:
        name: What it is.
        repository: Its name on the Hugging Face Hub.
        path: The component's folder there, or the file.
        size_gb: About how large it is.
        licence: Its terms.
        needed_for: Which full-size models read it.
    """

    name: str
    repository: str
    path: str
    size_gb: float
    licence: str
    needed_for: str

    @property
    def remedy(self) -> str:
        """How to get it."""
        pattern = self.path if "." in self.path else f"{self.path}/*"
        return f"get it ({self.size_gb:.1f} GB) with: hf download {self.repository} --include '{pattern}'"

    def find(self, cache: Path | None = None) -> Path:
        """Look for it in the Hub's cache; nothing is downloaded.

        Args:
            cache: The cache's folder; None takes the usual one.

        Returns:
            The folder or file.

        Raises:
            MissingWeightsError: It is not there, or not all of it.
        """
        try:
            path = Path(snapshot_download(self.repository, cache_dir=cache, local_files_only=True)) / self.path
        except LocalEntryNotFoundError as error:
            raise MissingWeightsError(f"{self.name} is not in the Hugging Face cache; {self.remedy}.") from error
        missing = missing_weights(path) if path.suffix == "" else () if path.is_file() else (path,)
        if missing:
            raise MissingWeightsError(f"{self.name} lacks {_names(missing)}; {self.remedy}.")
        return path


_COGVIDEOX = "zai-org/CogVideoX-5b-I2V"
_COGVIDEOX_LICENCE = "CogVideoX licence: commercial use after registration"
_OWN = "adapters of your own"
PARTS = (
    FullSizePart("T5-XXL", _COGVIDEOX, "text_encoder", 9.5, "Apache-2.0", _OWN),
    FullSizePart("CogVideoX VAE", _COGVIDEOX, "vae", 0.4, _COGVIDEOX_LICENCE, _OWN),
    FullSizePart("CogVideoX-5B-I2V transformer", _COGVIDEOX, "transformer", 11.1, _COGVIDEOX_LICENCE, _OWN),
    FullSizePart("EVA02-CLIP-L/14-336", "QuanSun/EVA-CLIP", "EVA02_CLIP_L_336_psz14_s6B.pt", 0.9, "MIT", _OWN),
)
"""What an adapter of one's own needs: CogVideoX, its text encoder and the paper's face vision net."""

_RELEASE = "acvlab/FantasyID"
_RELEASED = "the released checkpoint"
RELEASE_PARTS = (
    FullSizePart(
        "released FantasyID transformer",
        _RELEASE,
        "transformer",
        13.3,
        "code: Apache-2.0; weights: see their page and CogVideoX's licence",
        _RELEASED,
    ),
    FullSizePart("released T5-XXL", _RELEASE, "text_encoder", 9.5, "Apache-2.0", _RELEASED),
    FullSizePart("released VAE", _RELEASE, "vae", 0.4, _COGVIDEOX_LICENCE, _RELEASED),
    FullSizePart(
        "released EVA02-CLIP-L/14-336", _RELEASE, "face_encoder/EVA02_CLIP_L_336_psz14_s6B.pt", 0.9, "MIT", _RELEASED
    ),
)
"""What the released checkpoint needs, all in its own repository; its mesh is `convert.MESH_URL`."""


def load_eva_clip(path: Path, num_layers: int = 20) -> EvaVisionModel:
    """Read the face vision net out of the file that EVA-CLIP's authors publish.

    Args:
        path: `EVA02_CLIP_L_336_psz14_s6B.pt`, text tower and all.
        num_layers: Blocks to keep: 20 for the released checkpoint.

    Returns:
        The network in the file's dtype (float16), in evaluation mode and without gradients.

    Raises:
        MissingWeightsError: There is no such file.
        CorruptWeightsError: It is damaged or another model's.
    """
    if not path.is_file():
        raise MissingWeightsError(f"There is no file {path}; {PARTS[-1].remedy}.")
    content = load_torch_file(path)
    for wrapper in ("model", "module", "state_dict"):
        content = content.get(wrapper, content)
    model: EvaVisionModel = EvaVisionModel.from_eva_clip(content, num_layers=num_layers, **_eva_sizes(content))
    return model


def _eva_sizes(weights: dict[str, Tensor]) -> dict[str, int]:
    """Sizes of an EVA-CLIP by its shapes; none where a weight is missing, which loading then names."""
    names = ("pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.w1.weight")
    if any(f"visual.{name}" not in weights for name in names):
        return {}
    position, patches, feed_forward = (weights[f"visual.{name}"].shape for name in names)
    return {
        "image_size": isqrt(position[1] - 1) * patches[2],
        "patch_size": patches[2],
        "width": patches[0],
        "num_heads": patches[0] // EVA_HEAD_DIM,
        "feed_forward_width": feed_forward[0],
    }


def missing_weights(folder: Path) -> tuple[Path, ...]:
    """Find the weight files that a component's folder lacks.

    Args:
        folder: As diffusers and transformers write it: one file, or an index and its shards.

    Returns:
        The files that should be there; empty where all are.

    Raises:
        CorruptWeightsError: The index is damaged.
    """
    expected = weights_files(folder) or (() if any(folder.glob("*.bin")) else (folder / "*.safetensors",))
    return tuple(file for file in expected if not file.is_file())


def check_pipeline_folder(folder: Path, kinds: Mapping[str, str]) -> None:
    """Refuse a folder that lacks files of a pipeline, before gigabytes are read.

    Args:
        folder: As `save_pretrained` writes it.
        kinds: Class by component that is to be read from it.

    Raises:
        MissingWeightsError: A file is missing; the message names each, its size where it is known, and how to get it.
        CorruptWeightsError: An index of weights is damaged.
    """
    cogvideox = {part.path: part for part in PARTS if part.repository == _COGVIDEOX and part.path != "transformer"}
    problems = []
    for name, kind in kinds.items():
        here = folder / name
        lacking = here.is_dir() and (here / "config.json").is_file() and missing_weights(here)
        if here.is_dir() and not lacking:
            continue
        remedy = "write the folder again with save_pretrained or `fantasyid convert`"
        # Only CogVideoX's text encoder is a T5; a folder with another one is of another size.
        if name in cogvideox and "T5EncoderModel" in kinds.values():
            remedy = f"{cogvideox[name].remedy} --local-dir {folder}"
        files = f": {_names(lacking)}{_size(here)}" if lacking else ""
        problems.append(f"{name} ({kind}){files}; {remedy}")
    if problems:
        raise MissingWeightsError(f"{folder} does not hold a whole pipeline. Missing: {'. '.join(problems)}.")


def _size(folder: Path) -> str:
    """Of all shards, where the index tells."""
    for index in folder.glob(WEIGHTS_INDEX):
        metadata = read_json(index).get("metadata")
        num_bytes = metadata.get("total_size") if isinstance(metadata, dict) else None
        if isinstance(num_bytes, int):
            return f" of {num_bytes / 1e9:.1f} GB in all"
    return ""


def _names(files: tuple[Path, ...]) -> str:
    return ", ".join(file.name for file in files)
