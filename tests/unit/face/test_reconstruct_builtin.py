"""The built-in head: what the network that ships reads becomes a neutral head, the same for a photo and its mirror."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.face.reconstruct_builtin import BuiltinReconstructor
from fantasyid.face.types import ReconstructedHead
from fantasyid.geometry.fitting import placement_error_cm
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.projection import project, rotation_matrix
from fantasyid.models.face_reader import FaceReaderModel
from tests.unit.face.faces import average_face_model, head_landmarks

SIDE = 512
FLIP = torch.tensor([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


@pytest.fixture(scope="module")
def model() -> FaceReaderModel:
    return load_component(MINI_FOLDER, "face_reader_model")


@pytest.fixture(scope="module")
def landmarks(head: HeadModel) -> torch.Tensor:
    """Of the mean head, tilted by 6 degrees and laid over the astronaut's face: (478,3) pixels."""
    return head_landmarks(head, roll_deg=6.0) * 165 + torch.tensor([141.0, 41.0, 0.0])


@pytest.fixture(scope="module")
def reading(head: HeadModel, model: FaceReaderModel, landmarks: torch.Tensor) -> ReconstructedHead:
    return BuiltinReconstructor(head, model).reconstruct(astronaut(), landmarks)


def mirrored(head: HeadModel, landmarks: torch.Tensor) -> torch.Tensor:
    """The landmarks of the mirrored photo."""
    opposite = head.mirror[head.landmarks478]
    partner = (head.landmarks478[None] == opposite[:, None]).int().argmax(dim=1)
    return torch.cat([SIDE - landmarks[partner, :1], landmarks[partner, 1:]], dim=1)


def test_mirrored_photo_gives_the_mirrored_head(
    head: HeadModel, model: FaceReaderModel, landmarks: torch.Tensor, reading: ReconstructedHead
) -> None:
    photo = np.ascontiguousarray(astronaut()[:, ::-1])
    other = BuiltinReconstructor(head, model).reconstruct(photo, mirrored(head, landmarks))
    assert (other.vertices[head.mirror] * FLIP - reading.vertices).abs().max() < 1e-3
    assert other.pose.yaw_deg == pytest.approx(-reading.pose.yaw_deg, abs=1e-3)
    assert other.pose.pitch_deg == pytest.approx(reading.pose.pitch_deg, abs=1e-3)
    assert other.pose.roll_deg == pytest.approx(-reading.pose.roll_deg, abs=1e-3)
    left, right = (head.expression_names.index(f"mouthSmile{side}") for side in ("Left", "Right"))
    assert other.expression[left] == pytest.approx(float(reading.expression[right]), abs=1e-3)
    jaw = head.expression_names.index("jawOpen")
    assert other.expression[jaw] == pytest.approx(float(reading.expression[jaw]), abs=1e-3)
    assert abs(reading.pose.yaw_deg) > 1


def test_mirrored_photo_gives_the_mirrored_lopsided_head(
    head: HeadModel, model: FaceReaderModel, landmarks: torch.Tensor
) -> None:
    """The trained network finds heads nearly symmetric, so here its few lopsided modes are made stronger."""
    loud = deepcopy(model)
    lopsided = (head.identity_basis[:, head.mirror] * FLIP * head.identity_basis).sum((1, 2)) < 0
    loud.to_identity.weight.data[lopsided] *= 200
    reconstructor = BuiltinReconstructor(head, loud)
    one = reconstructor.reconstruct(astronaut(), landmarks).vertices
    other = reconstructor.reconstruct(np.ascontiguousarray(astronaut()[:, ::-1]), mirrored(head, landmarks)).vertices
    assert (one[head.mirror] * FLIP - one).abs().max() > 0.1
    assert (other[head.mirror] * FLIP - one).abs().max() < 2e-3


def test_turning_the_photo_turns_the_pose_and_not_the_head(
    head: HeadModel, model: FaceReaderModel, landmarks: torch.Tensor, reading: ReconstructedHead
) -> None:
    """A quarter turn counter-clockwise, which moves every pixel to another pixel."""
    turned = torch.stack([landmarks[:, 1], SIDE - landmarks[:, 0], landmarks[:, 2]], dim=1)
    other = BuiltinReconstructor(head, model).reconstruct(np.ascontiguousarray(np.rot90(astronaut())), turned)
    assert (other.vertices - reading.vertices).abs().max() < 1e-3
    assert other.pose.roll_deg == pytest.approx(reading.pose.roll_deg + 90, abs=1e-2)
    assert other.pose.yaw_deg == pytest.approx(reading.pose.yaw_deg, abs=1e-2)


def test_the_head_is_the_neutral_one_of_the_mesh(head: HeadModel, reading: ReconstructedHead) -> None:
    """She smiles, and her head lies in the span of the identity basis alone."""
    assert reading.topology_hash == head.topology.hash
    assert reading.expression[head.expression_names.index("mouthSmileLeft")] > 0.2
    basis = head.identity_basis.flatten(1).T
    offset = (reading.vertices - head.mean).flatten()
    identity = torch.linalg.lstsq(basis, offset[:, None]).solution
    assert (basis @ identity - offset[:, None]).abs().max() < 1e-3
    assert identity.norm() > 1


def test_a_network_that_sees_the_mean_head_gives_it(head: HeadModel, landmarks: torch.Tensor) -> None:
    found = BuiltinReconstructor(head, average_face_model(landmarks)).reconstruct(astronaut(), landmarks)
    torch.testing.assert_close(found.vertices, head.mean, atol=1e-4, rtol=0)
    assert found.expression.abs().max() < 1e-6
    assert found.pose.roll_deg == pytest.approx(6.0, abs=0.5)  # the crop is levelled, so this is the photo's tilt
    assert found.error_cm < 0.02


def test_placement_error_is_the_distance_in_cm(head: HeadModel) -> None:
    rotation = rotation_matrix(*torch.tensor([12.0, -7.0, 20.0]))
    shape = head.shape(torch.full((1, len(head.identity_basis)), 0.3), torch.full((1, 52), 0.1))[0]
    points = shape[head.landmarks478] + head.landmark_offset
    landmarks = project(points[None], rotation[None], torch.tensor([8.0]), torch.tensor([[200.0, 150.0]]))[0]
    assert placement_error_cm(head, shape, rotation, landmarks) < 1e-4
    angle = torch.rand(478, generator=torch.Generator().manual_seed(0)) * 2 * torch.pi
    away = torch.stack([angle.cos(), angle.sin(), torch.zeros(478)], dim=1)
    for distance_cm in (0.1, 0.4):
        error = placement_error_cm(head, shape, rotation, landmarks + 8.0 * distance_cm * away)
        assert error == pytest.approx(distance_cm, rel=0.1)
