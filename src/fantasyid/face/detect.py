"""Face detection with dlib's HOG detector, whose model is compiled into the package dlib-bin."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from fantasyid.face.types import DetectedFace

# The detector's window is 80 pixels: pictures are doubled to find faces from 40 pixels on. Its time grows with the area
# searched (0.07 s per megapixel on one core), so no more than this is searched: from 3 megapixels on photos are doubled
# no more, and above 12 they are shrunk.
MAX_ENLARGEMENT = 2.0
MAX_SEARCHED_PIXELS = 12_000_000

# The true face scored less in 1 of 258 portraits, and nothing else reached 0; in other photos cloth scored up to 0.08.
SURE_SCORE = 0.2


class DlibFaceDetector:
    """Finds upright faces that look roughly towards the camera and are at least 40 pixels wide.

    A doubtful face, scored below 0.2, counts only where there is no sure one.
    """

    def __init__(self) -> None:
        import dlib  # here, because training machines import this package without dlib

        self._detector = dlib.get_frontal_face_detector()

    def detect(self, photo: NDArray[np.uint8]) -> tuple[DetectedFace, ...]:
        """Find all faces.

        Args:
            photo: RGB (H,W,3).

        Returns:
            The faces, largest first.
        """
        height, width = photo.shape[:2]
        factor = min(MAX_ENLARGEMENT, math.sqrt(MAX_SEARCHED_PIXELS / (height * width)))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        resized = cv2.resize(photo, size, interpolation=cv2.INTER_LINEAR if factor > 1 else cv2.INTER_AREA)
        rectangles, scores, _ = self._detector.run(resized, 0, 0.0)
        scale_x, scale_y = width / size[0], height / size[1]
        # dlib's rectangles include their last pixel.
        faces = [
            DetectedFace(
                box=(
                    rectangle.left() * scale_x,
                    rectangle.top() * scale_y,
                    (rectangle.right() + 1) * scale_x,
                    (rectangle.bottom() + 1) * scale_y,
                ),
                score=score,
            )
            for rectangle, score in zip(rectangles, scores, strict=True)
        ]
        sure = [face for face in faces if face.score >= SURE_SCORE]
        return tuple(sorted(sure or faces, key=lambda face: face.area, reverse=True))
