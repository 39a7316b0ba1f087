from dataclasses import replace

import pytest
import torch

from fantasyid.geometry.fitting import fit_landmarks
from fantasyid.geometry.projection import euler_degrees, project, rotation_matrix

ANGLES = torch.tensor([[18.0, -12.0, 0.0], [6.0, -8.0, 10.0], [-5.0, 9.0, 0.0]])  # yaw, pitch, roll; one column a photo


def landmark_points(head, vertices):
    return vertices[:, head.landmarks478] + head.landmark_offset


@pytest.fixture(scope="module")
def person(head):
    """One person's three photos with known answers: identity, expression, landmarks."""
    identity = torch.randn(len(head.identity_basis), generator=torch.Generator().manual_seed(2)) * 0.5
    active = ({}, {"jawOpen": 0.6}, {"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7})
    expression = torch.tensor([[photo.get(name, 0.0) for name in head.expression_names] for photo in active])
    vertices = head.shape(identity.expand(3, -1), expression)
    scale, translation = torch.tensor([9.0, 14.0, 11.0]), torch.tensor([[200.0, 180.0], [150.0, 90.0], [60.0, 70.0]])
    pixels = project(landmark_points(head, vertices), rotation_matrix(*ANGLES), scale, translation)
    return identity, expression, pixels, scale, translation


@pytest.fixture(scope="module")
def fit(head, person):
    return fit_landmarks(head, person[2])


def test_pose_is_recovered(person, fit):
    found = torch.stack(euler_degrees(fit.rotation))
    assert (found - ANGLES)[0].abs().max() < 1
    assert (found - ANGLES).abs().max() < 1.5
    torch.testing.assert_close(fit.scale, person[3], rtol=0.02, atol=0)
    assert (fit.translation - person[4]).norm(dim=1).max() < 3


def test_shape_is_recovered(head, person, fit):
    zeros = torch.zeros(1, 52)
    true, found = (head.shape(identity[None], zeros)[0, head.landmarks478] for identity in (person[0], fit.identity))
    error = (found - true).norm(dim=1).mean()
    assert error < 0.5 * (true - head.mean[head.landmarks478]).norm(dim=1).mean()
    assert fit.error_cm.max() < 0.06


def test_expressions_are_recovered_and_never_negative(head, person, fit):
    jaw, smile = (head.expression_names.index(name) for name in ("jawOpen", "mouthSmileLeft"))
    assert fit.expression[1, jaw] == pytest.approx(0.6, abs=0.15)
    assert fit.expression[2, smile] == pytest.approx(0.7, abs=0.25)
    assert fit.expression[0].sum() < 0.8
    assert (fit.expression >= 0).all()
    unused = [i for i, name in enumerate(head.expression_names) if name.startswith(("eyeLook", "tongue"))]
    assert (fit.expression[:, unused] == 0).all()


def test_fitted_vertices_project_onto_the_landmarks(head, person, fit):
    vertices = head.shape(fit.identity.expand(3, -1), fit.expression)
    pixels = project(landmark_points(head, vertices), fit.rotation, fit.scale, fit.translation)[:, :468]
    distance = (pixels - person[2][:, :468])[..., :2].norm(dim=-1).median(dim=1).values
    torch.testing.assert_close(distance / fit.scale, fit.error_cm, atol=1e-3, rtol=0)


def test_scale_and_shift_of_the_picture_do_not_matter(head, person, fit):
    moved = fit_landmarks(head, person[2].double() * 2 + torch.tensor([30.0, -20.0, 0.0]))
    torch.testing.assert_close(moved.identity, fit.identity, atol=1e-3, rtol=0)
    torch.testing.assert_close(moved.scale, fit.scale * 2, rtol=1e-3, atol=0)


def test_several_photos_share_one_identity_that_one_photo_knows_less_well(head, person, fit):
    single = fit_landmarks(head, person[2][:1])
    assert single.identity.shape == fit.identity.shape
    assert single.expression.shape == (1, 52)
    vertices = [
        head.shape(i[None], torch.zeros(1, 52))[0, head.landmarks478]
        for i in (person[0], fit.identity, single.identity)
    ]
    assert (vertices[1] - vertices[0]).norm() < (vertices[2] - vertices[0]).norm()


def test_landmarks_beside_their_vertices_are_fitted_as_well(head, person, fit):
    """Detectors place landmarks a little beside the vertices they are named after; the head model knows how far."""
    offset = 0.2 * torch.randn(478, 3, generator=torch.Generator().manual_seed(0))
    beside = replace(head, landmark_offset=offset)
    vertices = landmark_points(beside, head.shape(person[0].expand(3, -1), person[1]))
    landmarks = project(vertices, rotation_matrix(*ANGLES), person[3], person[4])
    assert (fit_landmarks(beside, landmarks).identity - fit.identity).norm() < 0.3 * fit.identity.norm()
    assert fit_landmarks(replace(head, landmark_offset=torch.zeros(478, 3)), landmarks).error_cm.min() > 0.05
    assert fit_landmarks(beside, landmarks).error_cm.max() < 0.03


def test_the_fit_says_how_unsure_the_identity_is(head, person, fit):
    """Between certainty and the unit Gaussian it starts from; more photos make it surer."""
    single = fit_landmarks(head, person[2][:1])
    for covariance in (fit.identity_covariance, single.identity_covariance):
        torch.testing.assert_close(covariance, covariance.T, atol=1e-5, rtol=0)
        strength = torch.linalg.eigvalsh(covariance)
        assert strength.min() > 0
        assert strength.max() < 1 + 1e-4
    assert fit.identity_covariance.trace() < single.identity_covariance.trace() < 0.95 * len(fit.identity)


@pytest.mark.parametrize("shape", [(478, 3), (0, 478, 3), (1, 468, 3), (1, 478, 2)])
def test_wrong_shapes_are_refused(head, shape):
    with pytest.raises(ValueError, match="478, 3"):
        fit_landmarks(head, torch.zeros(shape))


def test_values_that_are_not_finite_are_refused(head, person):
    landmarks = person[2].clone()
    landmarks[0, 5, 1] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        fit_landmarks(head, landmarks)
