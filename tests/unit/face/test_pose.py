import pytest
import torch

from fantasyid.face.align import five_points
from fantasyid.face.pose import estimate_poses, pose_from_five_landmarks, pose_of_rotation
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.projection import project, rotation_matrix
from tests.unit.face.faces import head_landmarks

NOSE, CHIN, BROW = 1, 152, 10


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (30.0, 0.0, 0.0), (-40.0, 15.0, 10.0), (5.0, -25.0, 60.0)])
def test_pose_of_a_posed_average_head(head: HeadModel, angles: tuple[float, float, float]) -> None:
    landmarks = head_landmarks(head, *angles)
    (pose,) = estimate_poses(head, landmarks[None] * 300)
    assert (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) == pytest.approx(angles, abs=0.1)


def test_signs_as_seen_in_the_picture(head: HeadModel) -> None:
    straight, right, down, tilted = (
        head_landmarks(head, *angles) for angles in ((0, 0, 0), (20, 0, 0), (0, 20, 0), (0, 0, 20))
    )
    middle = lambda points: points[[33, 263]].mean(dim=0)  # noqa: E731
    assert (right[NOSE] - middle(right))[0] > (straight[NOSE] - middle(straight))[0] + 0.02
    assert (down[NOSE] - middle(down))[1] > (straight[NOSE] - middle(straight))[1] + 0.02
    # Counter-clockwise: the eye on the right of the picture is the higher one.
    assert tilted[263, 1] < tilted[33, 1] - 0.02
    poses = estimate_poses(head, torch.stack([straight, right, down, tilted]))
    assert [round(pose.yaw_deg) for pose in poses] == [0, 20, 0, 0]
    assert [round(pose.pitch_deg) for pose in poses] == [0, 0, 20, 0]
    assert [round(pose.roll_deg) for pose in poses] == [0, 0, 0, 20]


def test_expression_moves_the_pose_little(head: HeadModel) -> None:
    expression = torch.zeros(1, len(head.expression_names))
    expression[0, head.expression_names.index("jawOpen")] = 0.8
    vertices = head.shape(torch.zeros(1, len(head.identity_basis)), expression)[:, head.landmarks478]
    rotation = rotation_matrix(*torch.tensor([12.0, 0.0, 0.0]))
    landmarks = project(vertices, rotation[None], torch.tensor([20.0]), torch.tensor([[64.0, 64.0]]))
    (pose,) = estimate_poses(head, landmarks)
    assert (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) == pytest.approx((12.0, 0.0, 0.0), abs=3)


def test_pose_of_rotation_inverts_the_rotation_matrix() -> None:
    pose = pose_of_rotation(rotation_matrix(*torch.tensor([-33.0, 8.0, 100.0])))
    assert (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) == pytest.approx((-33.0, 8.0, 100.0), abs=1e-3)


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (35.0, 0.0, 0.0), (-30.0, 15.0, 10.0), (5.0, -25.0, 60.0)])
def test_five_points_of_the_average_head_say_its_pose(head: HeadModel, angles: tuple[float, float, float]) -> None:
    points = five_points(head_landmarks(head, *angles)[None, :, :2] * 300)
    (pose,) = pose_from_five_landmarks(head, points)
    assert (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) == pytest.approx(angles, abs=0.1)


def test_five_points_of_other_people_with_expressions(head: HeadModel) -> None:
    generator = torch.Generator().manual_seed(0)
    uniform = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    people, units = 300, len(head.expression_names)
    expression = 0.5 * uniform(people, units) * (uniform(people, units) < 0.1)
    angles = (uniform(3, people) * 2 - 1) * torch.tensor([[40.0], [25.0], [30.0]])
    identity = torch.randn(people, len(head.identity_basis), generator=generator)
    vertices = head.shape(identity, expression)[:, head.landmarks478]
    landmarks = project(vertices, rotation_matrix(*angles), torch.full((people,), 5.0), torch.full((people, 2), 100.0))
    poses = pose_from_five_landmarks(head, five_points(landmarks[..., :2]))
    found = torch.tensor([[pose.yaw_deg, pose.pitch_deg, pose.roll_deg] for pose in poses]).T
    median = (found - angles).abs().median(dim=1).values
    assert (median < torch.tensor([1.8, 3.2, 1.2])).all()
