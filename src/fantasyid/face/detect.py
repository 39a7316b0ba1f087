"""Face detection with dlib's HOG detector, whose model is compiled into the package dlib-bin."""

import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fantasyid.face.types import DetectedFace

# The detector's window is 80 pixels: pictures are doubled to find faces from 40 pixels on. Its time grows with the area
# searched (0.07 s per megapixel on one core), so no more than this is searched: from 3 megapixels on photos are doubled
# no more, and above 12 they are shrunk.
MAX_ENLARGEMENT = 2.0
MAX_SEARCHED_PIXELS = 12_000_000
# Later tries look for large faces only, so that a photo without a face costs little more than one with.
MAX_PIXELS_OF_RETRIES = 1_000_000
# Turned, a photo lies in a larger picture, and a strip in one that is larger by orders: 30000x8 in 28000x10000.
MAX_PIXELS_TURNED = 4_000_000

# The true face scored less in 3 of 1,392 portraits and nothing else reached 0; in other photos cloth scored up to 0.08.
SURE_SCORE = 0.2
# On 200 pictures without people the later tries scored up to 0.40.
SURE_SCORE_OF_RETRIES = 0.5
# The detector itself covers a tilt of 35 degrees, so the first two reach 55 and the others all the way round.
RETRIED_TILTS_DEG = ((20.0, -20.0), (90.0, -90.0, 180.0))


class DlibFaceDetector:
    """Finds faces that look roughly towards the camera and are at least 40 pixels wide.

    The search goes on only while nothing is found: (1) the photo as it is, where a doubtful face, scored below 0.2,
    counts only if no sure one is found at all; (2) the photo with its local contrast raised, for faces in hard side
    light or in the dark; (3) that photo turned by 20 degrees to either side, the better of the two; (4) turned by a
    quarter to either side or upside down, the best of the three. (2) to (4) search at most a megapixel and take only
    faces that score 0.5.

    Args:
        retries: Whether it searches on as (2) to (4) say; in frames of videos the first search is enough.
    """

    def __init__(self, retries: bool = True) -> None:
        import dlib  # here, because training machines import this package without dlib

        self._detector = dlib.get_frontal_face_detector()
        self._retries = retries

    def detect(self, photo: NDArray[np.uint8]) -> tuple[DetectedFace, ...]:
        """Find all faces.

        Args:
            photo: RGB (H,W,3).

        Returns:
            The faces, largest first. Boxes are upright, also around a face found in the turned photo; its tilt is
            known to 35 degrees.
        """
        faces = self._search(photo, MAX_SEARCHED_PIXELS, 0.0)
        sure = [face for face in faces if face.score >= SURE_SCORE]
        return tuple(
            sorted(sure or (self._retries and self._retry(photo)) or faces, key=lambda face: face.area, reverse=True)
        )

    def _retry(self, photo: NDArray[np.uint8]) -> list[DetectedFace]:
        small, scale = _resize(photo, MAX_PIXELS_OF_RETRIES, 1.0)
        clear = _raise_contrast(small)
        faces = self._search(clear, MAX_PIXELS_OF_RETRIES, SURE_SCORE_OF_RETRIES)
        for tilts_deg in RETRIED_TILTS_DEG:
            if not faces:
                turned = [self._search_turned(clear, tilt_deg) for tilt_deg in tilts_deg]
                faces = max(turned, key=lambda found: max((face.score for face in found), default=0.0))
        return [_scale(face, scale) for face in faces]

    def _search(self, photo: NDArray[np.uint8], max_pixels: int, min_score: float) -> list[DetectedFace]:
        resized, scale = _resize(photo, max_pixels, MAX_ENLARGEMENT)
        rectangles, scores, _ = self._detector.run(resized, 0, min_score)
        # dlib's rectangles include their last pixel.
        boxes = [(edges.left(), edges.top(), edges.right() + 1, edges.bottom() + 1) for edges in rectangles]
        return [_scale(DetectedFace(box, score), scale) for box, score in zip(boxes, scores, strict=True)]

    def _search_turned(self, photo: NDArray[np.uint8], tilt_deg: float) -> list[DetectedFace]:
        """Search the photo turned clockwise; boxes keep their size and are put where the face is in it."""
        height, width = photo.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), -tilt_deg, 1.0)
        cos, sin = abs(turn[0])[:2]
        full = (width * cos + height * sin, width * sin + height * cos)
        scale = min(1.0, math.sqrt(MAX_PIXELS_TURNED / (full[0] * full[1])))
        size = (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))
        turn[:, 2] += (full[0] - width) / 2, (full[1] - height) / 2
        turn = turn * scale
        turned = np.asarray(cv2.warpAffine(photo, turn, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)
        back = cv2.invertAffineTransform(turn)
        faces = []
        for face in self._search(turned, MAX_PIXELS_OF_RETRIES, SURE_SCORE_OF_RETRIES):
            x0, y0, x1, y1 = face.box
            x, y = (back @ ((x0 + x1) / 2, (y0 + y1) / 2, 1.0)).tolist()
            half_width, half_height = (x1 - x0) / 2 / scale, (y1 - y0) / 2 / scale
            box = (x - half_width, y - half_height, x + half_width, y + half_height)
            faces.append(DetectedFace(box, face.score, tilt_deg=tilt_deg))
        return faces


def _resize(
    photo: NDArray[np.uint8], max_pixels: int, max_enlargement: float
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Enlarge or shrink to at most so many pixels; also how many pixels of the photo one of the result spans."""
    height, width = photo.shape[:2]
    factor = min(max_enlargement, math.sqrt(max_pixels / (height * width)))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    resized = cv2.resize(photo, size, interpolation=cv2.INTER_LINEAR if factor > 1 else cv2.INTER_AREA)
    return np.asarray(resized, np.uint8), (width / size[0], height / size[1])


def _scale(face: DetectedFace, scale: tuple[float, float]) -> DetectedFace:
    x0, y0, x1, y1 = face.box
    return replace(face, box=(x0 * scale[0], y0 * scale[1], x1 * scale[0], y1 * scale[1]))


def _raise_contrast(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Equalise lightness within eighths of the picture, with limited gain (CLAHE)."""
    lab = cv2.cvtColor(photo, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(3.0, (8, 8)).apply(lab[..., 0])
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)
