"""What was read of a photo, as a visitor sees it: pictures, a head to turn and edit, and plain words."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fantasyid.face.drawing import DrawableHead
from fantasyid.face.reconstruct_deca import DecaFiles
from fantasyid.face.types import FaceReading, HeadPose
from fantasyid.geometry.edit_table import EDITS
from fantasyid.geometry.edits import HeadEditor
from fantasyid.geometry.flame import DEFAULT_FOLDER, FlameModel
from fantasyid.geometry.head_model import HeadModel

MOVE_UNITS_PER_CM = 20_000
"""Edits travel as 16-bit numbers: finer than a micrometre, and up to 1.6 cm; head.js knows it too."""
_CLEARLY_DEG = 5
_NUMBER_PIXELS = 26
_BOX = (255, 176, 0)


@dataclass(frozen=True, eq=False)
class PersonView:
    """A person as the page shows them.

    Attributes:
        photo: RGB uint8 (H,W,3).
        reading: Of that photo.
        notices: What was warned of while it was read.
    """

    photo: NDArray[np.uint8]
    reading: FaceReading
    notices: tuple[str, ...]

    @cached_property
    def _head(self) -> DrawableHead:
        flame = None
        if self.reading.head.topology_hash != HeadModel.load().topology.hash:
            flame = FlameModel.load(DecaFiles.in_folder(DEFAULT_FOLDER).flame)
        return DrawableHead.of(self.reading, flame)

    @property
    def can_be_edited(self) -> bool:
        """Whether the edits are made for this head."""
        return self.reading.head.topology_hash == HeadModel.load().topology.hash

    @property
    def face_names(self) -> list[str]:
        """What each face of the photo is called, the largest first."""
        count = self.reading.num_faces
        return [f"Face {number + 1}{' (the largest)' if number == 0 else ''}" for number in range(count)]

    def overlay(self, first_number: int = 1) -> NDArray[np.uint8]:
        """The head over the photo; where there are several faces, they have boxes with their numbers.

        Args:
            first_number: Of the largest face.

        Returns:
            RGB (H,W,3), at most 640 pixels a side.
        """
        picture = self._head.overlay(self.photo)
        if self.reading.num_faces == 1:
            return picture
        factor = picture.shape[1] / self.photo.shape[1]
        page = Image.fromarray(picture)
        draw, font = ImageDraw.Draw(page), ImageFont.load_default(_NUMBER_PIXELS)
        for number, face in enumerate(self.reading.faces, first_number):
            left, top, right, bottom = (factor * edge for edge in face.box)
            draw.rectangle((left, top, right, bottom), outline=_BOX, width=3)
            draw.text((left + 6, top + 2), str(number), _BOX, font, stroke_width=2, stroke_fill="black")
        return np.asarray(page)

    def head(self, strengths: Sequence[float]) -> dict[str, Any]:
        """The neutral head and how each edit moves it, for head.js.

        Args:
            strengths: Of the edits, in their order.
        """
        vertices = self._head.neutral
        low, high = vertices.amin(dim=0), vertices.amax(dim=0)
        moves: list[torch.Tensor] = []
        if self.can_be_edited:
            editor = HeadEditor(HeadModel.load())
            moves = [editor.displacement(edit.name) * MOVE_UNITS_PER_CM for edit in EDITS]
        return {
            "vertices": _packed(vertices - (low + high) / 2, np.float32),
            "triangles": _packed(self._head.triangles, np.uint16),
            "colours": _packed((self._head.colours * 255).round(), np.uint8),
            "moves": [_packed(move.round(), np.int16) for move in moves],
            "height": float(high[1] - low[1]),
            "strengths": list(strengths),
        }

    def sentence(self) -> str:
        """What was read, in words."""
        marks = self.reading.landmarks[:, :2]
        pixels = float((marks.amax(dim=0) - marks.amin(dim=0)).max())
        return f"A face of {pixels:.0f} pixels that {_direction(self.reading.head.pose)}."


def face_picture(photo: NDArray[np.uint8], box: tuple[float, float, float, float], side: int) -> NDArray[np.uint8]:
    """The surroundings of a face, as a square.

    Args:
        photo: RGB (H,W,3).
        box: Of the face, xyxy pixels.
        side: Of the picture, in pixels.

    Returns:
        RGB (side,side,3), twice as wide as the box; the photo's edge goes on where it ends.
    """
    x0, y0, x1, y1 = box
    half = max(x1 - x0, y1 - y0)
    scale = side / (2 * half)
    affine = np.array([[scale, 0, side / 2 - scale * (x0 + x1) / 2], [0, scale, side / 2 - scale * (y0 + y1) / 2]])
    sharp = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.warpAffine(photo, affine, (side, side), flags=sharp, borderMode=cv2.BORDER_REPLICATE))


def _packed(tensor: torch.Tensor, dtype: type[np.generic]) -> str:
    return base64.b64encode(tensor.cpu().numpy().astype(dtype).tobytes()).decode()


def _direction(pose: HeadPose) -> str:
    yaw, pitch = round(pose.yaw_deg), round(pose.pitch_deg)
    parts = []
    if abs(yaw) >= _CLEARLY_DEG:
        parts.append(f"is turned {abs(yaw)}° to the {'right' if yaw > 0 else 'left'} of the picture")
    if abs(pitch) >= _CLEARLY_DEG:
        parts.append(f"has the chin {abs(pitch)}° {'down' if pitch > 0 else 'up'}")
    return " and ".join(parts) or "looks straight at the camera"
