"""RS, IFS and FM are means, computed here by hand from embeddings and motions that are known."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import astronaut

from fantasyid.evaluation.identity import FaceTrack, Judge
from fantasyid.evaluation.metrics.face_motion import face_motion
from fantasyid.face.types import DetectedFace
from tests.unit.evaluation.seen_videos import score

CENTRE = np.array([2.0, 1.0, 0.0], np.float32)
FACE = DetectedFace(box=(32.0, 32.0, 96.0, 96.0), score=1.0)
PICTURE = cv2.resize(astronaut()[0:240, 110:350], (160, 160), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class PlainRecognizer:
    """Compares embeddings by their Euclidean distance."""

    same_person_distance: float = 1.5

    def embed(self, photo: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.float32]:
        """Not asked for: the embeddings are given."""
        raise NotImplementedError

    def distance(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        """Length of the difference."""
        return float(np.linalg.norm(a - b))


@dataclass(frozen=True)
class NoDetector:
    """Not asked for: the faces are given."""

    def detect(self, photo: NDArray[np.uint8]) -> tuple[DetectedFace, ...]:
        """Find nothing."""
        raise NotImplementedError


def at(degrees: float, length: float = 1.0) -> NDArray[np.float32]:
    """An embedding that lies at an angle around the centre."""
    angle = np.radians(degrees)
    return CENTRE + length * np.array([np.cos(angle), np.sin(angle), 0.0], np.float32)


def track(*embeddings: NDArray[np.float32] | None) -> FaceTrack:
    return FaceTrack(tuple(None if embedding is None else FACE for embedding in embeddings), embeddings)


def test_similarities_are_means_of_centred_cosines() -> None:
    """Frames 0, 60 and 120 degrees away from the photo, one without a face, and one of 60 degrees, twice as far."""
    judge = Judge(NoDetector(), PlainRecognizer(), CENTRE, "plain", "")
    scores = score(judge, at(0), track(at(0), at(60), at(120), None, at(60, 2.0)))
    assert scores["reference_similarity"] == pytest.approx((1 + 0.5 - 0.5 + 0.5) / 4, abs=1e-6)
    assert scores["inter_frame_similarity"] == pytest.approx(0.5, abs=1e-6)
    assert scores["distances"] == pytest.approx((0.0, 1.0, 3**0.5, None, 3**0.5), abs=1e-5)
    assert scores["median_distance"] == pytest.approx((1.0 + 3**0.5) / 2, abs=1e-5)
    assert scores["verification_rate"] == pytest.approx(2 / 5)
    assert scores["detection_rate"] == pytest.approx(4 / 5)


def test_similarity_between_frames_is_the_mean_of_neighbours() -> None:
    judge = Judge(NoDetector(), PlainRecognizer(), CENTRE, "plain", "")
    scores = score(judge, at(0), track(at(0), at(60), at(150), at(150)))
    assert scores["inter_frame_similarity"] == pytest.approx((0.5 + 0 + 1) / 3, abs=1e-6)
    assert scores["reference_similarity"] == pytest.approx((1 + 0.5 - 2 * 0.75**0.5) / 4, abs=1e-6)


def moved(*columns: int) -> NDArray[np.uint8]:
    """Frames whose left edge lies at these columns of one picture."""
    return np.stack([PICTURE[16:144, start : start + 128] for start in columns])


def test_motion_is_the_mean_over_pairs_of_frames() -> None:
    """Two pixels, none and four on a face 64 pixels wide."""
    assert face_motion(moved(8, 10, 10, 14), (FACE,) * 4) == pytest.approx(2 / 64, rel=0.1)


def test_motion_is_the_mean_over_the_face() -> None:
    """The right half of the face moves by four pixels, the left one not at all."""
    frames = moved(8, 8)
    frames[1, :, 64:] = PICTURE[16:144, 76:140]
    assert face_motion(frames, (FACE,) * 2) == pytest.approx(2 / 64, rel=0.25)
