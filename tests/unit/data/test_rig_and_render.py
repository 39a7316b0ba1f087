"""Re-posing photos whose pose, expression and landmarks are known exactly."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError, TopologyMismatchError
from fantasyid.data.repose.mixing import mix
from fantasyid.data.repose.render import Rendering, Scene, render
from fantasyid.data.repose.rig import CANVAS, CANVAS_MARGIN, HeadLayers, RigSet, blur
from fantasyid.face.align import NOSE_TIP, PORTRAIT_SIZE, warp
from fantasyid.geometry.head_model import FACE_OVAL, PART_NAMES
from tests.tiny import noise

SIZE, CHIN = PORTRAIT_SIZE, 152
FRONTAL, TURNED, DONOR = 0, 1, 2


def still(rigs: RigSet, *places: int, **changes: Tensor) -> Scene:
    """Photos as they are, one frame each, before a grey, grainy background of the rendering's own resolution."""
    rig = torch.tensor(places)
    batch = len(places)
    scene = Scene(
        rig=rig,
        texture=rigs.image[rig].float() / 255,
        identity=rigs.identity[rig],
        expression=rigs.expression[rig][:, None],
        angles_deg=torch.zeros(batch, 1, 3),
        zoom=torch.ones(batch, 1),
        shift=torch.zeros(batch, 1, 2),
        light=torch.zeros(batch, 3),
        gain=torch.ones(batch, 3),
        background=noise(batch, 1, 2 * SIZE, 2 * SIZE).sigmoid().expand(-1, 3, -1, -1),
    )
    return replace(scene, **changes)


def portraits(pictures: Tensor, size: int = SIZE) -> Tensor:
    """What an unmoved camera sees of (B, C, CANVAS, CANVAS)."""
    side = CANVAS / CANVAS_MARGIN
    corner = (CANVAS - side) / 2
    frame = torch.tensor([[side, 0, corner], [0, side, corner]]).expand(len(pictures), -1, -1)
    return warp(pictures, frame, size)


def portrait_points(rigs: RigSet, place: int) -> Tensor:
    """The photo's landmarks (478, 2) in the frame of `portraits`."""
    side = CANVAS / CANVAS_MARGIN
    return (rigs.landmarks[place, :, :2] + 0.5 - (CANVAS - side) / 2) / side * SIZE


def oval(points: Tensor, shrink: float) -> Tensor:
    """(SIZE, SIZE) True within the face oval of landmarks (478, 2), shrunk about its middle."""
    import cv2

    outline = points[list(FACE_OVAL)] - 0.5
    outline = outline.mean(0) + shrink * (outline - outline.mean(0))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [outline.round().int().numpy()], 1)
    return torch.from_numpy(mask).bool()


def nose_in_frame(frame: Tensor) -> Tensor:
    """Centre (x, y) of the blue nose tip in (3, SIZE, SIZE), continuous pixels."""
    amount = (frame[2] - torch.maximum(frame[0], frame[1]) - 0.3).clamp(min=0)
    line = torch.arange(SIZE) + 0.5
    return torch.stack([(amount.sum(0) * line).sum(), (amount.sum(1) * line).sum()]) / amount.sum()


def psnr(picture: Tensor, wanted: Tensor) -> float:
    return -10 * math.log10(float((picture - wanted).square().mean()))


@pytest.fixture(scope="module")
def unmoved(layers: HeadLayers, rigs: RigSet) -> Rendering:
    return render(layers, rigs, still(rigs, FRONTAL, TURNED, DONOR))


def test_the_file_is_read_back(rigs: RigSet, layers: HeadLayers) -> None:
    assert len(rigs) == 6
    assert rigs.image.shape == (6, 3, CANVAS, CANVAS)
    assert rigs.alpha.shape == (6, 1, CANVAS, CANVAS)
    assert rigs.person.tolist() == [0, 0, 1, 2, 3, 4]
    assert rigs.other.tolist() == [1, 0, 2, 3, 4, 5]
    assert rigs.sex.tolist() == [1, 1, 1, 2, 2, 2]
    assert rigs.decade.tolist() == [40, 40, 30, 0, 50, 60]
    assert rigs.residual.abs().max() < 1e-3
    corner = rigs.image[:, :, :20, :20].float().mean((2, 3)) / 255
    assert (corner - torch.tensor([0.2, 0.6, 0.3])).abs().max() < 0.02
    assert rigs.alpha[:, :, :20, :20].max() == 0
    assert rigs.alpha[:, :, 165:210, 180:204].min() == 255


