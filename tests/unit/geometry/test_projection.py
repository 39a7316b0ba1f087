import pytest
import torch

from fantasyid.geometry.projection import euler_degrees, project, rotation_matrix


def turned(yaw=0.0, pitch=0.0, roll=0.0, point=(0.0, 0.0, 1.0)):
    rotation = rotation_matrix(*torch.tensor([[yaw], [pitch], [roll]]))
    return (rotation[0] @ torch.tensor(point)).tolist()


def test_signs_of_the_angles():
    assert turned(yaw=30)[0] > 0.4  # the nose points to the right of the picture
    assert turned(pitch=30)[1] < -0.4  # the nose points down
    assert turned(roll=30, point=(1.0, 0.0, 0.0))[1] > 0.4  # counter-clockwise


def test_order_of_the_rotations():
    zero = torch.zeros(1)
    angles = torch.tensor([[20.0], [-35.0], [50.0]])
    separate = [rotation_matrix(zero, zero, angles[2]), rotation_matrix(angles[0], zero, zero)]
    expected = separate[0] @ separate[1] @ rotation_matrix(zero, angles[1], zero)
    torch.testing.assert_close(rotation_matrix(*angles), expected)


def test_angles_come_back_for_any_batch_shape():
    generator = torch.Generator().manual_seed(0)
    limit = torch.tensor([85.0, 170.0, 170.0], dtype=torch.float64)[:, None, None]
    angles = (torch.rand(3, 4, 5, generator=generator, dtype=torch.float64) * 2 - 1) * limit
    rotation = rotation_matrix(*angles)
    assert rotation.shape == (4, 5, 3, 3)
    torch.testing.assert_close(torch.stack(euler_degrees(rotation)), angles)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(4, 5, dtype=torch.float64))


def test_projection_has_y_down_and_smaller_depth_nearer():
    points = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]])
    pixels = project(points, torch.eye(3)[None], torch.tensor([10.0]), torch.tensor([[50.0, 60.0]]))
    assert pixels[0].tolist() == [[50.0, 60.0, 0.0], [60.0, 40.0, -30.0]]


def test_projection_has_gradients():
    rotation, scale = torch.eye(3)[None].requires_grad_(), torch.tensor([2.0], requires_grad=True)
    project(torch.ones(1, 4, 3), rotation, scale, torch.zeros(1, 2)).square().sum().backward()
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx(48)
    assert rotation.grad is not None
    assert rotation.grad.abs().min() > 0
