"""What the face reader learns from: people in two photos, in crops with known answers."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from fantasyid.data.face_views import VIEWS_PER_PHOTO, FaceViews, crop_views, render_views
from fantasyid.data.repose.render import Scene
from fantasyid.data.repose.rig import HeadLayers, RigSet
from fantasyid.data.repose.views import ViewSampler
from fantasyid.face.align import NOSE_TIP
from fantasyid.face.pose import estimate_poses

PEOPLE = 12


@pytest.fixture(scope="module")
def scenes(layers: HeadLayers, rigs: RigSet) -> tuple[Scene, Scene]:
    return ViewSampler(layers, rigs, seed=0).draw_views(PEOPLE, 2)


@pytest.fixture(scope="module")
def drawn(layers: HeadLayers, rigs: RigSet) -> tuple[Scene, FaceViews]:
    """Three people in two views each, and what was asked for."""
    scene, _ = ViewSampler(layers, rigs, seed=5).draw_views(3, 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return scene, crop_views(layers, rigs, scene)


def test_same_seed_same_people_and_another_seed_others(layers: HeadLayers, rigs: RigSet) -> None:
    first, second, other = (ViewSampler(layers, rigs, seed).draw_views(3, 2) for seed in (0, 0, 1))
    for side in (0, 1):
        for field in fields(Scene):
            assert torch.equal(getattr(first[side], field.name), getattr(second[side], field.name)), field.name
    assert not torch.equal(first[0].angles_deg, other[0].angles_deg)


def test_both_photos_show_one_person(scenes: tuple[Scene, Scene], rigs: RigSet) -> None:
    one, other = scenes
    assert torch.equal(one.identity, other.identity)
    assert torch.equal(rigs.person[one.rig], rigs.person[other.rig])
    assert torch.equal(rigs.other[one.rig], other.rig)
    two = rigs.other[one.rig] != one.rig
    assert two.any()
    assert not two.all()
    # Mixed or not, a person has other light, background and views in the other photo.
    for name in ("angles_deg", "expression", "light", "background"):
        different = (getattr(one, name) != getattr(other, name)).flatten(1).any(1)
        assert different.float().mean() > 0.5, name


def test_people_have_mixed_textures_and_shapes_of_their_own(scenes: tuple[Scene, Scene], rigs: RigSet) -> None:
    one, _ = scenes
    # The drawn people differ in the first two coefficients only, so what else differs was added.
    change = one.identity[:, 2:].std(1)
    assert 0.6 < (change > 0).float().mean() < 1
    assert change.max() < 1.4
    assert change[change > 0].min() > 0.15
    untouched = (one.texture == rigs.image[one.rig].float() / 255).flatten(1).all(1)
    assert untouched.any()
    assert not untouched.all()


def test_views_are_within_bounds_and_differ(scenes: tuple[Scene, Scene]) -> None:
    for scene in scenes:
        assert scene.angles_deg.shape == (PEOPLE, 2, 3)
        assert (scene.angles_deg.abs() <= torch.tensor([22.0, 14.0, 10.0])).all()
        assert scene.expression.min() >= 0
        assert scene.expression.max() <= 1
        assert torch.equal(scene.zoom, torch.ones(PEOPLE, 2))
        assert ((scene.angles_deg[:, 0] - scene.angles_deg[:, 1]).abs().amax(1) > 0.1).all()
        active = scene.expression.amax((0, 1)) > 0.1
        assert active.sum() > 8


def test_known_values_are_those_of_the_scene(drawn: tuple[Scene, FaceViews]) -> None:
    scene, views = drawn
    assert len(views) == 3
    assert views.crops.shape == (3, 2, 3, 128, 128)
    assert views.crops.dtype == torch.uint8
    assert torch.equal(views.identity, scene.identity)
    torch.testing.assert_close(views.expression.float(), scene.expression, atol=1e-3, rtol=0)


def test_landmarks_lie_on_the_nose_in_the_crop(drawn: tuple[Scene, FaceViews]) -> None:
    """The nose is blue in these photos."""
    _, views = drawn
    for crop, landmarks in zip(views.crops.flatten(0, 1), views.landmarks.flatten(0, 1).float(), strict=True):
        red, green, blue = crop.float()
        amount = (blue - torch.maximum(red, green)).clamp(min=0)
        amount[:24], amount[-24:], amount[:, :24], amount[:, -24:] = 0, 0, 0, 0
        rows, columns = (amount > 0.6 * amount.max()).nonzero().float().mean(0)
        found = (torch.stack([columns, rows]) + 0.5) / 128
        assert (found - landmarks[NOSE_TIP, :2]).abs().max() < 0.04


def test_faces_fill_crops_as_after_the_detector(drawn: tuple[Scene, FaceViews]) -> None:
    points = drawn[1].landmarks.flatten(0, 1).float()[..., :2]
    low, high = points.amin(1), points.amax(1)
    assert ((low + high) / 2 - 0.5).abs().max() < 0.15
    size = torch.maximum(high[:, 1] - low[:, 1], 1.2 * (high[:, 0] - low[:, 0]))
    assert ((size > 0.45) & (size < 0.95)).all()
    assert size.std() > 0.01


def test_pose_is_that_of_the_head_in_the_crop(drawn: tuple[Scene, FaceViews], layers: HeadLayers) -> None:
    _, views = drawn
    known = views.pose_deg.flatten(0, 1).float()
    found = torch.tensor(
        [
            [pose.yaw_deg, pose.pitch_deg, pose.roll_deg]
            for pose in estimate_poses(layers.head, views.landmarks.flatten(0, 1).float())
        ]
    )
    error = (found - known).abs()
    assert error.median(0).values.max() < 2
    assert error[:, [0, 2]].max() < 5
    assert known[:, 2].std() > 2  # the crops are tilted, so the wrong sign of the tilt would show


def test_rendered_views_are_read_back(rigs_path: Path, rigs: RigSet, tmp_path: Path) -> None:
    render_views(rigs_path, tmp_path, people=2, device="cpu", seed=0)
    views = FaceViews.open(tmp_path, "cpu")
    assert len(views) == 2
    assert views.crops.shape == (2, 2 * VIEWS_PER_PHOTO, 3, 128, 128)
    assert views.landmarks.shape == (2, 2 * VIEWS_PER_PHOTO, 478, 3)
    assert views.identity.shape == (2, rigs.identity.shape[1])
    assert views.expression.shape == (2, 2 * VIEWS_PER_PHOTO, rigs.expression.shape[1])
    assert views.pose_deg.shape == (2, 2 * VIEWS_PER_PHOTO, 3)
    assert views.crops.float().std((2, 3, 4)).min() > 15
