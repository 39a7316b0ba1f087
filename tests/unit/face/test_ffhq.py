import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fantasyid.face.ffhq import FFHQ_TEMPLATE, ffhq_crop

TEMPLATE = torch.tensor(FFHQ_TEMPLATE)


def placed(scale: float, angle_deg: float, offset: tuple[float, float]) -> torch.Tensor:
    """Five points (5,2) of a face that lies in the photo like this."""
    angle = torch.deg2rad(torch.tensor(angle_deg))
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return scale * TEMPLATE @ turn.T + torch.tensor(offset)


def dotted(points: torch.Tensor, height: int, width: int, radius: int) -> NDArray[np.uint8]:
    """A black photo with a square on each point, each brighter than the last."""
    photo = np.zeros((height, width, 3), np.uint8)
    for index, (x, y) in enumerate(points.round().int().tolist()):
        photo[y - radius : y + radius + 1, x - radius : x + radius + 1] = 50 * (index + 1)
    return photo


def at_template(crop: NDArray[np.uint8]) -> list[int]:
    return [int(crop[round(y), round(x), 0]) for x, y in FFHQ_TEMPLATE]


@pytest.mark.parametrize(("scale", "angle_deg", "offset"), [(0.5, 0, (100, 50)), (1.2, 20, (250, 30))])
def test_the_points_come_to_lie_on_the_template(scale: float, angle_deg: float, offset: tuple[float, float]) -> None:
    points = placed(scale, angle_deg, offset)
    crop = ffhq_crop(dotted(points, 900, 1000, 5), points)
    assert crop.shape == (512, 512, 3)
    assert at_template(crop) == pytest.approx([50, 100, 150, 200, 250], abs=2)


def test_a_large_photo_is_shrunk_first_and_its_points_with_it() -> None:
    points = placed(2.5, -10, (400, 700))
    crop = ffhq_crop(dotted(points, 2400, 2000, 15), points)
    assert at_template(crop) == pytest.approx([50, 100, 150, 200, 250], abs=3)


def test_a_nose_moved_aside_by_a_turn_of_the_head_moves_nothing_else() -> None:
    points = placed(1.0, 0, (200, 200))
    photo = dotted(points, 900, 900, 5)
    turned = points.clone()
    turned[2, 0] += 40
    assert np.array_equal(ffhq_crop(photo, turned), ffhq_crop(photo, points))


def test_outside_of_the_photo_all_is_grey() -> None:
    crop = ffhq_crop(np.zeros((300, 300, 3), np.uint8), placed(1.0, 0, (-100, 0)))
    assert crop[0, 0].tolist() == [132, 133, 135]
    assert crop[200, 200].tolist() == [0, 0, 0]
