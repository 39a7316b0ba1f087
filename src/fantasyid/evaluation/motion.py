"""How much and how a face moves: FM (paper section 4.1), and measures of what a prompt asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fantasyid.core.imaging import to_tensor
from fantasyid.face.landmarks import LandmarkReader
from fantasyid.face.types import DetectedFace

# MediaPipe-478 indices, the picture's left one first: outer and inner eye corners, temples, mouth corners.
_LEVEL_LEFT, _LEVEL_RIGHT = (33, 133, 127, 61), (263, 362, 356, 291)
_EYE_LEFT, _EYE_RIGHT = (33, 133), (362, 263)
_MOUTH_CORNERS = (61, 291)
_UPPER_LIP, _LOWER_LIP = 13, 14
_FOREHEAD, _CHIN = 10, 152

_FLOW_FACE_WIDTH = 64


@dataclass(frozen=True)
class ActionMeasures:
    """What a face does, each the mean over a video's frames."""

    yaw_deg: float
    smile: float
    mouth_opening: float


def face_motion(frames: Iterable[NDArray[np.uint8]], faces: Sequence[DetectedFace | None]) -> float | None:
    """FM: mean length of the dense optical flow over the face, in face widths per frame (paper section 4.1).

    The paper gives no unit; face widths make frame sizes comparable (frame rates must still agree). All frames are
    scaled so that the median face is 64 px wide, Farneback flow is taken between consecutive frames, and its length is
    averaged over the face's box in the earlier one. Pairs without a face in the earlier frame do not count.

    Args:
        frames: T of RGB (H,W,3), all of one size; two are held at a time.
        faces: The face in each of the T frames, or None.

    Returns:
        FM, or None if no pair counts.
    """
    widths = [face.box[2] - face.box[0] for face in faces if face is not None]
    if not widths:
        return None
    scale = _FLOW_FACE_WIDTH / float(np.median(widths))
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    grey = (
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), None, fx=scale, fy=scale, interpolation=mode)
        for frame in frames
    )
    lengths = []
    for (earlier, later), face in zip(pairwise(grey), faces[:-1], strict=True):
        if face is None:
            continue
        start = np.zeros((*earlier.shape, 2), np.float32)
        flow = cv2.calcOpticalFlowFarneback(
            earlier, later, start, pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
        )
        # A box may reach over the frame's edge; a negative index would count from the other side.
        x0, y0, x1, y1 = (max(0, round(scale * edge)) for edge in face.box)
        lengths.append(np.linalg.norm(flow[y0:y1, x0:x1], axis=-1).mean() / _FLOW_FACE_WIDTH)
    return float(np.mean(lengths)) if lengths else None


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


def measure_actions(
    frames: NDArray[np.uint8], faces: Sequence[DetectedFace | None], reader: LandmarkReader
) -> ActionMeasures | None:
    """Average the measures over the frames of a video that show a face.

    Args:
        frames: RGB (T,H,W,3).
        faces: The face in each of the T frames, or None.
        reader: Finds the landmarks.

    Returns:
        The means, or None if no frame shows a face.
    """
    found = [(to_tensor(frame), face.box) for frame, face in zip(frames, faces, strict=True) if face is not None]
    if not found:
        return None
    photos, boxes = zip(*found, strict=True)
    landmarks = reader.read(torch.cat(photos), torch.tensor(boxes)).numpy()
    return ActionMeasures(
        yaw_deg=float(yaw_deg(landmarks).mean()),
        smile=float(smile(landmarks).mean()),
        mouth_opening=float(mouth_opening(landmarks).mean()),
    )
