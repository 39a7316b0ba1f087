"""A face of 478 landmarks whose turn, smile and open mouth are set by hand."""

import numpy as np


def face_landmarks(
    yaw_deg: float = 0.0, roll_deg: float = 0.0, mouth_width: float = 50.0, corner_raise: float = 0.0, gap: float = 0.0
) -> np.ndarray:
    """Make one face, 478 points (478, 3) in pixels: interocular distance 64, upper lip at (0, 40, -10).

    Args:
        yaw_deg: Above 0 turns it to the right of the picture.
        roll_deg: Above 0 turns it counter-clockwise.
        mouth_width: Of the corners, pixels.
        corner_raise: How far the corners are above the upper lip, pixels.
        gap: Between the inner lips, pixels.
    """
    points = np.zeros((478, 3))
    points[33], points[133], points[362], points[263] = (-48, -20, 0), (-16, -20, 0), (16, -20, 0), (48, -20, 0)
    points[127], points[356] = (-70, -10, 60), (70, -10, 60)
    points[61], points[291] = (-mouth_width / 2, 40 - corner_raise, 0), (mouth_width / 2, 40 - corner_raise, 0)
    points[13], points[14] = (0, 40, 0), (0, 40 + gap, 0)
    points[10], points[152] = (0, -90, 0), (0, 90, 0)
    yaw, roll = np.radians(yaw_deg), np.radians(roll_deg)
    # Pixels have y down and z away from the viewer: both axes are flipped against head space, so Ry keeps its form
    # with the signs of its sines swapped, and so does Rz.
    turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return np.asarray(points @ (tilt @ turn).T + (200, 150, 0), dtype=np.float32)
