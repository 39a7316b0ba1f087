import os
import subprocess
import sys

import numpy as np
import pytest

from fantasyid.geometry.spirals import released_spiral_indices, spiral_indices
from fantasyid.geometry.topology import MeshTopology


def steps_from(topology, centre):
    distance, front = {centre: 0}, [centre]
    while front:
        following = [n for v in front for n in topology.rings[v] if n not in distance]
        distance.update(dict.fromkeys(following, distance[front[0]] + 1))
        front = list(dict.fromkeys(following))
    return distance


def test_spirals_start_at_the_centre_and_go_outwards_without_repeats(sphere, grid):
    for _, topology in (sphere, grid):
        spirals = spiral_indices(topology, 12)
        assert (spirals[:, 0] == np.arange(topology.num_vertices)).all()
        for spiral in spirals[::7]:
            distance = steps_from(topology, spiral[0])
            rings = [distance[v] for v in spiral]
            assert len(set(spiral.tolist())) == 12
            assert rings == sorted(rings)
            # A ring is left only once it is complete.
            assert [v for v in distance if 0 < distance[v] < rings[-1]].__len__() == sum(
                0 < r < rings[-1] for r in rings
            )


def test_every_ring_goes_once_around_its_centre(sphere):
    """Counter-clockwise seen from outside, from neighbour to neighbour; the first begins at its smallest vertex."""
    vertices, topology = sphere
    edges = {frozenset(edge) for edge in topology.edges.tolist()}
    for spiral in spiral_indices(topology, 22)[::5]:
        centre, distance = vertices[spiral[0]], steps_from(topology, spiral[0])
        first, second = (np.array([v for v in spiral if distance[v] == step]) for step in (1, 2))
        assert first[0] == first.min()
        across = vertices[first[0]] - centre * (vertices[first[0]] @ centre)
        frame = np.stack([across / np.linalg.norm(across), np.cross(centre, across) / np.linalg.norm(across)])
        for ring in (first, second):
            assert all(frozenset(pair) in edges for pair in zip(ring.tolist(), ring[1:].tolist(), strict=False))
            turn = np.diff(np.unwrap(np.arctan2(*(vertices[ring] @ frame.T).T[::-1])))
            assert (turn > 0).all()
            assert turn.sum() < 2 * np.pi


def test_second_ring_runs_counter_clockwise(grid):
    vertices, topology = grid
    centre = 14
    spiral = spiral_indices(topology, 19)[centre]
    for ring in (spiral[1:7], spiral[7:19]):
        offset = vertices[ring, :2] - vertices[centre, :2]
        turn = np.diff(np.unwrap(np.arctan2(offset[:, 1], offset[:, 0])))
        assert (turn > 0).all()
        assert turn.sum() < 2 * np.pi


def test_small_component_is_padded_with_its_centre(octahedron):
    two = MeshTopology(np.concatenate([octahedron.triangles, octahedron.triangles + 6]), 12)
    spirals = spiral_indices(two, 9)
    assert (spirals[:, 6:] == np.arange(12)[:, None]).all()
    assert (np.sort(spirals[:6, :6]) == np.arange(6)).all()
    assert (np.sort(spirals[6:, :6]) == np.arange(6, 12)).all()


def test_length_below_one_is_refused(octahedron):
    with pytest.raises(ValueError, match="at least 1"):
        spiral_indices(octahedron, 0)


def test_packaged_spirals_do_not_depend_on_the_hash_seed():
    code = (
        "from fantasyid.geometry.decimate import MeshHierarchy as M\n"
        "from fantasyid.geometry.build.simplify import simplify\n"
        "from fantasyid.geometry.spirals import spiral_indices\n"
        "import numpy as np\n"
        "top = M.load().topologies[2]\n"
        "points = np.random.RandomState(0).randn(314, 3)\n"
        "kept, _ = simplify(points, top, 250)\n"
        "print(spiral_indices(top, 9).tobytes().hex()[:4000], kept.tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_released_spirals_run_clockwise_and_follow_the_last_triangle(grid):
    vertices, topology = grid
    spirals = released_spiral_indices(topology, vertices, 7)
    centre = 14
    offset = vertices[spirals[centre, 1:], :2] - vertices[centre, :2]
    assert (np.diff(np.unwrap(np.arctan2(offset[:, 1], offset[:, 0]))) < 0).all()
    last = topology.triangles[(topology.triangles == centre).any(axis=1)][-1].tolist()
    assert spirals[centre, 1] == last[(last.index(centre) + 1) % 3]
    # At a border the ring begins where no triangle follows counter-clockwise.
    half_edges = {(a, b) for t in topology.triangles.tolist() for a, b in zip(t, t[1:] + t[:1], strict=True)}
    for vertex in topology.boundary_edges[:, 0].tolist():
        assert (vertex, spirals[vertex, 1]) not in half_edges


def test_released_spirals_take_the_nearest_where_a_component_ends(octahedron):
    two = MeshTopology(np.concatenate([octahedron.triangles, octahedron.triangles + 6]), 12)
    positions = np.random.default_rng(0).normal(size=(12, 3))
    spirals = released_spiral_indices(two, positions, 9)
    distance = np.linalg.norm(positions[:, None] - positions, axis=-1)
    assert (spirals == distance.argsort(axis=1)[:, :9]).all()


@pytest.mark.parametrize(
    "triangles",
    [[[0, 1, 2], [0, 1, 3]], [[0, 1, 2], [0, 3, 4]]],
    ids=["an edge with two triangles on one side", "two fans that meet in a vertex"],
)
def test_released_spirals_refuse_a_mesh_that_is_not_manifold(triangles):
    with pytest.raises(ValueError, match="not manifold"):
        released_spiral_indices(MeshTopology(np.array(triangles), 5), np.zeros((5, 3)), 3)
