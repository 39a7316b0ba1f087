"""DECA's coarse encoder (Feng et al. 2021; paper 3.3): a face crop becomes FLAME's coefficients, a camera and light."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.core.torch_files import load_torch_file
from fantasyid.geometry.flame import DEFAULT_FOLDER

LICENCE = "MPI's licence for DECA, non-commercial research only"
SIZE_MB = 414
"""About how large deca_model.tar is."""
REMEDY = (
    f"get deca_model.tar (about {SIZE_MB} MB) as https://github.com/YadiraF/DECA tells under 'Prepare data', and give "
    f"its path or put it into {DEFAULT_FOLDER} ({LICENCE}; read it first)"
)
CROP_SIZE = 224

_CODE_SIZES = {"shape": 100, "texture": 50, "expression": 50, "pose": 6, "camera": 3, "light": 27}
_PART_USED = "E_flame"
_PARTS_LEFT = {
    "E_detail": "encoder of wrinkles",
    "D_detail": "decoder of wrinkles",
    "opt": "state of DECA's optimiser",
    "global_step": "training step",
    "batch_size": "training batch",
}
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, eq=False)
class DecaCode:
    """What DECA sees in B crops.

    Attributes:
        shape: (B, 100) FLAME 2020's first shape coefficients, in sigmas.
        texture: (B, 50) albedo coefficients.
        expression: (B, 50) FLAME 2020's first expression coefficients, in sigmas.
        pose: (B, 6) axis-angle of the whole head and of the jaw, radians.
        camera: (B, 3) scale, shift_x and shift_y: a point of the turned head (metres) lies in the crop at
            x = scale * (X + shift_x), y = -scale * (Y + shift_y), where the crop's edges are -1 and 1 and y goes down.
        light: (B, 9, 3) spherical harmonics of RGB light.
    """

    shape: Tensor
    texture: Tensor
    expression: Tensor
    pose: Tensor
    camera: Tensor
    light: Tensor


class DecaEncoder(nn.Module):
    """A ResNet-50 and two linear layers, always at the size of DECA's published weights."""

    def __init__(self) -> None:
        # Here, because it takes three seconds and the registry of face backends names this class.
        from transformers import ResNetConfig, ResNetModel

        super().__init__()
        self.resnet = ResNetModel(ResNetConfig())
        self.layers = nn.Sequential(nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, sum(_CODE_SIZES.values())))

    def forward(self, crops: Tensor) -> DecaCode:
        """Read faces.

        Args:
            crops: RGB (B, 3, 224, 224) in [0, 1], as DECA was trained, not in [-1, 1].

        Returns:
            The code of each.
        """
        features = F.avg_pool2d(self.resnet(crops).last_hidden_state, kernel_size=7).flatten(1)
        code = dict(zip(_CODE_SIZES, self.layers(features).split(list(_CODE_SIZES.values()), 1), strict=True))
        return DecaCode(**{**code, "light": code["light"].unflatten(1, (9, 3))})

    @classmethod
    def load(cls, path: Path) -> DecaEncoder:
        """Read `deca_model.tar`, a torch checkpoint in spite of its name; no code in it is run.

        `E_flame` is used, all of it. `E_detail`, `D_detail`, `opt`, `global_step` and `batch_size` are left: wrinkles
        and the state of DECA's training. Anything else is refused.

        Args:
            path: The file.

        Returns:
            The encoder in eval mode, on the CPU, without gradients.

        Raises:
            MissingWeightsError: There is no such file.
            CorruptWeightsError: It is damaged or not DECA; the error says where to get it and on which terms.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingWeightsError(f"There is no file {path}; {REMEDY}")
        parts = load_torch_file(path, REMEDY)
        if not isinstance(parts.get(_PART_USED), dict):
            raise _corrupt(path, f"it has no {_PART_USED}")
        unknown = sorted(map(str, set(parts) - {_PART_USED, *_PARTS_LEFT}))
        if unknown:
            raise _corrupt(path, f"it has the unknown parts {unknown[:4]}")
        # BatchNorm's counters play no part in what it computes.
        theirs = {key: value for key, value in parts[_PART_USED].items() if not key.endswith(_COUNTER)}
        table = key_table()
        if set(theirs) != set(table):
            raise _corrupt(path, f"{_PART_USED} lacks or has besides {sorted(set(theirs) ^ set(table))[:4]}")
        # On "meta" nothing is drawn that the weights would overwrite.
        with torch.device("meta"):
            encoder = cls()
        state: dict[str, Any] = {
            key: torch.zeros((), dtype=torch.int64) for key in encoder.state_dict() if key.endswith(_COUNTER)
        }
        state |= {table[key]: value for key, value in theirs.items()}
        for key, wanted in encoder.state_dict().items():
            if not isinstance(state[key], Tensor) or (state[key].shape, state[key].dtype) != (
                wanted.shape,
                wanted.dtype,
            ):
                raise _corrupt(path, f"{key} is not a tensor of shape {tuple(wanted.shape)} of {wanted.dtype}")
        encoder.load_state_dict(state, assign=True)
        return encoder.eval().requires_grad_(False)


def key_table() -> dict[str, str]:
    """DECA's name of every tensor of `E_flame`, and ours."""
    ours = "resnet.embedder.embedder."
    modules = {"encoder.conv1": f"{ours}convolution", "encoder.bn1": f"{ours}normalization"}
    for stage, depth in enumerate((3, 4, 6, 3)):
        for block in range(depth):
            theirs, ours = f"encoder.layer{stage + 1}.{block}.", f"resnet.encoder.stages.{stage}.layers.{block}."
            for conv in range(3):
                modules[f"{theirs}conv{conv + 1}"] = f"{ours}layer.{conv}.convolution"
                modules[f"{theirs}bn{conv + 1}"] = f"{ours}layer.{conv}.normalization"
        first = f"resnet.encoder.stages.{stage}.layers.0.shortcut."
        modules[f"encoder.layer{stage + 1}.0.downsample.0"] = f"{first}convolution"
        modules[f"encoder.layer{stage + 1}.0.downsample.1"] = f"{first}normalization"
    table = {}
    for theirs, ours in modules.items():
        norm = ours.endswith("normalization")
        for name in ("weight", "bias", "running_mean", "running_var") if norm else ("weight",):
            table[f"{theirs}.{name}"] = f"{ours}.{name}"
    return table | {f"layers.{n}.{name}": f"layers.{n}.{name}" for n in (0, 2) for name in ("weight", "bias")}


def _corrupt(path: Path, reason: str) -> CorruptWeightsError:
    return CorruptWeightsError(f"{path} ({path.stat().st_size} bytes) is not DECA's model: {reason}; {REMEDY}")
