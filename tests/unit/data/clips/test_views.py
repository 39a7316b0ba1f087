"""Views are as far apart as can be, and turning the picture makes none."""

from io import BytesIO
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from fantasyid.data.clips.views import choose_views, spread_deg, view_picture, viewing_directions
from fantasyid.face.types import HeadPose
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.projection import project, rotation_matrix


def random_poses(count: int, seed: int) -> list[HeadPose]:
    draw = np.random.default_rng(seed)
    return [HeadPose(*draw.normal(0, [20, 12, 10]).tolist()) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_the_first_two_are_the_farthest_apart_and_the_others_nearly_so(seed: int) -> None:
    directions = viewing_directions(random_poses(12, seed))
    angles = torch.rad2deg(torch.acos((directions @ directions.T).clamp(-1, 1)))
    chosen = choose_views(directions, 4, 0.0)
    assert len(set(chosen)) == 4
    assert angles[chosen[0], chosen[1]] == angles.max()
    nearest = min(float(angles[pair]) for pair in combinations(chosen, 2))
    best = max(min(float(angles[pair]) for pair in combinations(four, 2)) for four in combinations(range(12), 4))
    assert nearest >= best / 2
    # Each is the farthest from those before it.
    for place in range(2, 4):
        least = angles[:, chosen[:place]].amin(dim=1)
        assert least[chosen[place]] == least.max()


def test_roll_is_no_other_view_and_equal_poses_are_one() -> None:
    rolled = viewing_directions([HeadPose(10, 5, roll) for roll in (-40.0, 0.0, 25.0)])
    assert spread_deg(rolled) < 1e-4
    assert choose_views(rolled, 6, 0.0) == (0,)
    poses = [HeadPose(0, 0, 0), HeadPose(0, 0, 30), HeadPose(12, 0, 0), HeadPose(12, 0, -9), HeadPose(6, 0, 0)]
    directions = viewing_directions(poses)
    assert choose_views(directions, 6, 2.0) == (0, 2, 4)
    assert choose_views(directions, 2, 2.0) == (0, 2)
    assert choose_views(directions, 6, 8.0) == (0, 2)
    assert choose_views(directions, 1, 2.0) == (0,)
    assert choose_views(directions[:1], 6, 2.0) == (0,)
    assert choose_views(directions[:0], 6, 2.0) == ()
    assert spread_deg(directions) == pytest.approx(12, abs=1e-4)


def test_landmarks_follow_the_picture_that_is_kept() -> None:
    head = HeadModel.load()
    rotation = rotation_matrix(*torch.tensor([[20.0], [0.0], [15.0]]))
    landmarks = head.landmarks(head.mean[None], rotation)
    points = project(landmarks, rotation, torch.tensor([30.0]), torch.tensor([[900.0, 500.0]]))[0]
    frame = np.zeros((1080, 1920, 3), np.uint8)
    places = points[::40, :2].round().int().tolist()
    for x, y in places:
        frame[y - 6 : y + 7, x - 6 : x + 7] = 255
    for height in (300, 4000):
        kept = view_picture(frame, points, height)
        picture = np.asarray(Image.open(BytesIO(kept.jpeg.numpy().tobytes())))
        assert picture.shape[0] <= height
        assert picture.shape[1] > 1.2 * picture.shape[0]
        for x, y in kept.landmarks[::40, :2].tolist():
            assert picture[int(y), int(x)].min() > 150
        scale = (kept.landmarks[:, 1].max() - kept.landmarks[:, 1].min()) / (points[:, 1].max() - points[:, 1].min())
        assert kept.landmarks[:, 2] == pytest.approx((points[:, 2] * scale).numpy(), rel=0.01)
