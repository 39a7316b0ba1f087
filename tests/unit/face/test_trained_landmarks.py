"""The face reader that ships, on a real photo it was not trained on."""

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.imaging import to_tensor
from fantasyid.evaluation.reader.measures import coefficients
from fantasyid.face.detect import DlibFaceDetector
from fantasyid.face.landmarks import LandmarkReader
from fantasyid.face.pose import estimate_poses
from fantasyid.face.reader import FaceReader
from fantasyid.face.types import DetectedFace
from fantasyid.geometry.head_model import HeadModel
from tests.unit.face.faces import resized

# MediaPipe 0.10.14 on the same photo, pixels: eye corners, nose tip, mouth corners, forehead, chin, irises.
REFERENCE = {
    33: (195.2, 100.9),
    133: (213.3, 103.7),
    362: (237.0, 104.9),
    263: (255.8, 104.3),
    1: (223.4, 130.0),
    61: (201.8, 139.2),
    291: (245.0, 141.0),
    10: (226.3, 71.7),
    152: (221.3, 177.4),
    468: (203.5, 101.1),
    473: (246.6, 103.5),
}
FACE_HEIGHT = 106.0


@pytest.fixture(scope="module")
def reader() -> LandmarkReader:
    return LandmarkReader(load_component(MINI_FOLDER, "face_reader_model"))


def read(reader: LandmarkReader, photo: np.ndarray) -> torch.Tensor:
    (face,) = DlibFaceDetector().detect(photo)
    return reader.read(to_tensor(np.ascontiguousarray(photo)), torch.tensor([face.box]))


def test_landmarks_agree_with_mediapipe(reader: LandmarkReader) -> None:
    landmarks = read(reader, astronaut())[0, list(REFERENCE), :2].numpy()
    errors = np.linalg.norm(landmarks - np.array(list(REFERENCE.values())), axis=1) / FACE_HEIGHT
    assert errors.mean() < 0.03
    assert errors.max() < 0.07


def turned_back(points: np.ndarray, quarters: int) -> np.ndarray:
    """Pixels (P,2) of the square photo turned counter-clockwise by so many quarters, in the photo itself."""
    for _ in range(quarters):
        points = np.stack([len(astronaut()) - points[:, 1], points[:, 0]], axis=1)
    return points


@pytest.mark.parametrize(("quarters", "roll_deg"), [(1, 90), (2, -180), (3, -90)])
def test_photo_that_lies_on_its_side_is_read_like_the_upright_one(quarters: int, roll_deg: float) -> None:
    reader = FaceReader(load_component(MINI_FOLDER, "face_reader_model"))
    upright = reader.read(astronaut())
    reading = reader.read(np.ascontiguousarray(np.rot90(astronaut(), quarters)))
    landmarks = turned_back(reading.landmarks[:, :2].numpy(), quarters)
    assert np.linalg.norm(landmarks - upright.landmarks[:, :2].numpy(), axis=1).max() < 0.01 * FACE_HEIGHT
    assert (reading.head.vertices - upright.head.vertices).norm(dim=1).max() < 0.05
    turned_deg = (reading.head.pose.roll_deg - upright.head.pose.roll_deg - roll_deg + 180) % 360 - 180
    assert abs(turned_deg) < 1
    assert -180 <= reading.head.pose.roll_deg < 180
    assert reading.head.pose.yaw_deg == pytest.approx(upright.head.pose.yaw_deg, abs=1)


class Given:
    """A detector that has always found the same."""

    def __init__(self, face: DetectedFace) -> None:
        self.face = face

    def detect(self, photo: np.ndarray) -> tuple[DetectedFace, ...]:
        return (self.face,)


@pytest.mark.parametrize("tilt_deg", [0.0, 180.0])
def test_face_that_a_detector_took_for_upright_is_read_upside_down(tilt_deg: float) -> None:
    """HOG detectors do that; the network is asked both ways, and the surer answer counts."""
    model = load_component(MINI_FOLDER, "face_reader_model")
    (found,) = DlibFaceDetector().detect(astronaut())
    x0, y0, x1, y1 = found.box
    claimed = DetectedFace((512 - x1, 512 - y1, 512 - x0, 512 - y0), 1.0, tilt_deg=tilt_deg)
    reading = FaceReader(model, Given(claimed)).read(np.ascontiguousarray(astronaut()[::-1, ::-1]))
    landmarks = turned_back(reading.landmarks[:, :2].numpy(), 2)
    errors = np.linalg.norm(landmarks[list(REFERENCE)] - np.array(list(REFERENCE.values())), axis=1) / FACE_HEIGHT
    assert errors.mean() < 0.03


def test_mirrored_photo_gives_the_mirrored_pose(reader: LandmarkReader) -> None:
    head = HeadModel.load()
    (pose,) = estimate_poses(head, read(reader, astronaut()))
    (mirrored,) = estimate_poses(head, read(reader, np.ascontiguousarray(astronaut()[:, ::-1])))
    assert mirrored.yaw_deg == pytest.approx(-pose.yaw_deg, abs=5)
    assert mirrored.roll_deg == pytest.approx(-pose.roll_deg, abs=4)
    assert mirrored.pitch_deg == pytest.approx(pose.pitch_deg, abs=5)


def test_whole_reading_of_a_real_photo() -> None:
    reading = FaceReader(load_component(MINI_FOLDER, "face_reader_model")).read(astronaut())
    assert reading.confidence > 0.9
    assert reading.head.error_cm < 0.3
    assert abs(reading.head.pose.yaw_deg) < 25


def test_other_pictures_of_the_photo_show_the_same_head() -> None:
    """Mirrored, half as large, brighter: the shape's coefficients point the same way."""
    head = HeadModel.load()
    reader = FaceReader(load_component(MINI_FOLDER, "face_reader_model"))
    flip = torch.tensor([-1.0, 1.0, 1.0])

    def identity(photo: np.ndarray, is_mirrored: bool = False) -> torch.Tensor:
        vertices = reader.read(np.ascontiguousarray(photo)).head.vertices
        return coefficients(head, (vertices[head.mirror] * flip if is_mirrored else vertices)[None])[0]

    photo = astronaut()
    own = identity(photo)
    brighter = (photo.astype(float) * 1.25).clip(0, 255).astype(np.uint8)
    others = {
        "mirrored": identity(photo[:, ::-1], is_mirrored=True),
        "smaller": identity(resized(photo, 340)),
        "brighter": identity(brighter),
    }
    for name, other in others.items():
        assert torch.cosine_similarity(own, other, dim=0) > 0.9, name
    assert own.norm() > 1
