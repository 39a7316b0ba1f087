"""Pose of a head from its landmarks alone: quick enough for every frame of a video."""

import torch
from torch import Tensor

from fantasyid.face.types import HeadPose
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.projection import euler_degrees


def pose_of_rotation(rotation: Tensor) -> HeadPose:
    """Angles of a rotation of the head.

    Args:
        rotation: (3,3) in head space.

    Returns:
        The pose.
    """
    yaw_deg, pitch_deg, roll_deg = (float(angle) for angle in euler_degrees(rotation))
    return HeadPose(yaw_deg, pitch_deg, roll_deg)


def estimate_poses(head: HeadModel, landmarks: Tensor) -> tuple[HeadPose, ...]:
    """Turn the average head onto landmarks; points that expressions move count little.

    Args:
        head: The head model.
        landmarks: (B,478,3) pixels, z scaled like x, smaller = nearer.

    Returns:
        A pose for each.
    """
    known = head.landmarks478 >= 0
    vertices = head.landmarks478[known]
    moved_cm = head.expression_basis[:, vertices].norm(dim=-1).amax(dim=0)
    weights = 1 / (head.landmark_spread[known].square() + moved_cm.square())
    weights = (weights / weights.sum())[:, None]
    model = head.mean[vertices]
    model = model - (weights * model).sum(dim=0)
    # Pictures have y down and z away from the viewer; turned half around the x axis they are in head space.
    seen = landmarks[:, known] * landmarks.new_tensor([1, -1, -1])
    seen = seen - (weights * seen).sum(dim=1, keepdim=True)
    # Kabsch's rotation: the one nearest to the covariance of the two, never a reflection.
    left, _, right = torch.linalg.svd(seen.transpose(1, 2) @ (weights * model))
    proper = torch.ones_like(left[:, 0])
    proper[:, 2] = torch.linalg.det(left @ right)
    return tuple(pose_of_rotation(rotation) for rotation in (left * proper[:, None]) @ right)
