"""E_dep: the sinusoidal code of the coarse vertices' depth (paper 3.3)."""

import torch
from einops import rearrange
from torch import Tensor

DEPTH_UNIT_CM = 0.1
"""Depth is coded in millimetres: the finest wave is 6 mm long, and a head, about 250 mm deep, is far from wrapping the
coarse ones."""


def encode_depth(depth_cm: Tensor, dim: int) -> Tensor:
    """Code depth as the sine and cosine of dim / 2 frequencies from 1 down to nearly 1 / 10000 per depth unit.

    Paper 3.3: "a positional encoding E_dep, derived from the depth map of the projected vertices". The neutral head is
    projected from the front, so depth is z.

    Args:
        depth_cm: Depth of the vertices (B, N) in cm, larger = nearer to the viewer.
        dim: Width of the code, even.

    Returns:
        (B, N, dim): all sines, then all cosines.
    """
    exponent = torch.arange(dim // 2, dtype=torch.float32, device=depth_cm.device) / (dim // 2)
    angles = rearrange(depth_cm / DEPTH_UNIT_CM, "b n -> b n 1") * 10000.0**-exponent
    return torch.cat([angles.sin(), angles.cos()], dim=-1).type_as(depth_cm)
