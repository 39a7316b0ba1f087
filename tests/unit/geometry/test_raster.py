"""Rasterisation on the CPU against what can be worked out by hand."""

import pytest
import torch
import torch.nn.functional as F

from fantasyid.geometry.raster import barycentric, interpolate, rasterise, vertex_normals

SIZE = 20
SQUARE = torch.tensor([[0, 1, 2], [0, 2, 3]])


def square(left: float, top: float, right: float, bottom: float, depth: float) -> torch.Tensor:
    corners = [[left, top, depth], [right, top, depth], [right, bottom, depth], [left, bottom, depth]]
    return torch.tensor(corners)


def two_squares(first_depth: float, second_depth: float) -> tuple[torch.Tensor, torch.Tensor]:
    vertices = torch.cat([square(2.2, 2.2, 12.8, 12.8, first_depth), square(6.2, 6.2, 17.8, 17.8, second_depth)])
    return vertices[None], torch.cat([SQUARE, SQUARE + 4])


def random_triangles(count: int, seed: int, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(batch, 3 * count, 3, generator=generator) * torch.tensor([SIZE * 1.4, SIZE * 1.4, 10.0])
    return vertices - torch.tensor([SIZE * 0.2, SIZE * 0.2, 0]), torch.arange(3 * count).view(-1, 3)


@pytest.mark.parametrize(("first", "second", "winner"), [(1.0, 2.0, 0), (2.0, 1.0, 1), (-50.0, -60.0, 1)])
def test_the_nearest_triangle_wins(first: float, second: float, winner: int) -> None:
    index, _ = rasterise(*two_squares(first, second), SIZE, SIZE)
    assert (index[0, 7:12, 7:12] // 2 == winner).all()
    assert (index[0, 4, 4:12] // 2 == 0).all()
    assert (index[0, 15, 8:17] // 2 == 1).all()


def test_nearness_is_decided_at_the_pixel_not_at_the_triangle() -> None:
    vertices, triangles = two_squares(0.0, 5.0)
    vertices[0, :4, 2] = vertices[0, :4, 0]  # leans away to the right, through the second square's plane at x = 5
    vertices[0, 4:, :2] = vertices[0, :4, :2]
    index, _ = rasterise(vertices, triangles, SIZE, SIZE)
    assert (index[0, 4:12, 3:5] // 2 == 0).all()
    assert (index[0, 4:12, 6:12] // 2 == 1).all()


def test_every_pixel_agrees_with_a_search_through_all_triangles() -> None:
    vertices, triangles = random_triangles(30, seed=1)
    index, _ = rasterise(vertices, triangles, SIZE, SIZE)
    nearest = torch.full((SIZE, SIZE), torch.inf, dtype=torch.float64)
    expected = torch.full((SIZE, SIZE), -1)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    pixel = torch.stack([columns, rows], -1).double()
    for k, (a, b, c) in enumerate(vertices[0, triangles].double()):
        edges = torch.stack([b[:2] - a[:2], c[:2] - a[:2]], 1)
        v, w = ((pixel - a[:2]) @ torch.linalg.inv(edges).T).unbind(-1)
        depth = a[2] + v * (b[2] - a[2]) + w * (c[2] - a[2])
        hit = (v >= 0) & (w >= 0) & (v + w <= 1) & (depth < nearest)
        nearest, expected = torch.where(hit, depth, nearest), torch.where(hit, k, expected)
    assert torch.equal(index[0], expected)
    assert (expected >= 0).float().mean() > 0.5


def test_pixel_centres_lie_at_integers() -> None:
    index, _ = rasterise(square(2.9, 4.9, 7.1, 6.1, 0.0)[None], SQUARE, SIZE, SIZE)
    expected = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    expected[5:7, 3:8] = True
    assert torch.equal(index[0] >= 0, expected)
    index, _ = rasterise(square(3.1, 5.1, 6.9, 5.9, 0.0)[None], SQUARE, SIZE, SIZE)
    assert (index == -1).all()


def test_parts_outside_the_picture_are_cut_off() -> None:
    index, _ = rasterise(square(-30.0, 4.5, 30.0, 50.0, 0.0)[None], SQUARE, SIZE, SIZE)
    assert (index[0, :5] == -1).all()
    assert (index[0, 5:] >= 0).all()
    index, _ = rasterise(square(30.0, 30.0, 50.0, 50.0, 0.0)[None], SQUARE, SIZE, SIZE)
    assert (index == -1).all()


def test_either_winding_is_drawn() -> None:
    vertices, triangles = random_triangles(10, seed=2)
    index, _ = rasterise(vertices, triangles, SIZE, SIZE)
    flipped, _ = rasterise(vertices, triangles.flip(1), SIZE, SIZE)
    assert torch.equal(index, flipped)


def test_barycentric_coordinates_reproduce_linear_functions() -> None:
    vertices, triangles = random_triangles(12, seed=3)
    index, weights = rasterise(vertices, triangles, SIZE, SIZE)
    seen = index >= 0
    assert torch.equal(barycentric(vertices, triangles, index), weights)
    assert (weights[seen].sum(-1) - 1).abs().max() < 1e-4
    assert weights[seen].min() > -1e-3
    x, y = vertices[..., 0], vertices[..., 1]
    drawn = interpolate(torch.stack([x, y, 3 * x - 2 * y + 5], -1), triangles, index, weights)[seen]
    _, rows, columns = seen.nonzero().unbind(1)
    wanted = torch.stack([columns, rows, 3 * columns - 2 * rows + 5], -1).float()
    assert (drawn - wanted).abs().max() < 2e-3


def test_a_batch_equals_its_members_one_by_one() -> None:
    vertices, triangles = random_triangles(15, seed=4, batch=3)
    index, weights = rasterise(vertices, triangles, SIZE, SIZE + 5)
    assert index.shape == (3, SIZE, SIZE + 5)
    for k in range(3):
        single_index, single_weights = rasterise(vertices[k : k + 1], triangles, SIZE, SIZE + 5)
        assert torch.equal(index[k], single_index[0])
        assert torch.equal(weights[k], single_weights[0])


def test_interpolation_is_zero_outside_and_shares_attributes() -> None:
    vertices, triangles = two_squares(1.0, 2.0)
    index, weights = rasterise(vertices.expand(2, -1, -1), triangles, SIZE, SIZE)
    shared = torch.rand(8, 4, generator=torch.Generator().manual_seed(5)) + 1
    drawn = interpolate(shared, triangles, index, weights)
    assert drawn.shape == (2, SIZE, SIZE, 4)
    assert (drawn[index < 0] == 0).all()
    assert (drawn[index >= 0] > 0.99).all()
    assert torch.equal(interpolate(shared.expand(2, -1, -1), triangles, index, weights), drawn)


def test_vertex_normals_of_a_sphere_point_outward(sphere) -> None:
    vertices, topology = sphere
    points = torch.from_numpy(vertices).float()[None] * 7
    normals = vertex_normals(points, torch.tensor(topology.triangles))
    assert (normals.norm(dim=-1) - 1).abs().max() < 1e-5
    assert (normals * F.normalize(points, dim=-1)).sum(-1).min() > 0.99
