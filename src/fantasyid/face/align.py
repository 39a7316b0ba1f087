"""Square crops around a face: where they lie, and cutting pixels and points along them.

A crop is an affine map (B,2,3) from the crop's unit square to pixels of the photo: `pixel = affine @ (u, v, 1)`, u to
the right and v down, (0, 0) the outer corner of the crop's first pixel and (1, 1) that of its last. Pixel coordinates
are continuous: pixel i covers [i, i + 1) and its centre is i + 0.5. Everything here is batched, differentiable and runs
on the device of its inputs.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fantasyid.core.clip_format import MINI_CLIPS

RIGHT_EYE_CORNERS = (33, 133)
LEFT_EYE_CORNERS = (362, 263)
RIGHT_IRIS, LEFT_IRIS = 468, 473
NOSE_TIP = 1
MOUTH_CORNERS = (61, 291)

PORTRAIT_SIZE = MINI_CLIPS.size
FACE_SIZE = 96
READER_SIZE = 128

# Five points of the mean frontal face, made symmetric, scaled so that its 478 landmarks span 80 % of the crop's height.
FACE_TEMPLATE = ((0.3536, 0.3522), (0.6464, 0.3522), (0.5, 0.5462), (0.351, 0.6444), (0.649, 0.6444))

# A face is sized by the larger of its height and 1.2 times its width, so that turning or nodding moves a frame little.
FACE_ASPECT = 1.2
PORTRAIT_SCALE, PORTRAIT_RISE = 1.8, 0.06
# dlib's HOG boxes, measured on 256 portraits: centred on the landmarks' box (mean 0.005, standard deviation 0.05 of a
# side), which is 0.94 (0.07) times as wide and 1.11 (0.09) times as high. READER_SCALE frames the landmarks as
# DETECTOR_SCALE frames them on average.
DETECTOR_SCALE, READER_SCALE = 1.7, 1.5


def five_points(landmarks: Tensor) -> Tensor:
    """Pick eye centres, nose tip and mouth corners, the subject's right (the picture's left) first.

    Args:
        landmarks: (B,478,2) pixels, MediaPipe-478 topology.

    Returns:
        (B,5,2) pixels; an eye centre is the mean of its two lid corners.
    """
    right_eye = landmarks[:, RIGHT_EYE_CORNERS].mean(dim=1)
    left_eye = landmarks[:, LEFT_EYE_CORNERS].mean(dim=1)
    return torch.stack([right_eye, left_eye, landmarks[:, NOSE_TIP], *landmarks[:, MOUTH_CORNERS].unbind(dim=1)], dim=1)


def square_transform(centre: Tensor, side: Tensor, angle_rad: Tensor) -> Tensor:
    """Make the crop that is a square of the photo.

    Args:
        centre: (B,2) pixels.
        side: (B,) pixels, positive.
        angle_rad: (B,) direction of the crop's u axis, from the picture's x towards its y axis (clockwise as seen).

    Returns:
        Affine (B,2,3).
    """
    along_u = torch.stack([angle_rad.cos(), angle_rad.sin()], dim=-1) * side[:, None]
    along_v = torch.stack([-angle_rad.sin(), angle_rad.cos()], dim=-1) * side[:, None]
    return torch.stack([along_u, along_v, centre - (along_u + along_v) / 2], dim=-1)


def portrait_transform(landmarks: Tensor) -> Tensor:
    """Frame head and shoulders, with the eyes level: the reference image and every training clip are framed like this.

    The frame is centred on the box of the levelled landmarks, moved up by 0.06 of its side; the side is
    1.8 * max(box height, 1.2 * box width).

    Args:
        landmarks: (B,478,2) pixels.

    Returns:
        Affine (B,2,3).
    """
    centre, extent, angle_rad = _levelled_box(landmarks)
    side = PORTRAIT_SCALE * _face_size(extent)
    down = torch.stack([-angle_rad.sin(), angle_rad.cos()], dim=-1)
    return square_transform(centre - PORTRAIT_RISE * side[:, None] * down, side, angle_rad)


def widen_transform(affine: Tensor, size: tuple[int, int]) -> Tensor:
    """Let a square crop fill the shorter side of a rectangle; the longer side sees more of the photo on both ends.

    Args:
        affine: (B,2,3), a square.
        size: Height and width of the rectangle, in any unit.

    Returns:
        Affine (B,2,3) with the same centre.
    """
    factors = affine.new_tensor([size[1], size[0]]) / min(size)
    linear = affine[:, :, :2] * factors
    return torch.cat([linear, affine[:, :, 2:] + (affine[:, :, :2] - linear).sum(dim=2, keepdim=True) / 2], dim=2)


def face_transform(landmarks: Tensor) -> Tensor:
    """Align a face by the least-squares similarity of its five points to `FACE_TEMPLATE`, for the face vision model.

    Args:
        landmarks: (B,478,2) pixels.

    Returns:
        Affine (B,2,3).
    """
    return five_point_transform(five_points(landmarks), FACE_TEMPLATE)


def five_point_transform(points: Tensor, template: Sequence[tuple[float, float]]) -> Tensor:
    """Align a face by the least-squares similarity of its five points to a template.

    Args:
        points: (B,5,2) pixels, as `five_points` gives them; not all in one place.
        template: The same points in the crop's unit square.

    Returns:
        Affine (B,2,3).
    """
    target = points.new_tensor(template)
    flat = target - target.mean(dim=0)
    mean = points.mean(dim=1)
    centred = points - mean[:, None]
    # In the complex plane a similarity is one factor a + bi, so the fit has a closed form and cannot mirror the face.
    energy = flat.square().sum()
    a = (centred * flat).sum(dim=(1, 2)) / energy
    b = (centred[..., 1] * flat[:, 0] - centred[..., 0] * flat[:, 1]).sum(dim=1) / energy
    linear = torch.stack([torch.stack([a, -b], dim=-1), torch.stack([b, a], dim=-1)], dim=-2)
    return torch.cat([linear, (mean - linear @ target.mean(dim=0))[..., None]], dim=-1)


def detector_transform(boxes: Tensor, tilts_deg: Tensor | None = None) -> Tensor:
    """Crop around a detector's box, levelled as far as the detector knows how: what the face reader sees first.

    Args:
        boxes: (B,4) xyxy pixels.
        tilts_deg: (B,) of the faces, positive: counter-clockwise; None is upright.

    Returns:
        Affine (B,2,3) of the square on the box's centre, 1.7 times its longer side.
    """
    side = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) * DETECTOR_SCALE
    angle_rad = torch.zeros_like(side) if tilts_deg is None else -torch.deg2rad(tilts_deg)
    return square_transform((boxes[:, :2] + boxes[:, 2:]) / 2, side, angle_rad)


def reader_transform(landmarks: Tensor) -> Tensor:
    """Crop around roughly known landmarks, with the eyes level: what the face reader sees in its second pass.

    On average the face sits in it as in the crop of `detector_transform`; detector boxes vary around that by 8 % in
    scale, 3 % of the crop's side in position, and the tilt of the head.

    Args:
        landmarks: (B,478,2) pixels.

    Returns:
        Affine (B,2,3).
    """
    centre, extent, angle_rad = _levelled_box(landmarks)
    return square_transform(centre, READER_SCALE * _face_size(extent), angle_rad)


def jitter(affine: Tensor, scale: float, shift: float, roll_deg: float) -> Tensor:
    """Disturb crops at random, to train on more placements than a detector happens to give.

    Args:
        affine: (B,2,3).
        scale: Standard deviation of the side's logarithm.
        shift: Standard deviation of the position along each axis, in sides.
        roll_deg: Standard deviation of the tilt.

    Returns:
        Affine (B,2,3).
    """
    batch, device = len(affine), affine.device
    angle = torch.deg2rad(torch.randn(batch, device=device) * roll_deg)
    size = torch.exp(torch.randn(batch, device=device) * scale)
    cos, sin = angle.cos() * size, angle.sin() * size
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    middle = 0.5 + torch.randn(batch, 2, 1, device=device) * shift
    offset = middle - turn @ torch.full((batch, 2, 1), 0.5, device=device)
    linear = affine[:, :, :2]
    return torch.cat([linear @ turn, affine[:, :, 2:] + linear @ offset], -1)


def jittered_reader_transform(landmarks: Tensor) -> Tensor:
    """Crops as the face reader meets them: half as after a detector's box, half as after its own first pass.

    Args:
        landmarks: (B,478,2) pixels.

    Returns:
        Affine (B,2,3), `reader_transform` disturbed at random.
    """
    exact = reader_transform(landmarks)
    rough, fine = jitter(exact, 0.1, 0.04, 10.0), jitter(exact, 0.03, 0.012, 2.5)
    return torch.where(torch.rand(len(exact), 1, 1, device=exact.device) < 0.5, rough, fine)


def tilt_deg(affine: Tensor) -> Tensor:
    """How far crops (B,2,3) are turned clockwise against the photo, (B,) degrees; their content turns the other way."""
    return torch.rad2deg(torch.atan2(affine[:, 1, 0], affine[:, 0, 0]))


def warp(images: Tensor, affine: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Cut crops out of images, without aliasing where they shrink; outside the image its border is repeated.

    Each output pixel averages a grid of bilinear samples, after whole-pixel averaging if the image is far larger than
    the crop. A sample's result does not depend on the rest of its batch.

    Args:
        images: (B,3,H,W), any range.
        affine: (B,2,3).
        size: Side of the crop in pixels, or its height and width.

    Returns:
        (B,3,size,size), or (B,3,height,width), in the images' dtype.
    """
    dtype = torch.promote_types(images.dtype, torch.float32)
    height, width = size if isinstance(size, tuple) else (size, size)
    extents = affine[:, :, :2].detach().square().sum(dim=1).sqrt()
    plans = [_sampling(step) for step in (extents / extents.new_tensor([width, height])).amax(dim=1).tolist()]
    crops = images.new_empty((images.shape[0], images.shape[1], height, width))
    for plan in sorted(set(plans)):
        rows = torch.tensor([i for i, other in enumerate(plans) if other == plan], device=images.device)
        sampled = _sample(images[rows].to(dtype), affine[rows].to(dtype), height, width, *plan)
        crops = crops.index_copy(0, rows, sampled.to(images.dtype))
    return crops


