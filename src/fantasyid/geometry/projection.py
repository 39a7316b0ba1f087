"""Head rotation in degrees and weak-perspective projection.

Head space: x right of the picture, y up, z to the viewer. R = Rz(roll) @ Ry(yaw) @ Rx(pitch).
yaw > 0: face turned to the right of the picture; pitch > 0: chin down; roll > 0: counter-clockwise.
Picture: x right and y down in pixels; depth in pixels too, smaller = nearer.
"""

import torch
from torch import Tensor


def rotation_matrix(yaw_deg: Tensor, pitch_deg: Tensor, roll_deg: Tensor) -> Tensor:
    """Rotation of the head from three angles.

    Args:
        yaw_deg: (...) degrees.
        pitch_deg: (...) degrees, of the same shape.
        roll_deg: (...) degrees, of the same shape.

    Returns:
        (..., 3, 3) rotation matrices in the angles' dtype, `v_rotated = R @ v`.
    """
    yaw, pitch, roll = torch.deg2rad(torch.stack([yaw_deg, pitch_deg, roll_deg]))
    cy, sy, cp, sp, cr, sr = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin(), roll.cos(), roll.sin()
    rows = (
        torch.stack([cr * cy, cr * sy * sp - sr * cp, cr * sy * cp + sr * sp], -1),
        torch.stack([sr * cy, sr * sy * sp + cr * cp, sr * sy * cp - cr * sp], -1),
        torch.stack([-sy, cy * sp, cy * cp], -1),
    )
    return torch.stack(rows, -2)


def euler_degrees(rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Angles of a rotation, the inverse of `rotation_matrix` for |yaw| < 90 degrees.

    Args:
        rotation: (..., 3, 3) rotation matrices.

    Returns:
        yaw, pitch and roll in degrees, (...) each; yaw in -90..90, the others in -180..180.
    """
    yaw = torch.asin((-rotation[..., 2, 0]).clamp(-1, 1))
    pitch = torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2])
    roll = torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return torch.rad2deg(yaw), torch.rad2deg(pitch), torch.rad2deg(roll)


def project(vertices: Tensor, rotation: Tensor, scale: Tensor, translation: Tensor) -> Tensor:
    """Weak-perspective projection of head-space points, turned by the head's pose.

    px = scale * (R v)_x + t_x, py = -scale * (R v)_y + t_y, depth = -scale * (R v)_z.

    Args:
        vertices: (B, N, 3) cm.
        rotation: (B, 3, 3).
        scale: (B,) pixels per cm, > 0.
        translation: (B, 2) pixel position of the head-space origin.

    Returns:
        (B, N, 3) x, y and depth in pixels, as `raster.rasterise` takes them.
    """
    return project_camera(vertices @ rotation.transpose(-1, -2), scale, translation)


def project_camera(camera: Tensor, scale: Tensor, translation: Tensor) -> Tensor:
    """Weak-perspective projection of points that are already turned.

    Args:
        camera: (B, N, 3) cm, axes as in head space.
        scale: (B,) pixels per cm, > 0.
        translation: (B, 2) pixel position of the origin.

    Returns:
        (B, N, 3) as `project`.
    """
    flipped = camera * camera.new_tensor([1.0, -1.0, -1.0]) * scale[:, None, None]
    return flipped + torch.nn.functional.pad(translation, (0, 1))[:, None]
