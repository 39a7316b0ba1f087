"""Cutting canvases: what lies beyond a photo's edge is mirrored, and too much of it leaves the photo out."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fantasyid.core.errors import UnreadablePhotoError
from fantasyid.data.repose.prepare import MAX_OUTSIDE, _canvas, _outside
from fantasyid.data.repose.rig import CANVAS
from fantasyid.face.align import portrait_transform
from tests.unit.face.faces import plausible_landmarks

SIDE = 300


def person(canvas: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A segmenter for which the left half is the person."""
    return np.repeat(np.arange(canvas.shape[1])[None] < canvas.shape[1] // 2, len(canvas), axis=0).astype(np.float32)


def cut(folder: Path, centre: tuple[float, float], size: float = 110) -> tuple[dict[str, Any] | None, Any]:
    """Canvas of a photo whose red rises to the right and whose green rises downwards, and its portrait frame."""
    ramp = np.linspace(0, 250, SIDE).astype(np.uint8)
    photo = np.stack(
        [np.zeros((SIDE, SIDE), np.uint8), np.tile(ramp[:, None], (1, SIDE)), np.tile(ramp, (SIDE, 1))], -1
    )
    cv2.imwrite(str(folder / "photo.png"), photo)
    landmarks = plausible_landmarks(size, centre)[0]
    points = torch.cat([landmarks, torch.zeros(len(landmarks), 1)], -1).numpy()
    return _canvas(folder / "photo.png", points, person), portrait_transform(landmarks[None])


def test_a_frame_within_the_photo_is_cut_with_its_landmarks(tmp_path: Path) -> None:
    canvas, _ = cut(tmp_path, (150, 150))
    assert canvas is not None
    assert canvas["image"].shape == (CANVAS, CANVAS, 3)
    x, y = canvas["landmarks"][1, :2]
    red, green, _ = canvas["image"][round(float(y)), round(float(x))]
    nose = plausible_landmarks(110, (150, 150))[0, 1]
    assert abs(float(red) / 250 * SIDE - float(nose[0])) < 3
    assert abs(float(green) / 250 * SIDE - float(nose[1])) < 3
    assert canvas["alpha"][:, : CANVAS // 3].min() == 255
    assert canvas["alpha"][:, -CANVAS // 3 :].max() == 0


def test_beyond_the_edge_the_photo_is_mirrored(tmp_path: Path) -> None:
    """A repeated border would be even there; red is least where the photo ends on the left."""
    canvas, frame = cut(tmp_path, (95, 150))
    assert canvas is not None
    assert 0 < _outside(frame, SIDE, SIDE) <= MAX_OUTSIDE
    red = canvas["image"][CANVAS // 2, :, 0].astype(int)
    edge = int(np.flatnonzero(red == red.min()).mean())
    assert edge > 8
    assert red[0] > red[edge] + 3
    assert abs(red[edge - 8] - red[edge + 8]) <= 2


def test_a_photo_with_too_little_around_the_face_is_left_out(tmp_path: Path) -> None:
    canvas, frame = cut(tmp_path, (40, 150))
    assert _outside(frame, SIDE, SIDE) > MAX_OUTSIDE
    assert canvas is None


@pytest.mark.parametrize(("size", "share"), [((100, 100), 0.0), ((50, 100), 0.5), ((100, 25), 0.75), ((50, 50), 0.75)])
def test_the_share_outside_is_one_of_area(size: tuple[int, int], share: float) -> None:
    frame = torch.tensor([[[100.0, 0.0, 0.0], [0.0, 100.0, 0.0]]])
    assert _outside(frame, *size) == pytest.approx(share, abs=0.03)


def test_a_photo_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_text("no picture")
    with pytest.raises(UnreadablePhotoError, match="cannot be read"):
        _canvas(tmp_path / "photo.png", np.zeros((478, 3), np.float32), person)
