import math

import pytest
import torch
from torch import Tensor

from fantasyid.face import align
from tests.unit.face.faces import plausible_landmarks

TRANSFORMS = {"portrait": align.portrait_transform, "face": align.face_transform, "reader": align.reader_transform}


def picture_with_dots(points: Tensor, height: int, width: int, radius: float = 8.0) -> Tensor:
    """A channel per point, each a soft dot whose centre of mass is the point; pixel i has its centre at i + 0.5."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([torch.exp(-((x - px) ** 2 + (y - py) ** 2) / radius**2) for px, py in points.tolist()])[None]


def centres_of_mass(images: Tensor) -> Tensor:
    size = images.shape[-1]
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    mass = images[0].sum(dim=(1, 2))
    return torch.stack([(images[0] * x).sum(dim=(1, 2)) / mass, (images[0] * y).sum(dim=(1, 2)) / mass], dim=-1)


@pytest.mark.parametrize("size", [32, 96, 301])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_points_and_pictures_move_together(name: str, size: int) -> None:
    landmarks = plausible_landmarks(height=170.0, centre=(230.0, 205.0), roll_deg=20.0)
    affine = TRANSFORMS[name](landmarks)
    dots = align.five_points(landmarks)[0, :3]
    crop = align.warp(picture_with_dots(dots, 400, 450), affine, size)
    expected = align.transform_points(dots[None], affine, size)[0]
    assert (centres_of_mass(crop) - expected).abs().max() < 0.05


def test_restore_points_inverts_transform_points_with_depth() -> None:
    landmarks = plausible_landmarks(roll_deg=-35.0)
    points = torch.cat([landmarks, torch.linspace(-40, 60, 478)[None, :, None]], dim=-1)
    affine = align.face_transform(landmarks)
    crop = align.transform_points(points, affine, 96)
    torch.testing.assert_close(align.restore_points(crop, affine, 96), points, atol=1e-3, rtol=1e-5)
    # Depth shrinks as distances in the picture do.
    distance = lambda p: (p[0, 33, :2] - p[0, 263, :2]).norm()  # noqa: E731
    torch.testing.assert_close(crop[..., 2] / points[..., 2], (distance(crop) / distance(points)).expand(1, 478))


@pytest.mark.parametrize("roll_deg", [-50.0, 0.0, 30.0])
def test_portrait_levels_the_eyes_and_keeps_the_face_in_place(roll_deg: float) -> None:
    landmarks = plausible_landmarks(roll_deg=roll_deg)
    levelled = align.transform_points(landmarks, align.portrait_transform(landmarks), 1)
    eyes = align.five_points(levelled)[0, :2]
    assert eyes[0, 1] == pytest.approx(float(eyes[1, 1]), abs=1e-4)
    assert eyes[0, 0] < eyes[1, 0]
    low, high = levelled.amin(dim=1)[0], levelled.amax(dim=1)[0]
    # The contract: side 1.8 * max(height, 1.2 * width), centre 0.06 of the side above the box's.
    size = torch.maximum(high[1] - low[1], 1.2 * (high[0] - low[0]))
    assert size == pytest.approx(1 / 1.8, abs=1e-4)
    assert ((low + high) / 2).tolist() == pytest.approx([0.5, 0.56], abs=1e-4)


@pytest.mark.parametrize("roll_deg", [-170.0, -20.0, 0.0, 75.0])
def test_face_transform_brings_the_five_points_to_the_template(roll_deg: float) -> None:
    landmarks = plausible_landmarks(height=91.0, centre=(55.0, 300.0), roll_deg=roll_deg)
    aligned = align.transform_points(landmarks, align.face_transform(landmarks), 1)
    torch.testing.assert_close(align.five_points(aligned)[0], torch.tensor(align.FACE_TEMPLATE), atol=1e-4, rtol=0)


def test_face_transform_is_the_least_squares_similarity() -> None:
    generator = torch.Generator().manual_seed(0)
    landmarks = plausible_landmarks() + 6 * torch.randn(1, 478, 2, generator=generator)
    points, template = align.five_points(landmarks)[0], torch.tensor(align.FACE_TEMPLATE)
    # Reference: linear least squares for x = a u - b v + c, y = b u + a v + d.
    u, v = template.unbind(dim=-1)
    one, nil = torch.ones(5), torch.zeros(5)
    system = torch.cat([torch.stack([u, -v, one, nil], dim=-1), torch.stack([v, u, nil, one], dim=-1)])
    a, b, c, d = torch.linalg.lstsq(system, torch.cat([points[:, 0], points[:, 1]])).solution.tolist()
    expected = torch.tensor([[a, -b, c], [b, a, d]])
    torch.testing.assert_close(align.face_transform(landmarks)[0], expected, atol=1e-2, rtol=1e-4)


def test_detector_transform_is_a_square_of_1_7_sides_on_the_box() -> None:
    affine = align.detector_transform(torch.tensor([[100.0, 50.0, 200.0, 140.0]]))
    corners = align.restore_points(torch.tensor([[[0.0, 0.0], [1.0, 1.0]]]), affine, 1)[0]
    assert corners.flatten().tolist() == pytest.approx([65.0, 10.0, 235.0, 180.0], abs=1e-3)


def test_crop_of_whole_pixels_is_exact() -> None:
    image = torch.randn(1, 3, 40, 50, generator=torch.Generator().manual_seed(1))
    affine = align.square_transform(torch.tensor([[26.0, 21.0]]), torch.tensor([16.0]), torch.zeros(1))
    torch.testing.assert_close(align.warp(image, affine, 16), image[:, :, 13:29, 18:34], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shrink", [2, 3, 8, 9])
def test_shrinking_averages_areas(shrink: int) -> None:
    size = 12
    image = torch.randn(1, 3, size * shrink, size * shrink, generator=torch.Generator().manual_seed(2))
    side = float(size * shrink)
    affine = align.square_transform(torch.tensor([[side / 2, side / 2]]), torch.tensor([side]), torch.zeros(1))
    crop = align.warp(image, affine, size)
    exact = torch.nn.functional.avg_pool2d(image, shrink)
    if shrink <= 3:
        torch.testing.assert_close(crop, exact, atol=1e-5, rtol=0)
    else:
        assert crop.std() < 1.2 * exact.std()


@pytest.mark.parametrize("shrink", [4, 7.5, 21])
def test_shrinking_does_not_alias(shrink: float) -> None:
    stripes = torch.ones(1, 3, 600, 600)
    stripes[..., ::2] = -1.0
    affine = align.square_transform(torch.tensor([[300.0, 300.0]]), torch.tensor([24 * shrink]), torch.tensor([0.3]))
    assert align.warp(stripes, affine, 24).abs().max() < 0.15


def test_shrinking_reaches_the_last_pixel() -> None:
    image = torch.zeros(1, 3, 100, 100)
    image[..., -1] = 1
    affine = align.square_transform(torch.tensor([[64.0, 64.0]]), torch.tensor([72.0]), torch.zeros(1))
    # Each of the 12 columns spans 6 pixels, and the last one's last pixel is the photo's last.
    assert align.warp(image, affine, 12)[0, 0, 4, -1] == pytest.approx(1 / 6, abs=0.1)


def test_outside_the_photo_the_border_is_repeated() -> None:
    image = torch.full((1, 3, 20, 20), 0.25)
    affine = align.square_transform(torch.tensor([[0.0, 0.0]]), torch.tensor([60.0]), torch.zeros(1))
    torch.testing.assert_close(align.warp(image, affine, 30), torch.full((1, 3, 30, 30), 0.25))


def test_a_crop_does_not_depend_on_its_batch() -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(3, 3, 300, 300, generator=generator)
    landmarks = torch.cat([plausible_landmarks(height, (150.0, 150.0)) for height in (40.0, 200.0, 90.0)])
    affine = align.portrait_transform(landmarks)
    together = align.warp(images, affine, 32)
    for i in range(3):
        assert torch.equal(together[i], align.warp(images[i : i + 1], affine[i : i + 1], 32)[0])


def test_warp_keeps_dtype_and_inputs_and_passes_gradients() -> None:
    image = torch.rand(1, 3, 64, 64).requires_grad_()
    affine = align.square_transform(
        torch.tensor([[32.0, 32.0]]), torch.tensor([50.0]), torch.tensor([0.2])
    ).requires_grad_()
    before = image.detach().clone()
    crop = align.warp(image, affine, 16)
    crop.square().sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    assert affine.grad is not None
    assert affine.grad.abs().sum() > 0
    assert torch.equal(image.detach(), before)
    half = align.warp(image.detach().bfloat16(), affine.detach(), 16)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), crop.detach(), atol=1e-2, rtol=1e-2)


def test_reader_and_detector_crops_agree_on_an_average_face() -> None:
    landmarks = plausible_landmarks(height=200.0, centre=(240.0, 220.0))
    side = 200.0 / 1.11  # the measured mean height of a face is 1.11 sides of its detector box
    box = torch.tensor([[240 - side / 2, 220 - side / 2, 240 + side / 2, 220 + side / 2]])
    reader, detector = align.reader_transform(landmarks), align.detector_transform(box)
    assert float(reader[0, 0, 0] / detector[0, 0, 0]) == pytest.approx(1.0, abs=0.08)
    assert math.hypot(*(reader[0, :, 2] - detector[0, :, 2]).tolist()) < 0.1 * side


def test_jitter_of_zero_is_none_and_more_is_a_similarity_of_its_strength() -> None:
    affine = torch.tensor([[[50.0, -10.0, 30.0], [10.0, 50.0, 20.0]]]).expand(400, -1, -1)
    assert torch.allclose(align.jitter(affine, 0.0, 0.0, 0.0), affine, atol=1e-4)
    torch.manual_seed(0)
    moved = align.jitter(affine, 0.1, 0.04, 10.0)
    linear = moved[:, :, :2]
    scale = linear.det().sqrt()
    assert torch.allclose(linear.mT @ linear, (scale**2)[:, None, None] * torch.eye(2), rtol=1e-3, atol=0.5)
    assert float((scale / scale.new_tensor(2600).sqrt()).log().std()) == pytest.approx(0.1, rel=0.15)
    turn = torch.rad2deg(
        torch.atan2(linear[:, 1, 0], linear[:, 0, 0]) - torch.atan2(torch.tensor(10.0), torch.tensor(50.0))
    )
    assert float(turn.std()) == pytest.approx(10, rel=0.15)
    middle = moved @ torch.tensor([0.5, 0.5, 1.0])
    side = 2600**0.5
    assert (middle.std(0) / side - 0.04).abs().max() < 0.006
    assert (middle.mean(0) - affine[0] @ torch.tensor([0.5, 0.5, 1.0])).abs().max() < 0.5


def test_tilt_is_the_clockwise_turn_of_the_crop() -> None:
    centre, side = torch.full((3, 2), 60.0), torch.full((3,), 40.0)
    angles = torch.tensor([0.0, 25.0, -40.0])
    affine = align.square_transform(centre, side, torch.deg2rad(angles))
    torch.testing.assert_close(align.tilt_deg(affine), angles)
    # A level line of the photo rises to the right, counter-clockwise, in a crop turned clockwise.
    line = torch.tensor([[[50.0, 60.0], [70.0, 60.0]]]).expand(3, -1, -1)
    left, right = align.transform_points(line, affine, 1).unbind(1)
    rise = torch.rad2deg(torch.atan2(left[:, 1] - right[:, 1], right[:, 0] - left[:, 0]))
    torch.testing.assert_close(rise, angles, atol=1e-4, rtol=0)


def test_beyond_the_edge_is_where_a_repeated_border_would_show() -> None:
    """Of a picture that holds its own coordinates, levelled and tilted, square and wide."""
    height, width = 60, 80
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    frames = [
        align.square_transform(torch.tensor([[20.0, 15.0]]), torch.tensor([60.0]), torch.tensor([angle]))
        for angle in (0.0, 0.4)
    ]
    frames.append(align.widen_transform(frames[0], (24, 48)))
    for frame, size in zip(frames, (24, (24, 24), (24, 48)), strict=True):
        rows, columns = size if isinstance(size, tuple) else (size, size)
        outside = align.beyond_edge(frame, size, (height, width))
        assert outside.shape == (1, 1, rows, columns)
        v, u = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
        place = torch.stack([u, v, torch.ones_like(u)], -1) @ frame[0].T
        inside = (place >= 0).all(-1) & (place[..., 0] <= width) & (place[..., 1] <= height)
        assert torch.equal(~outside[0, 0], inside)
        assert 0.1 < outside.float().mean() < 0.9
        seen = align.warp(torch.stack([x, y, x])[None], frame, size)[0, :2].permute(1, 2, 0)
        well = inside & (place > 3).all(-1) & (place[..., 0] < width - 3) & (place[..., 1] < height - 3)
        assert (seen - place)[well].abs().max() < 0.1


def test_nothing_of_a_frame_within_the_photo_is_beyond_its_edge() -> None:
    frame = align.square_transform(torch.tensor([[40.0, 40.0]] * 2), torch.tensor([80.0, 20.0]), torch.zeros(2))
    assert not align.beyond_edge(frame, 32, (80, 80)).any()
    lower, right = (align.beyond_edge(frame[:1], 32, size)[0, 0] for size in ((40, 80), (80, 40)))
    assert torch.equal(lower, torch.arange(32)[:, None].expand(32, 32) >= 16)
    assert torch.equal(right, lower.T)
