import math

import pytest
import torch

from fantasyid.face.align import READER_SCALE, restore_points
from fantasyid.face.landmarks import LandmarkReader
from fantasyid.geometry.head_model import HeadModel
from tests.unit.face.faces import average_face_model, head_landmarks


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    return head_landmarks(HeadModel.load())


def test_landmarks_come_in_pixels_of_each_photo(face: torch.Tensor) -> None:
    boxes = torch.tensor([[100.0, 60.0, 200.0, 160.0], [20.0, 30.0, 60.0, 70.0]])
    landmarks = LandmarkReader(average_face_model(face)).read(torch.zeros(2, 3, 250, 300), boxes)
    assert landmarks.shape == (2, 478, 3)
    middle = (landmarks.amin(dim=1) + landmarks.amax(dim=1))[:, :2] / 2
    torch.testing.assert_close(middle, torch.tensor([[150.0, 110.0], [40.0, 50.0]]), atol=0.1, rtol=0)
    extent = landmarks.amax(dim=1) - landmarks.amin(dim=1)
    sides = torch.maximum(extent[:, 1], 1.2 * extent[:, 0])
    torch.testing.assert_close(sides, torch.tensor([170.0, 68.0]) / READER_SCALE, atol=0.1, rtol=0)
    # Depth is scaled with the face.
    torch.testing.assert_close(landmarks[0, :, 2] / landmarks[1, :, 2], torch.full((478,), 2.5))


def test_second_pass_sees_a_crop_levelled_and_centred_by_the_first(face: torch.Tensor) -> None:
    # A network that always answers with a face tilted by 10 degrees and off centre by a tenth of the crop.
    angle = math.radians(10)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    tilted = torch.cat([(face[:, :2] - 0.5) @ turn.T + 0.6, face[:, 2:]], dim=1)
    box = torch.tensor([[100.0, 100.0, 200.0, 200.0]])
    landmarks = LandmarkReader(average_face_model(tilted)).read(torch.zeros(1, 3, 300, 300), box)
    once = restore_points(tilted[None], torch.tensor([[[170.0, 0.0, 65.0], [0.0, 170.0, 65.0]]]), 1)
    tilt = lambda p: math.degrees(math.atan2(*(p[0, 263, :2] - p[0, 33, :2]).flip(0).tolist()))  # noqa: E731
    assert tilt(once) == pytest.approx(10, abs=0.5)
    assert tilt(landmarks) == pytest.approx(20, abs=1)
    middle = lambda p: (p.amin(dim=1) + p.amax(dim=1))[0, :2] / 2  # noqa: E731
    assert (middle(landmarks) - middle(once)).norm() > 10


def test_network_sees_the_pixels_of_the_face(face: torch.Tensor) -> None:
    model = average_face_model(face)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.to_landmarks.weight, std=0.01)
    reader = LandmarkReader(model)
    photo = torch.randn(1, 3, 200, 200, generator=torch.Generator().manual_seed(1))
    box = torch.tensor([[60.0, 60.0, 140.0, 140.0]])
    moved = torch.roll(photo, (7, 11), dims=(2, 3))
    shift = torch.tensor([11.0, 7.0, 0.0])
    there = reader.read(moved, box + torch.tensor([11.0, 7.0, 11.0, 7.0]))
    torch.testing.assert_close(there, reader.read(photo, box) + shift, atol=0.05, rtol=0)
    assert (reader.read(moved, box) - reader.read(photo, box)).abs().max() > 0.05


def test_half_precision_network_gives_float32(face: torch.Tensor) -> None:
    box = torch.tensor([[100.0, 60.0, 200.0, 160.0]])
    photo = torch.zeros(1, 3, 250, 300)
    exact = LandmarkReader(average_face_model(face)).read(photo, box)
    coarse = LandmarkReader(average_face_model(face).to(torch.bfloat16)).read(photo, box)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, exact, atol=2, rtol=0)
    assert not exact.requires_grad


def test_confidence_is_a_probability_of_each_photo(face: torch.Tensor) -> None:
    box = torch.tensor([[100.0, 60.0, 200.0, 160.0]])
    photo = torch.zeros(1, 3, 250, 300)
    for logit, wanted in ((10.0, 1.0), (0.0, 0.5), (-2.0, 0.1192)):
        reader = LandmarkReader(average_face_model(face, confidence=logit))
        landmarks, confidence = reader.read_with_confidence(photo, box)
        assert confidence.tolist() == pytest.approx([wanted], abs=1e-3)
        assert torch.equal(landmarks, reader.read(photo, box))
