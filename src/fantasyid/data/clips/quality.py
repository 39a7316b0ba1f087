"""Brightness, motion and likeness of pictures."""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fantasyid.core.optional import require

_FLOW_WIDTH = 160


def small_grey(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame (H,W,3) as `picture_motion` takes it: grey, 160 pixels wide."""
    height, width = frame.shape[:2]
    size = (_FLOW_WIDTH, max(16, round(height * _FLOW_WIDTH / width)))
    return np.asarray(cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA), np.uint8)


def picture_motion(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """How far the middle one of the picture's points moved (Farneback's flow), in heights of the picture.

    Args:
        before: Grey (H,W).
        after: The next frame.
    """
    start = np.zeros((*before.shape, 2), np.float32)
    flow = cv2.calcOpticalFlowFarneback(before, after, start, 0.5, 3, 15, 3, 5, 1.2, 0)
    return float(np.median(np.linalg.norm(flow, axis=-1)) / before.shape[0])


def face_motion(before: Tensor, after: Tensor) -> float:
    """How far landmarks (478,3) moved on average, in heights of the face."""
    height = before[:, 1].max() - before[:, 1].min()
    return float((after - before)[:, :2].norm(dim=1).mean() / height)


def picture_hash(frame: NDArray[np.uint8]) -> str:
    """Perceptual hash of a frame (H,W,3): 64 bits that scaling and compression hardly change, in hexadecimal.

    Raises:
        MissingBackendError: ImageHash is not installed.
    """
    return str(require("imagehash", "data", "find duplicates").phash(Image.fromarray(frame)))