def test_depth_grid_is_the_head_and_goes_on_beyond_it(rigs: RigSet) -> None:
    assert all(torch.isfinite(value).all() for value in (rigs.grid_depth, rigs.grid_normal, rigs.grid_weights))
    nose = (rigs.landmarks[:, NOSE_TIP, :2] / (CANVAS - 1) * 63).round().long()
    rows = torch.arange(len(rigs))
    depth = rigs.grid_depth[rows, nose[:, 1], nose[:, 0]]
    assert torch.allclose(depth, -rigs.landmarks[:, NOSE_TIP, 2] / rigs.scale, atol=0.5)
    assert (depth > rigs.grid_depth[:, 30, 20] + 2).all()
    assert (rigs.grid_normal[rows, 2, nose[:, 1], nose[:, 0]] > 0.8).all()
    assert (rigs.grid_triangle[:, 0] == -1).all()


@pytest.mark.parametrize("place", [FRONTAL, TURNED, DONOR])
def test_without_motion_the_photo_comes_back(unmoved: Rendering, rigs: RigSet, place: int) -> None:
    wanted = portraits(rigs.image[place : place + 1].float() / 255)[0]
    face = oval(portrait_points(rigs, place), 0.97)
    assert psnr(unmoved.frames[place, 0][:, face], wanted[:, face]) > 38
    person = portraits(rigs.alpha[place : place + 1].expand(-1, 3, -1, -1).float() / 255)[0, 0] > 0.999
    assert psnr(unmoved.frames[place, 0][:, person], wanted[:, person]) > 33


def test_without_motion_the_landmarks_come_back(unmoved: Rendering, rigs: RigSet) -> None:
    for place in (FRONTAL, TURNED, DONOR):
        assert (unmoved.landmarks[place, 0, :, :2] - portrait_points(rigs, place)).abs().max() < 1e-3
    depth = rigs.landmarks[:3, :, 2] / (CANVAS / CANVAS_MARGIN) * SIZE
    assert (unmoved.landmarks[:, 0, :, 2] - depth).abs().max() < 1e-3


def test_a_face_is_drawn_where_its_shape_is_and_not_where_the_fit_missed_it(layers: HeadLayers, rigs: RigSet) -> None:
    """A fit that lies 3 canvas pixels too far to the right: the picture follows it, and so do the landmarks."""
    aside = torch.tensor([3.0, 0.0])
    residual = rigs.residual - F.pad(aside, (0, 1))
    missed = replace(rigs, translation=rigs.translation + aside, residual=residual)
    scene = still(rigs, FRONTAL)
    right, wrong = render(layers, rigs, scene), render(layers, missed, scene)
    expected = 3.0 * SIZE / (CANVAS / CANVAS_MARGIN)
    nose = nose_in_frame(wrong.frames[0, 0]) - nose_in_frame(right.frames[0, 0])
    point = wrong.landmarks[0, 0, NOSE_TIP, :2] - right.landmarks[0, 0, NOSE_TIP, :2]
    for moved in (nose, point):
        assert float(moved[0]) == pytest.approx(expected, rel=0.15)
        assert moved[1].abs() < 0.1
    assert float(nose[0]) == pytest.approx(float(point[0]), abs=0.1)


def test_frames_and_landmarks_agree_on_the_nose(layers: HeadLayers, rigs: RigSet, unmoved: Rendering) -> None:
    angles = torch.tensor([[[12.0, 0.0, 0.0], [-12.0, 0.0, 0.0], [0.0, 8.0, 0.0], [0.0, 0.0, 10.0]]])
    scene = still(rigs, FRONTAL)
    held = {"zoom": scene.zoom.repeat(1, 4), "shift": scene.shift.repeat(1, 4, 1)}
    scene = replace(scene, angles_deg=angles, expression=scene.expression.repeat(1, 4, 1), **held)
    moved = render(layers, rigs, scene)
    start, landmarks = unmoved.landmarks[FRONTAL, 0, NOSE_TIP, :2], moved.landmarks[0, :, NOSE_TIP, :2]
    seen = torch.stack([nose_in_frame(frame) for frame in moved.frames[0]])
    first = nose_in_frame(unmoved.frames[FRONTAL, 0])
    assert landmarks[0, 0] - start[0] > 4  # yaw > 0: to the right of the picture
    assert landmarks[1, 0] - start[0] < -4
    assert landmarks[2, 1] - start[1] > 2  # pitch > 0: chin, and nose, down
    assert landmarks[3, 0] - start[0] < -0.5  # roll > 0: counter-clockwise about the neck
    assert ((seen - first) - (landmarks - start)).abs().max() < 1.0
    eyes = unmoved.landmarks[FRONTAL, 0, [33, 263], 1], moved.landmarks[0, 3, [33, 263], 1]
    assert eyes[1][1] - eyes[1][0] < (eyes[0][1] - eyes[0][0]) - 3  # the eye on the right of the picture rises


