import os
import subprocess
import sys

import numpy as np
import pytest

from fantasyid.geometry.spirals import spiral_indices
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
        "from fantasyid.geometry.simplify import simplify\n"
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
