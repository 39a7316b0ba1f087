"""Numbers of ConsisID and of OpenS2V-Nexus as their own code computes them, defects included; see docs/evaluation.md.

They are for comparing with published tables, and no part of ours. From the detected faces on they equal the code of
ConsisID (`eval/get_facesim_fid.py` at commit 60429e4) and of OpenS2V-Nexus (`eval/get_facesim.py` and
`eval/get_motionscore.py` at commit b452831); the faces themselves are found by this package's detector.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from fantasyid.evaluation.identity import Judge

Frames = Sequence[NDArray[np.uint8]]
_GREY = (128, 128, 128)
_PADDING = 0.25
_FLOW_WIDTH = 16


def consisid(judge: Judge, photo: NDArray[np.uint8], frames: Frames) -> dict[str, float | None]:
    """FaceSim-Arc of ConsisID: of 16 frames.

    Args:
        judge: With ArcFace.
        photo: RGB (H,W,3) of the person.
        frames: All frames of the video, RGB (H,W,3).

    Returns:
        The number by name; None without a face in the photo, where their code gives up.
    """
    return {"facesim_arc": _face_similarity(judge, photo, _evenly(frames, 16))}


def opens2v(judge: Judge, photo: NDArray[np.uint8], frames: Frames) -> dict[str, float | None]:
    """FaceSim-Arc of OpenS2V-Nexus, of 32 frames, and its motion score by Farneback's flow; arguments as of `consisid`.

    Returns:
        The numbers by name; None where their code gives up or gives no number: without a face in the photo, and of the
        motion of a single frame.
    """
    return {"facesim_arc": _face_similarity(judge, photo, _evenly(frames, 32)), "motion_fb": _motion(frames)}


PROTOCOLS: Mapping[str, Callable[[Judge, NDArray[np.uint8], Frames], dict[str, float | None]]] = {
    "consisid-compat": consisid,
    "opens2v-compat": opens2v,
}


def _evenly(frames: Frames, count: int) -> Frames:
    """Their choice of frames, in which those of a short video are there several times."""
    return [frames[index] for index in np.linspace(0, len(frames) - 1, count, dtype=int)]


def _face_similarity(judge: Judge, photo: NDArray[np.uint8], frames: Frames) -> float | None:
    """Mean cosine, negative ones as 0, over the frames with a face; 0 where there is none."""
    reference = _embedding(judge, photo)
    if reference is None:
        return None
    found = [embedding for frame in frames if (embedding := _embedding(judge, frame)) is not None]
    cosines = [max(0.0, _cosine(reference, embedding)) for embedding in found]
    return float(np.mean(cosines)) if cosines else 0.0


def _embedding(judge: Judge, picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Of the largest face, which is looked for a second time in a grey frame."""
    height, width = (int(side * _PADDING) for side in picture.shape[:2])
    framed = cv2.copyMakeBorder(picture, height, height, width, width, cv2.BORDER_CONSTANT, value=_GREY)
    for shown in (picture, np.asarray(framed, np.uint8)):
        faces = judge.detector.detect(shown)
        if faces:
            return judge.recognizer.embed(shown, faces[0])
    return None


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _motion(frames: Frames) -> float | None:
    """The size of the mean of the flow's two signed parts, over frames and picture."""
    if len(frames) < 2:
        return None
    # RGB is taken for BGR.
    grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]
    total = None
    for earlier, later in pairwise(grey):
        start = np.zeros((*earlier.shape, 2), np.float32)
        flow = cv2.calcOpticalFlowFarneback(
            earlier, later, start, pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
        )
        height = int(flow.shape[0] * (_FLOW_WIDTH / flow.shape[1]))
        small = cv2.resize(flow, (_FLOW_WIDTH, height), interpolation=cv2.INTER_AREA)
        total = small if total is None else total + small
    assert total is not None, "there are two frames"
    return abs(float(np.mean(total / (len(frames) - 1))))
