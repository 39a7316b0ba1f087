"""FM, face motion: how much the face moves.

Definition: mean length of the dense optical flow over the face. All frames are scaled so that the video's median face
is 64 px wide, Farneback's flow is taken between consecutive frames, and its length is averaged over the face's box in
the earlier one. Pairs without a face in the earlier frame do not count; of many videos the mean over those with a pair.
Without the camera: from the flow the camera's is taken first, which is the shift, turn and zoom that at least half of
the corners follow (Shi and Tomasi's, tracked by Lucas and Kanade's flow) that are further than half a face from the
face. A pair where there are too few does not count, so that a video in front of a plain wall has no such number.
Unit: face widths per frame, or per second, for videos of several frame rates; the paper gives none, and face widths
make frame sizes comparable. Range: 0 and more, higher is better. Source: paper section 4.1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fantasyid.evaluation.metrics.interface import Definition, MeanOfVideos
from fantasyid.evaluation.seen import Reference, SeenVideo
from fantasyid.face.types import DetectedFace

_FACE_WIDTH = 64


_MOST_CORNERS, _FEWEST_CORNERS = 200, 12
_CAMERA_TOLERANCE = 0.5


def face_motion(
    frames: Iterable[NDArray[np.uint8]], faces: Sequence[DetectedFace | None], without_camera: bool = False
) -> float | None:
    """Measure FM.

    Args:
        frames: T of RGB (H,W,3), all of one size; two are held at a time.
        faces: The face in each of the T frames, or None.
        without_camera: Whether the camera's motion is taken out.

    Returns:
        Face widths per frame, or None if no pair counts.
    """
    widths = [face.box[2] - face.box[0] for face in faces if face is not None]
    if not widths:
        return None
    scale = _FACE_WIDTH / float(np.median(widths))
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
        if without_camera:
            camera = _camera_flow(earlier, later, (x0, y0, x1, y1))
            if camera is None:
                continue
            flow = flow - camera
        lengths.append(np.linalg.norm(flow[y0:y1, x0:x1], axis=-1).mean() / _FACE_WIDTH)
    return float(np.mean(lengths)) if lengths else None


def _camera_flow(
    earlier: NDArray[Any], later: NDArray[Any], face: tuple[int, int, int, int]
) -> NDArray[np.float32] | None:
    """The flow (H,W,2) of what lies around a face's box, continued over all; None where too little is seen there."""
    x0, y0, x1, y1 = face
    margin = (x1 - x0) // 2
    around = np.full(earlier.shape, 255, np.uint8)
    around[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin] = 0
    # OpenCV gives None where there are no corners, which its types do not say.
    corners: Any = cv2.goodFeaturesToTrack(earlier, _MOST_CORNERS, qualityLevel=0.01, minDistance=4, mask=around)
    if corners is None:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(earlier, later, corners, np.zeros_like(corners))
    before, after = corners[found == 1], moved[found == 1]
    if len(before) < _FEWEST_CORNERS:
        return None
    matrix, followed = cv2.estimateAffinePartial2D(before, after, ransacReprojThreshold=_CAMERA_TOLERANCE)
    if matrix is None or 2 * followed.sum() < len(before):
        return None
    height, width = earlier.shape
    places = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    return np.asarray(places @ matrix[:, :2].T + matrix[:, 2] - places, np.float32)


@dataclass(frozen=True)
class FaceMotion(MeanOfVideos):
    """See above."""

    definition: Definition
    per_second: bool = False
    without_camera: bool = False

    def measure(self, video: SeenVideo, reference: Reference) -> float | None:
        """The mean flow."""
        motion = face_motion(video.frames(), video.faces, self.without_camera)
        return motion * video.fps if motion is not None and self.per_second else motion


def _per_second(key: str, name: str) -> Definition:
    return Definition(key, name, "face widths per second", (0.0, np.inf), "higher")


METRICS = (
    FaceMotion(Definition("face_motion", "FM", "face widths per frame", (0.0, np.inf), "higher")),
    FaceMotion(_per_second("face_motion_per_second", "FM"), per_second=True),
    FaceMotion(
        _per_second("face_motion_without_camera", "FM without camera"),
        per_second=True,
        without_camera=True,
    ),
)
