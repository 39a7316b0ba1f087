import numpy as np
import pytest

from fantasyid.geometry.topology import MeshTopology


def test_hash_ignores_order_of_triangles_and_first_corner(octahedron):
    shuffled = np.roll(octahedron.triangles[::-1], 1, axis=1)
    assert MeshTopology(shuffled, 6).hash == octahedron.hash


def test_hash_changes_with_a_triangle_its_winding_and_the_vertex_count(octahedron):
    moved, flipped = octahedron.triangles.copy(), octahedron.triangles.copy()
    moved[0] = [1, 2, 3]
    flipped[0] = flipped[0, ::-1]
    others = {MeshTopology(moved, 6).hash, MeshTopology(flipped, 6).hash, MeshTopology(octahedron.triangles, 7).hash}
    assert len(others | {octahedron.hash}) == 4


def test_rings_run_counter_clockwise_seen_from_outside(octahedron, sphere):
    assert octahedron.rings[0] == (1, 2, 3, 4)
    assert octahedron.rings[5] == (1, 4, 3, 2)
    vertices, topology = sphere
    for centre, ring in enumerate(topology.rings):
        points = vertices[list(ring)]
        turn = np.cross(points - vertices[centre], np.roll(points, -1, axis=0) - vertices[centre])
        assert (turn @ vertices[centre] > 0).all()


def test_border_fan_starts_at_its_clockwise_end(grid):
    _, topology = grid
    assert topology.rings[0] == (1, 7, 6)
    assert topology.rings[35] == (34, 28, 29)


def test_edges_border_and_components(octahedron, grid):
    assert len(octahedron.edges) == 12
    assert len(octahedron.boundary_edges) == 0
    assert len(grid[1].boundary_edges) == 20
    two = MeshTopology(np.concatenate([octahedron.triangles + 6, octahedron.triangles]), 12)
    assert two.components.tolist() == [0] * 6 + [1] * 6


@pytest.mark.parametrize(
    "triangles", [[[0, 1]], [[0, 1, 3]], [[0, 1, 1]], [[-1, 0, 1]]], ids=["shape", "range", "twice", "negative"]
)
def test_impossible_triangles_are_refused(triangles):
    with pytest.raises(ValueError, match="triangle"):
        MeshTopology(np.array(triangles), 3)