def test_the_body_stays_when_the_head_turns(layers: HeadLayers, rigs: RigSet) -> None:
    """A photo that is person everywhere, with a pattern to see movement by; the shoulders lie in its last rows."""
    pattern = F.interpolate(noise(1, 3, 24, 24).sigmoid(), (CANVAS, CANVAS), mode="bilinear")
    covered = replace(rigs, alpha=torch.full_like(rigs.alpha, 255))
    scene = still(rigs, FRONTAL, texture=pattern, zoom=torch.tensor([[0.86]]))
    before = render(layers, covered, scene).frames[0, 0]
    for angles in ([12.0, 0.0, 0.0], [0.0, 0.0, 12.0]):
        after = render(layers, covered, replace(scene, angles_deg=torch.tensor([[angles]]))).frames[0, 0]
        change = (after - before).abs().mean((0, 2))
        assert change[SIZE * 31 // 32 :].max() < 0.35 * change[SIZE * 5 // 16 : SIZE * 5 // 8].mean()


def test_opening_the_jaw_lowers_the_chin_and_shows_a_dark_mouth(
    layers: HeadLayers, rigs: RigSet, unmoved: Rendering
) -> None:
    scene = still(rigs, FRONTAL)
    expression = scene.expression.clone()
    expression[..., layers.head.expression_names.index("jawOpen")] = 0.8
    opened = render(layers, rigs, replace(scene, expression=expression))
    before, after = unmoved.landmarks[FRONTAL, 0], opened.landmarks[0, 0]
    assert after[CHIN, 1] - before[CHIN, 1] > 3
    assert (after[[10, 33, 263], 1] - before[[10, 33, 263], 1]).abs().max() < 0.5
    x, y = after[[13, 14], :2].mean(0).int().tolist()
    assert opened.frames[0, 0][:, y, x].mean() < unmoved.frames[FRONTAL, 0][:, y, x].mean() - 0.15


def test_where_nobody_is_the_background_shows_unchanged(rigs: RigSet, unmoved: Rendering) -> None:
    background = F.avg_pool2d(still(rigs, FRONTAL, TURNED, DONOR).background, 2)
    nobody = F.max_pool2d(portraits(rigs.alpha[:3].expand(-1, 3, -1, -1).float())[:, :1], 9, 1, 4)[:, 0] == 0
    assert nobody.float().mean() > 0.3
    for place in range(3):
        difference = unmoved.frames[place, 0] - background[place]
        assert difference[:, nobody[place]].abs().max() < 1e-6


def test_landmarks_and_frames_follow_zoom_and_shift(layers: HeadLayers, rigs: RigSet, unmoved: Rendering) -> None:
    zoom, shift = torch.tensor([[0.9], [1.1]]), torch.tensor([[[0.03, -0.02]], [[-0.04, 0.05]]])
    moved = render(layers, rigs, still(rigs, FRONTAL, DONOR, zoom=zoom, shift=shift))
    for k, place in enumerate((FRONTAL, DONOR)):
        before = unmoved.landmarks[place, 0]
        wanted = SIZE / 2 + zoom[k] * (before[:, :2] - SIZE / 2) + shift[k] * SIZE
        assert (moved.landmarks[k, 0, :, :2] - wanted).abs().max() < 1e-3
        assert torch.allclose(moved.landmarks[k, 0, :, 2], zoom[k] * before[:, 2], atol=1e-3)
        nose = SIZE / 2 + zoom[k] * (nose_in_frame(unmoved.frames[place, 0]) - SIZE / 2) + shift[k, 0] * SIZE
        assert (nose_in_frame(moved.frames[k, 0]) - nose).abs().max() < 0.3


def test_light_comes_from_the_side_it_is_said_to(layers: HeadLayers, rigs: RigSet) -> None:
    lit = render(layers, rigs, still(rigs, DONOR, DONOR, light=torch.tensor([[-0.4, 0, 0], [0.4, 0, 0]])))
    from_left, from_right = lit.frames[:, 0].mean(1)
    assert (from_left - from_right)[75:120, 63:81].mean() > 0.1
    assert (from_left - from_right)[75:120, 114:132].mean() < -0.1


def test_gain_colours_the_person_but_not_the_background(layers: HeadLayers, rigs: RigSet, unmoved: Rendering) -> None:
    coloured = render(layers, rigs, still(rigs, FRONTAL, gain=torch.tensor([[0.5, 1.0, 1.0]]))).frames[0, 0]
    plain = unmoved.frames[FRONTAL, 0]
    face = oval(portrait_points(rigs, FRONTAL), 0.8)
    assert (coloured[0, face] - 0.5 * plain[0, face]).abs().max() < 1e-4
    assert torch.equal(coloured[:, :8, :8], plain[:, :8, :8])


def test_a_batch_equals_its_clips_one_by_one(layers: HeadLayers, rigs: RigSet, unmoved: Rendering) -> None:
    scene = still(rigs, FRONTAL, TURNED, DONOR)
    single = render(layers, rigs, replace(still(rigs, TURNED), background=scene.background[1:2]))
    assert (single.frames[0] - unmoved.frames[TURNED]).abs().mean() < 1e-5
    assert (single.landmarks[0] - unmoved.landmarks[TURNED]).abs().max() < 1e-3


def test_a_share_of_zero_leaves_the_photo_and_shape(layers: HeadLayers, rigs: RigSet) -> None:
    base, donor = torch.tensor([FRONTAL, TURNED]), torch.tensor([DONOR, DONOR])
    texture, identity = mix(layers, rigs, base, donor, torch.zeros(2))
    assert torch.equal(texture, rigs.image[base].float() / 255)
    assert torch.equal(identity, rigs.identity[base])


def test_a_share_of_one_brings_the_donors_face_and_leaves_the_hair(layers: HeadLayers, rigs: RigSet) -> None:
    base, donor = torch.tensor([FRONTAL]), torch.tensor([DONOR])
    texture, identity = mix(layers, rigs, base, donor, torch.ones(1))
    assert torch.equal(identity, rigs.identity[donor])
    mixed, own, theirs = (portraits(picture)[0] for picture in (texture, *(rigs.image[:, None].float() / 255)[[0, 2]]))
    skin = oval(portrait_points(rigs, FRONTAL), 0.7) & (mixed[0] > mixed[2] + 0.1)
    unlike_donor, unlike_base = ((mixed - picture)[:, skin].abs().mean() for picture in (theirs, own))
    assert unlike_donor < 0.05
    assert unlike_base > 2 * unlike_donor
    assert (mixed[:, skin].mean(1) - own[:, skin].mean(1)).abs().max() < 0.05
    outside = ~F.max_pool2d(oval(portrait_points(rigs, FRONTAL), 1.0)[None].float(), 5, 1, 2)[0].bool()
    assert (mixed - own)[:, outside].abs().max() < 0.02


def test_mixing_is_between_its_ends(layers: HeadLayers, rigs: RigSet) -> None:
    base, donor = torch.tensor([FRONTAL] * 3), torch.tensor([DONOR] * 3)
    texture, identity = mix(layers, rigs, base, donor, torch.tensor([0.0, 0.5, 1.0]))
    assert (texture[1] - texture[[0, 2]].mean(0)).abs().max() < 1e-5
    assert torch.allclose(identity[1], identity[[0, 2]].mean(0))


def test_softness_is_one_in_the_face_and_on_eyes_and_zero_outside(layers: HeadLayers) -> None:
    head, soft = layers.head, layers.softness
    part = np.array(PART_NAMES)[head.parts.numpy()]
    assert soft.min() == 0
    assert soft.max() == 1
    assert (soft[torch.from_numpy(np.isin(part, ("scalp", "ears", "neck")))] == 0).all()
    assert (soft[torch.from_numpy(np.isin(part, ("eye_left", "eye_right", "teeth_upper", "tongue")))] == 1).all()
    assert soft[head.landmarks478[NOSE_TIP]] == 1
    assert len(soft.unique()) == 6  # five rings from the border to the inside


@pytest.mark.parametrize("sigma", [0.8, 3.0])
def test_blur_is_a_gaussian_of_its_width(sigma: float) -> None:
    spot = torch.zeros(1, 2, 41, 41)
    spot[..., 20, 20] = 1
    blurred = blur(spot, sigma)
    assert torch.allclose(blurred.sum((2, 3)), torch.ones(1, 2), atol=1e-5)
    line = torch.arange(41) - 20.0
    width = (blurred[0, 0].sum(0) * line.square()).sum().sqrt()
    assert abs(float(width) - sigma) < 0.12 * sigma
    assert torch.allclose(blur(torch.ones(1, 1, 9, 9), sigma), torch.ones(1, 1, 9, 9))


def test_a_file_of_someone_else_is_not_read_as_pickle(tmp_path: Path, layers: HeadLayers) -> None:
    np.savez(tmp_path / "rigs.npz", image=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InvalidRequestError, match="Object arrays cannot be loaded"):
        RigSet.load(tmp_path / "rigs.npz", layers)


def test_rigs_of_another_head_model_are_refused(rigs_path: Path, layers: HeadLayers) -> None:
    """Their coefficients would mean other heads, and nothing else would tell."""
    other = replace(layers, head=replace(layers.head, mean=layers.head.mean + 0.01))
    with pytest.raises(TopologyMismatchError, match="another head model"):
        RigSet.load(rigs_path, other)