def beyond_edge(affine: Tensor, size: int | tuple[int, int], photo_size: tuple[int, int]) -> Tensor:
    """Find where crops lie outside their photo.

    Args:
        affine: (B,2,3).
        size: As in `warp`.
        photo_size: Height and width of the photo in pixels.

    Returns:
        (B,1,height,width) bool, True where a pixel's centre is outside.
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    v, u = torch.meshgrid(
        (torch.arange(height, device=affine.device) + 0.5) / height,
        (torch.arange(width, device=affine.device) + 0.5) / width,
        indexing="ij",
    )
    unit = torch.stack([u, v], dim=-1).reshape(1, -1, 2).to(affine)
    x, y = restore_points(unit, affine, 1).unbind(dim=-1)
    outside = (x < 0) | (y < 0) | (x > photo_size[1]) | (y > photo_size[0])
    return outside.reshape(-1, 1, height, width)


def transform_points(points: Tensor, affine: Tensor, size: int) -> Tensor:
    """Move points from the photo into the crop.

    Args:
        points: (B,P,2) or (B,P,3) pixels of the photo; a third coordinate scales with the crop.
        affine: (B,2,3), a similarity where points have a third coordinate.
        size: Side of the crop in pixels.

    Returns:
        Points in pixels of the crop, same shape.
    """
    flat = (points[..., :2] - affine[:, None, :, 2]) @ torch.linalg.inv(affine[:, :, :2]).transpose(1, 2)
    depth = points[..., 2:] / _scale(affine)
    return torch.cat([flat, depth], dim=-1) * size


def restore_points(points: Tensor, affine: Tensor, size: int) -> Tensor:
    """Move points from the crop back into the photo; the inverse of `transform_points`.

    Args:
        points: (B,P,2) or (B,P,3) pixels of the crop (with size 1: unit coordinates).
        affine: (B,2,3), a similarity where points have a third coordinate.
        size: Side of the crop in pixels.

    Returns:
        Points in pixels of the photo, same shape.
    """
    unit = points / size
    flat = unit[..., :2] @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]
    return torch.cat([flat, unit[..., 2:] * _scale(affine)], dim=-1)


def crop_corners(affine: Tensor) -> Tensor:
    """Where the corners of crops (B,2,3) lie in the photo: (B,4,2) pixels, from the upper left one clockwise."""
    unit = affine.new_tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    return restore_points(unit.expand(len(affine), -1, -1), affine, 1)


def _scale(affine: Tensor) -> Tensor:
    determinant: Tensor = torch.linalg.det(affine[:, :, :2])
    return determinant.abs().sqrt()[:, None, None]


def _face_size(extent: Tensor) -> Tensor:
    return torch.maximum(extent[:, 1], FACE_ASPECT * extent[:, 0])


def _levelled_box(landmarks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centre (B,2) in the photo, width and height (B,2), and tilt (B,) of the landmarks' box along the eyes' line."""
    eyes = five_points(landmarks)[:, :2]
    along = eyes[:, 1] - eyes[:, 0]
    angle_rad = torch.atan2(along[:, 1], along[:, 0])
    cos, sin = angle_rad.cos(), angle_rad.sin()
    to_photo = torch.stack([torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)], dim=-2)
    levelled = landmarks @ to_photo
    low, high = levelled.amin(dim=1), levelled.amax(dim=1)
    centre = (to_photo @ ((low + high) / 2)[..., None])[..., 0]
    return centre, high - low, angle_rad


def _sampling(step: float) -> tuple[int, int]:
    """Whole pixels to average first, then samples per side of a crop pixel, where that spans `step` photo pixels."""
    shrink = max(1, math.floor(step / 2))
    return shrink, max(1, math.ceil(step / shrink))


def _sample(images: Tensor, affine: Tensor, height: int, width: int, shrink: int, samples: int) -> Tensor:
    padded = F.pad(images, (0, -images.shape[-1] % shrink, 0, -images.shape[-2] % shrink), mode="replicate")
    pooled = F.avg_pool2d(padded, shrink)
    rows, columns = (
        (torch.arange(count, device=affine.device, dtype=affine.dtype) + 0.5) / count
        for count in (height * samples, width * samples)
    )
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    unit = torch.stack([u, v], dim=-1).reshape(1, -1, 2).expand(affine.shape[0], -1, -1)
    extent = affine.new_tensor([pooled.shape[-1] * shrink, pooled.shape[-2] * shrink])
    grid = restore_points(unit, affine, 1) / extent * 2 - 1
    grid = grid.reshape(affine.shape[0], height * samples, width * samples, 2)
    fine = F.grid_sample(pooled, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(fine, samples)
