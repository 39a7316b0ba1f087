"""Views of a person from different sides (paper 3.2): which frames of a shot, and the picture kept of each."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fantasyid.data.dataset.rows import View
from fantasyid.face.align import crop_corners, portrait_transform
from fantasyid.face.types import HeadPose
from fantasyid.geometry.projection import rotation_matrix

# The picture of a view holds the frame of head and shoulders widened to this shape, so that a reference of any video
# up to 16:9 can be cut out of it.
_WIDEST = 16 / 9


def viewing_directions(poses: Sequence[HeadPose | View]) -> Tensor:
    """Where the camera is, seen from the head; rolling the picture changes nothing of it.

    Args:
        poses: N of them.

    Returns:
        (N,3) unit vectors in head space, float64.
    """
    angles = torch.tensor([(pose.yaw_deg, pose.pitch_deg, pose.roll_deg) for pose in poses], dtype=torch.float64)
    return rotation_matrix(*angles.reshape(-1, 3).unbind(-1))[:, 2]


def choose_views(directions: Tensor, count: int, separation_deg: float) -> tuple[int, ...]:
    """The two directions farthest apart, then again and again the one farthest from those chosen.

    Args:
        directions: (N,3) unit vectors; of equally good ones the first is taken.
        count: How many views, at most.
        separation_deg: No two are nearer than this.

    Returns:
        Their indices in the order chosen; one alone where all are too near.
    """
    if len(directions) == 0:
        return ()
    angles = torch.rad2deg(torch.acos((directions @ directions.T).clamp(-1, 1)))
    first, second = divmod(int(angles.triu(1).argmax()), len(directions))
    chosen = [first]
    if count > 1 and angles[first, second] >= max(separation_deg, 1e-6):
        chosen.append(second)
        while len(chosen) < count:
            nearest = angles[:, chosen].amin(dim=1)
            best = int(nearest.argmax())
            if nearest[best] < max(separation_deg, 1e-6):
                break
            chosen.append(best)
    return tuple(chosen)


def spread_deg(directions: Tensor) -> float:
    """The largest angle between two of (N,3) unit vectors; 0 of fewer than two."""
    if len(directions) < 2:
        return 0.0
    return math.degrees(float(torch.acos((directions @ directions.T).clamp(-1, 1)).max()))


@dataclass(frozen=True, eq=False)
class ViewPicture:
    """What is kept of a frame.

    Attributes:
        jpeg: The picture as JPEG, (B,) uint8.
        landmarks: (478,3) pixels of the picture.
    """

    jpeg: Tensor
    landmarks: Tensor


def view_picture(frame: NDArray[np.uint8], landmarks: Tensor, height: int) -> ViewPicture:
    """Cut head and shoulders out of a frame, upright as they are, so that any model's crops can be made of it.

    Args:
        frame: RGB (H,W,3).
        landmarks: (478,3) pixels of the frame.
        height: Larger pictures are made so high.

    Returns:
        The picture, and the landmarks in it.
    """
    corners = crop_corners(portrait_transform(landmarks[None, :, :2]))[0]
    (left, top), (right, bottom) = corners.amin(dim=0).tolist(), corners.amax(dim=0).tolist()
    wider = max(0.0, ((bottom - top) * _WIDEST - (right - left)) / 2)
    x0, y0 = max(0, math.floor(left - wider)), max(0, math.floor(top))
    x1, y1 = min(frame.shape[1], math.ceil(right + wider)), min(frame.shape[0], math.ceil(bottom))
    picture = Image.fromarray(frame[y0:y1, x0:x1])
    scale = min(1.0, height / picture.height)
    if scale < 1:
        size = (max(1, round(picture.width * scale)), height)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    moved = landmarks - landmarks.new_tensor([x0, y0, 0])
    across, down = picture.width / (x1 - x0), picture.height / (y1 - y0)
    return ViewPicture(jpeg_bytes(picture, 95), moved * landmarks.new_tensor([across, down, across]))


def jpeg_bytes(picture: Image.Image, quality: int) -> Tensor:
    """A picture as JPEG without loss of colour resolution, (B,) uint8."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
