"""Motion measures on faces whose motion is known."""

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from fantasyid.evaluation.identity import FaceTrack, Judge
from fantasyid.evaluation.landmark_measures import mouth_opening, smile, yaw_deg
from fantasyid.evaluation.metrics.actions import METRICS
from fantasyid.evaluation.metrics.face_motion import face_motion
from fantasyid.evaluation.seen import Instruments, SeenVideo
from fantasyid.face.types import DetectedFace
from fantasyid.models.face_reader import FaceReaderModel
from tests.tiny import tiny_face_vision
from tests.unit.evaluation.landmark_faces import face_landmarks
from tests.unit.evaluation.seen_videos import person

PICTURE = cv2.resize(astronaut()[0:240, 110:350], (160, 160), interpolation=cv2.INTER_AREA)
FACE = DetectedFace(box=(32.0, 32.0, 96.0, 96.0), score=1.0)


def slide(step: int, size: int = 128) -> np.ndarray:
    """Three frames in which everything moves left by `step` pixels a frame."""
    return np.stack([PICTURE[16 : 16 + size, start : start + size] for start in (8, 8 + step, 8 + 2 * step)])


def test_still_video_has_no_motion() -> None:
    assert face_motion(slide(0), (FACE,) * 3) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_known_shift(step: int) -> None:
    """The face is 64 px wide: a shift of n pixels is n / 64 face widths."""
    assert face_motion(slide(step), (FACE,) * 3) == pytest.approx(step / 64, rel=0.1)


def test_motion_does_not_depend_on_the_frame_size() -> None:
    larger = np.stack([cv2.resize(frame, (384, 384), interpolation=cv2.INTER_CUBIC) for frame in slide(2)])
    face = DetectedFace(box=(96.0, 96.0, 288.0, 288.0), score=1.0)
    assert face_motion(larger, (face,) * 3) == pytest.approx(2 / 64, rel=0.1)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_the_cameras_motion_can_be_taken_out(step: int) -> None:
    """All moves together, and then the face alone."""
    face = DetectedFace(box=(52.0, 52.0, 76.0, 76.0), score=1.0)
    wide = [PICTURE[16:144, start : start + 128] for start in (8, 8 + step, 8 + 2 * step)]
    unmoved = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    unmoved = cv2.resize(unmoved, (128, 128), interpolation=cv2.INTER_CUBIC)
    alone = []
    for frame in wide:
        alone.append(unmoved.copy())
        alone[-1][40:88, 40:88] = frame[40:88, 40:88]
    assert face_motion(wide, (face,) * 3) == pytest.approx(step / 24, rel=0.1)
    assert face_motion(wide, (face,) * 3, without_camera=True) == pytest.approx(0, abs=0.1 * step / 24)
    moved = face_motion(alone, (face,) * 3)
    assert moved is not None
    assert moved > 0.5 * step / 24
    assert face_motion(alone, (face,) * 3, without_camera=True) == pytest.approx(moved, rel=0.1)


def test_a_camera_that_turns_and_zooms_is_taken_out() -> None:
    picture = cv2.resize(PICTURE, (128, 128))
    turn = cv2.getRotationMatrix2D((40, 90), 2, 1.03)
    frames = [picture, cv2.warpAffine(picture, turn, (128, 128), borderMode=cv2.BORDER_REFLECT)]
    face = DetectedFace(box=(52.0, 30.0, 84.0, 62.0), score=1.0)
    with_camera, without = (face_motion(frames, (face,) * 2, without_camera=without) for without in (False, True))
    assert with_camera is not None
    assert without is not None
    assert without < with_camera / 5


def test_where_nothing_is_seen_around_the_face_the_camera_is_not_known() -> None:
    face = DetectedFace(box=(16.0, 16.0, 112.0, 112.0), score=1.0)
    assert face_motion(slide(2), (face,) * 3, without_camera=True) is None


def test_motion_equals_a_computation_of_its_own() -> None:
    frames = slide(3)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    total = []
    for first, second in ((grey[0], grey[1]), (grey[1], grey[2])):
        flow = cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0).astype(np.float64)
        lengths = [float(np.hypot(*flow[y, x])) for y in range(32, 96) for x in range(32, 96)]
        total.append(sum(lengths) / len(lengths) / 64)
    assert face_motion(frames, (FACE,) * 3) == pytest.approx(sum(total) / 2, abs=1e-5)


