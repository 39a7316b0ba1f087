"""What the pipeline returns."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from diffusers.utils import BaseOutput
from PIL import Image


@dataclass
class FantasyIDPipelineOutput(BaseOutput):
    """Videos, one per prompt and per video asked for.

    Attributes:
        frames: Lists of PIL images (`"pil"`), an array (B, T, H, W, 3) in [0, 1] (`"np"`), a tensor (B, T, 3, H, W) in
            [0, 1] (`"pt"`), or scaled latents (B, T, C, h, w) (`"latent"`).
    """

    frames: list[list[Image.Image]] | npt.NDArray[np.float32] | torch.Tensor
