import numpy as np
import torch

from fantasyid.core.imaging import to_tensor
from fantasyid.face.align import portrait_transform, warp
from fantasyid.face.part import MAX_PART_PIXELS, PhotoPart
from tests.unit.face.faces import plausible_landmarks, portrait, resized


def test_crop_of_the_part_is_the_crop_of_the_photo() -> None:
    photo = resized(portrait(), 900)
    landmarks = plausible_landmarks(height=120, centre=(430.0, 380.0))
    part = PhotoPart.around(photo, landmarks[0], 1.0)
    assert part.factor == 1
    assert part.pixels.size < photo.size / 4
    whole = warp(to_tensor(photo), portrait_transform(landmarks), 128)
    cut = warp(to_tensor(part.pixels), portrait_transform(part.from_photo(landmarks)), 128)
    assert (whole - cut).abs().max() < 1e-3


def test_huge_part_is_shrunk_and_shows_the_same() -> None:
    photo = resized(portrait(), 6000)
    landmarks = plausible_landmarks(height=2000, centre=(2840.0, 2440.0))
    part = PhotoPart.around(photo, landmarks[0], 1.0)
    assert part.factor == 2
    assert part.pixels.shape[0] * part.pixels.shape[1] <= MAX_PART_PIXELS
    whole = warp(to_tensor(photo), portrait_transform(landmarks), 128)
    cut = warp(to_tensor(part.pixels), portrait_transform(part.from_photo(landmarks)), 128)
    assert (whole - cut).abs().mean() < 0.01
    points = torch.rand(5, 3) * 6000
    assert torch.allclose(part.to_photo(part.from_photo(points)), points, atol=1e-2)


def test_points_outside_the_photo_leave_a_pixel() -> None:
    photo = np.zeros((20, 30, 3), np.uint8)
    for x, y in ((-500.0, -500.0), (500.0, 500.0)):
        part = PhotoPart.around(photo, torch.tensor([[x, y], [x + 9, y + 9]]), 0.1)
        assert part.pixels.shape == (1, 1, 3)