def test_only_the_face_counts() -> None:
    frames = np.repeat(slide(0)[:1], 3, axis=0)
    frames[:, 100:] = np.random.default_rng(0).integers(0, 256, (3, 28, 128, 3), np.uint8)
    still, noisy = (
        face_motion(frames, (DetectedFace(box=(32.0, top, 96.0, top + 64.0), score=1.0),) * 3) for top in (8.0, 64.0)
    )
    assert still is not None
    assert noisy is not None
    assert still < noisy / 5


def test_pairs_without_a_face() -> None:
    frames = np.concatenate([slide(2)[:2], slide(0)[:1]])
    assert face_motion(frames, (FACE, None, FACE)) == pytest.approx(2 / 64, rel=0.1)
    assert face_motion(frames, (None, None, FACE)) is None
    assert face_motion(frames, (None, None, None)) is None


@pytest.mark.parametrize("yaw", [-35.0, -10.0, 0.0, 20.0])
@pytest.mark.parametrize("roll", [0.0, 15.0])
def test_yaw(yaw: float, roll: float) -> None:
    """The nose of a face turned to the right of the picture lies to the right of its eyes; the measure agrees."""
    face = face_landmarks(yaw_deg=yaw, roll_deg=roll)
    assert yaw_deg(face[None]) == pytest.approx([yaw], abs=0.01)


def test_yaw_sign_is_that_of_the_picture() -> None:
    """Said without angles: turned to the right of the picture, the right cheek is farther than the left one."""
    face = face_landmarks(yaw_deg=20)
    assert face[356, 2] > face[127, 2]
    assert yaw_deg(face[None])[0] > 0


@pytest.mark.parametrize("yaw", [0.0, 25.0])
@pytest.mark.parametrize("roll", [0.0, -20.0])
def test_smile_and_mouth(yaw: float, roll: float) -> None:
    """Interocular distance 64: width 50 and raise 6 make (50 + 6) / 64, whatever the pose."""
    face = face_landmarks(yaw_deg=yaw, roll_deg=roll, mouth_width=50, corner_raise=6, gap=16)[None]
    assert smile(face) == pytest.approx([56 / 64], abs=1e-4)
    assert mouth_opening(face) == pytest.approx([16 / 64], abs=1e-4)
    assert smile(3 * face) == pytest.approx([56 / 64], abs=1e-4)


def test_directions() -> None:
    neutral = face_landmarks()[None]
    assert smile(face_landmarks(mouth_width=60)[None]) > smile(neutral)
    assert smile(face_landmarks(corner_raise=5)[None]) > smile(neutral)
    assert mouth_opening(neutral) == pytest.approx([0])


def test_measures_from_frames() -> None:
    """A network that always answers one and the same face: its measures, from the frames with a face only."""
    face = face_landmarks(mouth_width=56, corner_raise=8, gap=20)
    low, high = face.min(axis=0), face.max(axis=0)
    crop = 0.5 + (face - (low + high) / 2) / (1.8 * (high - low).max())
    network = FaceReaderModel(channels=(8, 8, 8, 8), landmark_width=8, head_channels=8, head_width=8).eval()
    with torch.no_grad():
        network.mean_landmarks.copy_(torch.from_numpy(crop))
        for parameter in network.to_landmarks.parameters():
            parameter.zero_()
    judge = Judge.builtin()

    def measure(*faces: DetectedFace | None) -> list[float | None]:
        instruments = Instruments(judge, network, tiny_face_vision(), "")
        video = SeenVideo(lambda: slide(1), 8, instruments, "")
        video.track = FaceTrack(faces, (None,) * len(faces))
        return [metric.measure(video, person(np.ones(128, np.float32))) for metric in METRICS]

    assert measure(FACE, None, FACE) == pytest.approx([0, 1.0, 20 / 64], abs=2e-3)
    assert measure(None, None, None) == [None, None, None]
