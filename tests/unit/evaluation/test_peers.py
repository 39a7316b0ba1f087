"""The peers' numbers equal those of the peers' own code.

What their code gave (ConsisID at commit 60429e4, OpenS2V-Nexus at b452831) was written down here: their functions were
run on `film()`, with `Faces` in the place of their face models and with the frames handed over as their decoders do.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fantasyid.evaluation.identity import Judge
from fantasyid.evaluation.peers import consisid, opens2v
from fantasyid.face.types import DetectedFace

NO_FACE_BELOW = 85.0


class Faces:
    """A detector and a recogniser in one: faces are seen in bright pictures, and are known by the colours around."""

    same_person_distance = 1.0

    def detect(self, photo: NDArray[np.uint8]) -> tuple[DetectedFace, ...]:
        """Two faces, the larger first; none where the picture is dark."""
        if photo.mean() < NO_FACE_BELOW:
            return ()
        height, width = (float(side) for side in photo.shape[:2])
        boxes = (0.1 * width, 0.1 * height, 0.8 * width, 0.9 * height), (0.0, 0.0, 0.3 * width, 0.3 * height)
        return tuple(DetectedFace(box=box, score=1.0) for box in boxes)

    def embed(self, photo: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.float32]:
        """Means of colours over quarters of the box, around grey."""
        x0, y0, x1, y1 = (int(edge) for edge in face.box)
        inside = photo[y0:y1, x0:x1].astype(np.float32)
        rows, columns = inside.shape[0] // 2, inside.shape[1] // 2
        parts = inside[:rows, :columns], inside[:rows, columns:], inside[rows:, :columns], inside[rows:, columns:]
        return np.concatenate([part.mean(axis=(0, 1)) for part in parts]) - 85

    def distance(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
        """Not asked for."""
        raise NotImplementedError


def film(length: int = 40) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A photo, and frames that move, change colours, and are dark now and then."""
    rng = np.random.default_rng(6)
    field = rng.integers(0, 256, (30, 40, 3)).repeat(4, 0).repeat(4, 1)
    frames = []
    for index in range(length):
        light = 0.1 + 0.9 * abs(np.sin(0.4 * index))
        window = np.roll(field, (index % 7, 2 * index), (0, 1))[:48, :64]
        tint = 1 + 0.8 * np.sin(0.2 * index + np.array([0.0, 2.0, 4.0]))
        frames.append(np.clip(window * light * tint, 0, 255).astype(np.uint8))
    return field[20:68, 30:94].astype(np.uint8), np.stack(frames)


@dataclass(frozen=True)
class Seen:
    """What their code gave of a film."""

    length: int
    consisid_arc: float
    opens2v_arc: float
    motion: float


GOLDEN = (
    Seen(40, 0.2013131422655923, 0.2036516302531319, 1.2440683841705322),
    Seen(5, 0.17044114818175635, 0.16896038626631102, 1.4928126335144043),
    Seen(2, 0.0, 0.0, 1.432829737663269),
)


@pytest.fixture
def judge() -> Judge:
    faces: Any = Faces()
    return Judge(faces, faces, np.zeros(1, np.float32), "stand-in", "")


@pytest.mark.parametrize("seen", GOLDEN, ids=lambda seen: f"{seen.length} frames")
def test_the_numbers_are_those_of_their_own_code(judge: Judge, seen: Seen) -> None:
    photo, frames = film(seen.length)
    assert consisid(judge, photo, frames) == pytest.approx({"facesim_arc": seen.consisid_arc}, abs=1e-6)
    expected = {"facesim_arc": seen.opens2v_arc, "motion_fb": seen.motion}
    assert opens2v(judge, photo, frames) == pytest.approx(expected, abs=1e-6)


def test_without_a_face_in_the_photo_there_is_no_number(judge: Judge) -> None:
    photo, frames = film(2)
    assert consisid(judge, photo // 8, frames) == {"facesim_arc": None}
    assert opens2v(judge, photo // 8, frames[:1]) == {"facesim_arc": None, "motion_fb": None}


def test_there_and_back_is_no_motion(judge: Judge) -> None:
    """A defect of theirs: the flow's directions cancel each other."""
    photo, frames = film(2)
    there = np.stack([np.roll(frames[0], shift, 1) for shift in (0, 3)])
    one_way = opens2v(judge, photo, there)["motion_fb"]
    both_ways = opens2v(judge, photo, there[[0, 1, 0]])["motion_fb"]
    assert one_way is not None
    assert both_ways is not None
    assert both_ways < 0.1 * one_way
