"""Pictures of heads: shaded views from several sides, and a head laid over the photo it was read from.

Colours are RGB in [0, 1]; pictures leave as uint8. Drawn on the CPU at twice the size and averaged down.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from einops import rearrange, reduce
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.geometry.head_model import PART_NAMES, HeadModel
from fantasyid.geometry.projection import project, rotation_matrix
from fantasyid.geometry.raster import interpolate, rasterise, vertex_normals

TURNTABLE_YAWS_DEG = (-60.0, -30.0, 0.0, 30.0, 60.0)
SKIN_COLOUR = (0.72, 0.71, 0.70)
_PART_COLOUR = {
    "mouth_interior": (0.45, 0.22, 0.21),
    "eye_left": (0.95, 0.95, 0.93),
    "eye_right": (0.95, 0.95, 0.93),
    "teeth_upper": (0.93, 0.90, 0.82),
    "teeth_lower": (0.93, 0.90, 0.82),
    "tongue": (0.70, 0.38, 0.38),
}
_PAPER = 0.97
_LIGHT = (-0.35, 0.45, 0.82)  # from above the viewer's left shoulder
_AMBIENT = 0.35
_SUPERSAMPLE = 2
_MAX_OVERLAY_PIXELS = 640
_OVERLAY_OPACITY = 0.6
_MARGIN = 1.1  # height of a turntable over that of the head


def part_colours(head: HeadModel) -> Tensor:
    """Colour of every vertex: neutral skin, and its own colour for each part that is not skin.

    Args:
        head: The head model.

    Returns:
        (N, 3) in [0, 1].
    """
    table = torch.tensor([_PART_COLOUR.get(name, SKIN_COLOUR) for name in PART_NAMES])
    return table[head.parts.long()]


def turntable(
    vertices: Tensor,
    triangles: Tensor,
    colours: Tensor,
    yaws_deg: Sequence[float] = TURNTABLE_YAWS_DEG,
    height: int = 320,
) -> NDArray[np.uint8]:
    """Draw one head from several sides in a row.

    Args:
        vertices: (N, 3) cm in head space.
        triangles: (F, 3) int64.
        colours: (N, 3) in [0, 1].
        yaws_deg: The head's yaw in each view, positive = turned to the right of the picture.
        height: Of the picture in pixels.

    Returns:
        RGB (height, V * width, 3) on near-white paper; a view is 0.9 as wide as high.
    """
    yaw = torch.tensor(yaws_deg, dtype=torch.float32)
    rotation = rotation_matrix(yaw, torch.zeros_like(yaw), torch.zeros_like(yaw))
    width = round(0.9 * height)
    low, high = vertices.amin(dim=0), vertices.amax(dim=0)
    scale = (height / (_MARGIN * (high[1] - low[1]))).expand(len(yaw))
    centre = torch.tensor([[(width - 1) / 2, (height - 1) / 2]]).expand(len(yaw), -1)
    views, coverage = _shade(vertices - (low + high) / 2, triangles, colours, rotation, scale, centre, (height, width))
    return _to_bytes(rearrange(views + _PAPER * (1 - coverage), "v h w c -> h (v w) c"))


def overlay(
    photo: NDArray[np.uint8],
    vertices: Tensor,
    triangles: Tensor,
    colours: Tensor,
    rotation: Tensor,
    anchors: tuple[Tensor, Tensor],
) -> NDArray[np.uint8]:
    """Lay a shaded, half transparent head over its photo.

    Args:
        photo: RGB (H, W, 3).
        vertices: (N, 3) cm in head space, with the expression of the photo.
        triangles: (F, 3) int64.
        colours: (N, 3) in [0, 1].
        rotation: (3, 3) of the head in the photo.
        anchors: Points of the head, (L, 3) cm in head space, and where the photo shows them, (L, 2) pixels; size and
            place of the head follow from them by least squares. L >= 2.

    Returns:
        RGB; a photo with a side above 640 pixels is made smaller.
    """
    factor = min(1.0, _MAX_OVERLAY_PIXELS / max(photo.shape[:2]))
    height, width = (max(1, round(factor * side)) for side in photo.shape[:2])
    small = photo if factor == 1 else cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    points, shown = anchors[0] @ rotation.T, (anchors[1] + 0.5) * factor - 0.5
    flat = points[:, :2] * points.new_tensor([1.0, -1.0])
    spread = flat - flat.mean(dim=0)
    scale = (spread * (shown - shown.mean(dim=0))).sum() / spread.square().sum()
    translation = shown.mean(dim=0) - scale * flat.mean(dim=0)
    views, coverage = _shade(
        vertices, triangles, colours, rotation[None], scale[None], translation[None], (height, width)
    )
    under = torch.from_numpy(small.astype(np.float32) / 255)
    return _to_bytes(under + _OVERLAY_OPACITY * (views[0] - coverage[0] * under))


def _shade(
    vertices: Tensor,
    triangles: Tensor,
    colours: Tensor,
    rotation: Tensor,
    scale: Tensor,
    translation: Tensor,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Lambert shading of V views: colours (V, H, W, 3) times coverage, and coverage (V, H, W, 1)."""
    height, width = (_SUPERSAMPLE * side for side in size)
    placed = (translation + 0.5) * _SUPERSAMPLE - 0.5
    pixels = project(vertices.float().expand(len(rotation), -1, -1), rotation, scale * _SUPERSAMPLE, placed)
    normals = vertex_normals(vertices.float()[None], triangles) @ rotation.mT
    light = torch.nn.functional.normalize(torch.tensor(_LIGHT), dim=0)
    lit = (_AMBIENT + (1 - _AMBIENT) * (normals @ light).clamp(min=0))[..., None] * colours
    views = []
    for view, colour in zip(pixels, lit, strict=True):
        # Triangles that look away are hidden by others, except at the collar, where the mesh is cut off.
        (ax, ay), (bx, by), (cx, cy) = view[triangles, :2].permute(1, 2, 0)
        towards = triangles[(bx - ax) * (cy - ay) - (cx - ax) * (by - ay) < 0]
        index, weights = rasterise(view[None], towards, height, width)
        drawn = interpolate(colour, towards, index, weights)
        views.append(torch.cat([drawn, (index >= 0).float()[..., None]], -1))
    coarse = reduce(torch.cat(views), "v (h a) (w b) c -> v h w c", "mean", a=_SUPERSAMPLE, b=_SUPERSAMPLE)
    return coarse[..., :3], coarse[..., 3:]


def _to_bytes(picture: Tensor) -> NDArray[np.uint8]:
    return (picture.clamp(0, 1) * 255).round().byte().numpy()
