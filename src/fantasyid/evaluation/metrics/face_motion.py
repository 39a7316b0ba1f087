"""FM, face motion: how much the face moves.

Definition: mean length of the dense optical flow over the face. All frames are scaled so that the video's median face
is 64 px wide, Farneback's flow is taken between consecutive frames, and its length is averaged over the face's box in
the earlier one. Pairs without a face in the earlier frame do not count; of many videos the mean over those with a pair.
Unit: face widths per frame; the paper gives none, and face widths make frame sizes comparable. Range: 0 and more,
higher is better. Source: paper section 4.1.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from fantasyid.evaluation.metrics.interface import Definition, MeanOfVideos
from fantasyid.evaluation.seen import Reference, SeenVideo
from fantasyid.face.types import DetectedFace

_FACE_WIDTH = 64


def face_motion(frames: Iterable[NDArray[np.uint8]], faces: Sequence[DetectedFace | None]) -> float | None:
    """Measure FM.

    Args:
        frames: T of RGB (H,W,3), all of one size; two are held at a time.
        faces: The face in each of the T frames, or None.

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
        lengths.append(np.linalg.norm(flow[y0:y1, x0:x1], axis=-1).mean() / _FACE_WIDTH)
    return float(np.mean(lengths)) if lengths else None


class FaceMotion(MeanOfVideos):
    """See above."""

    definition = Definition("face_motion", "FM", "face widths per frame", (0.0, np.inf), "higher")

    def measure(self, video: SeenVideo, reference: Reference) -> float | None:
        """The mean flow."""
        return face_motion(video.frames(), video.faces)


METRICS = (FaceMotion(),)
