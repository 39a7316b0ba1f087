"""A reading drawn over its photo, for the built-in head and for FLAME's."""

import numpy as np
import pytest
import torch

from fantasyid.face.drawing import DrawableHead
from fantasyid.face.types import DetectedFace, FaceReading, HeadPose, ReconstructedHead
from fantasyid.geometry.flame import FlameModel
from fantasyid.geometry.head_model import PART_NAMES, HeadModel
from fantasyid.geometry.projection import project, rotation_matrix

SIZE = 240
POSE = HeadPose(15.0, 5.0, -8.0)
ROTATION = rotation_matrix(*torch.tensor([[POSE.yaw_deg], [POSE.pitch_deg], [POSE.roll_deg]]))


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


def reading(head: HeadModel, vertices: torch.Tensor, shown: torch.Tensor, expression: torch.Tensor) -> FaceReading:
    """Of a photo that shows `shown`."""
    marked = shown[head.landmarks478] + head.landmark_offset
    landmarks = project(marked[None], ROTATION, torch.tensor([7.0]), torch.tensor([[120.0, 110.0]]))[0]
    read = ReconstructedHead(vertices, "hash", POSE, expression, 0.0)
    faces = (DetectedFace((80, 60, 160, 160), 1.0),)
    return FaceReading(faces=faces, face_index=0, landmarks=landmarks, confidence=1.0, head=read)


def flame_like(head: HeadModel, offset: torch.Tensor) -> FlameModel:
    """A model in metres with another origin, whose joints are the eyes' middles."""
    joints = torch.zeros(5, len(head.mean))
    for joint, name in ((3, "eye_left"), (4, "eye_right")):
        eye = head.parts == PART_NAMES.index(name)
        joints[joint, eye] = 1 / eye.sum()
    vertices = len(head.mean)
    return FlameModel(
        template=(head.mean + offset) / 100,
        triangles=head.triangles,
        shape_basis=torch.zeros(vertices, 3, 300),
        expression_basis=torch.zeros(vertices, 3, 100),
        pose_basis=torch.zeros(vertices, 3, 36),
        joint_regressor=joints,
        skinning_weights=torch.full((vertices, 5), 0.2),
        parents=(-1, 0, 1, 1, 1),
    )


def test_expression_shows_over_the_photo_and_not_in_the_neutral_head(head: HeadModel) -> None:
    expression = torch.zeros(52)
    expression[head.expression_names.index("jawOpen")] = 0.8
    opened = head.shape(torch.zeros(1, len(head.identity_basis)), expression[None])[0]
    drawable = DrawableHead.of(reading(head, head.mean, opened, expression))
    assert torch.equal(drawable.neutral, head.mean)
    assert torch.allclose(drawable.posed, opened, atol=1e-5)
    assert drawable.expression["jawOpen"] == pytest.approx(0.8)
    photo = np.zeros((SIZE, SIZE, 3), np.uint8)
    drawn = np.argwhere(drawable.overlay(photo).any(axis=2))
    pixels = project(opened[None], ROTATION, torch.tensor([7.0]), torch.tensor([[120.0, 110.0]]))[0]
    assert drawn.min(axis=0)[0] == pytest.approx(float(pixels[:, 1].amin()), abs=2)
    # The collar's outermost corner is thinner than a pixel.
    assert drawn.max(axis=0)[1] == pytest.approx(float(pixels[:, 0].amax()), abs=4)


def test_flame_is_placed_by_its_eyes_wherever_its_origin_is(head: HeadModel) -> None:
    offset = torch.tensor([0.0, 3.0, -5.0])
    flame = flame_like(head, offset)
    photo = np.zeros((SIZE, SIZE, 3), np.uint8)
    expression = torch.zeros(50)
    elsewhere = DrawableHead.of(reading(head, head.mean + offset, head.mean, expression), flame)
    builtin = DrawableHead.of(reading(head, head.mean, head.mean, torch.zeros(52)))
    assert set(elsewhere.expression) == {f"flame-{number:02d}" for number in range(50)}
    first, second = elsewhere.overlay(photo).any(axis=2), builtin.overlay(photo).any(axis=2)
    assert (first & second).sum() / (first | second).sum() > 0.88
    assert elsewhere.turntable().shape == builtin.turntable().shape
