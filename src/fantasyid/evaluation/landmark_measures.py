"""What a face does, measured on its landmarks."""

import numpy as np
from numpy.typing import NDArray

# MediaPipe-478 indices, the picture's left one first: outer and inner eye corners, temples, mouth corners.
_LEVEL_LEFT, _LEVEL_RIGHT = (33, 133, 127, 61), (263, 362, 356, 291)
_EYE_LEFT, _EYE_RIGHT = (33, 133), (362, 263)
_MOUTH_CORNERS = (61, 291)
_UPPER_LIP, _LOWER_LIP = 13, 14
_FOREHEAD, _CHIN = 10, 152


def yaw_deg(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far the head is turned, from the depth of the face's right side against its left.

    Args:
        landmarks: MediaPipe-478 points (T,478,3), pixels, y down, z smaller = nearer.

    Returns:
        Degrees (T,), above 0 when turned to the right of the picture.
    """
    across = (landmarks[:, _LEVEL_RIGHT] - landmarks[:, _LEVEL_LEFT]).sum(axis=1)
    return np.asarray(np.degrees(np.arctan2(across[:, 2], np.hypot(across[:, 0], across[:, 1]))))


def smile(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Width of the mouth plus height of its corners over the upper lip, in interocular distances.

    Distances are in space, so turning the head does not narrow the mouth.

    Args:
        landmarks: MediaPipe-478 points (T,478,3), pixels.

    Returns:
        (T,); 0.85 and less for a serious face, 1 and more for a smile (10 % and 50 % of 1,392 portraits).
    """
    left, right = landmarks[:, _MOUTH_CORNERS[0]], landmarks[:, _MOUTH_CORNERS[1]]
    up = landmarks[:, _FOREHEAD] - landmarks[:, _CHIN]
    up = up / np.linalg.norm(up, axis=-1, keepdims=True)
    raised = (((left + right) / 2 - landmarks[:, _UPPER_LIP]) * up).sum(axis=-1)
    return np.asarray((np.linalg.norm(right - left, axis=-1) + raised) / _interocular(landmarks))


def mouth_opening(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gap between the inner lips, in interocular distances.

    Args:
        landmarks: MediaPipe-478 points (T,478,3), pixels.

    Returns:
        (T,), 0 when closed.
    """
    gap = np.linalg.norm(landmarks[:, _UPPER_LIP] - landmarks[:, _LOWER_LIP], axis=-1)
    return np.asarray(gap / _interocular(landmarks))


def _interocular(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    between = landmarks[:, _EYE_RIGHT].mean(axis=1) - landmarks[:, _EYE_LEFT].mean(axis=1)
    return np.asarray(np.linalg.norm(between, axis=-1))
