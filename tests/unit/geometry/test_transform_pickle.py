import pickle

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from fantasyid.core.errors import CorruptWeightsError
from fantasyid.geometry.build.simplify import simplify
from fantasyid.geometry.topology import MeshTopology
from fantasyid.geometry.transform_pickle import load_transform_pickle


@pytest.fixture(scope="module")
def levels(sphere, grid):
    """A sphere and a sheet as one mesh, at three resolutions, in the form of COMA's files."""
    (ball, ball_topology), (sheet, sheet_topology) = sphere, grid
    vertices = [np.concatenate([ball, sheet + 3])]
    topologies = [MeshTopology(np.concatenate([ball_topology.triangles, sheet_topology.triangles + len(ball)]), 1062)]
    down, up = [], []
    for count in (260, 70):
        kept, coarse = simplify(vertices[-1], topologies[-1], count)
        # The coarse vertices in another order, so that the components change their numbers.
        kept, renamed = kept[::-1], count - 1 - coarse.triangles
        identity = np.eye(topologies[-1].num_vertices, dtype=np.float32)[kept]
        weights = np.random.RandomState(0).uniform(-1, 2, identity.shape[::-1]).astype(np.float32)
        down.append(csc_matrix(identity))
        up.append(csc_matrix(weights * (weights > 1.9)))
        vertices.append(vertices[-1][kept])
        topologies.append(MeshTopology(renamed, count))
    return {
        "vertices": vertices,
        "face": [topology.triangles.astype(np.uint32) for topology in topologies],
        "adj": [csc_matrix((len(level), len(level)), dtype=np.float32) for level in vertices],
        "down_transform": down,
        "up_transform": up,
    }


def written(tmp_path, levels):
    path = tmp_path / "transform.pkl"
    path.write_bytes(pickle.dumps(levels, protocol=4))
    return path


def test_levels_come_back_as_they_stand_in_the_file(tmp_path, levels):
    transform = load_transform_pickle(written(tmp_path, levels))
    assert [len(level) for level in transform.vertices] == [1062, 260, 70]
    for level in range(3):
        np.testing.assert_array_equal(transform.vertices[level], levels["vertices"][level])
        np.testing.assert_array_equal(transform.triangles[level], levels["face"][level])
        assert transform.triangles[level].dtype == np.int64
    for step in range(2):
        for read, stored in ((transform.down, "down_transform"), (transform.up, "up_transform")):
            assert isinstance(read[step], csr_matrix)
            np.testing.assert_array_equal(read[step].toarray(), levels[stored][step].toarray())


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("face", lambda a: a[:-1], "do not fit together"),
        ("up_transform", lambda a: a[::-1], r"up_transform 0 is no sparse matrix of shape \(1062, 260\)"),
        ("down_transform", lambda a: [m.toarray() for m in a], "down_transform 0 is no sparse matrix"),
        ("face", lambda a: [a[0] + 900, *a[1:]], "face does not index the 1062 vertices"),
        ("face", lambda a: [a[0].astype(float), *a[1:]], "face does not index"),
        ("vertices", lambda a: [a[0][:, :2], *a[1:]], r"vertices of a level are no array of shape \(N, 3\)"),
        ("vertices", lambda a: None, "it needs the lists"),
        ("vertices", lambda a: [a[0] * np.inf, *a[1:]], "vertices of a level are no numbers up to"),
        ("vertices", lambda a: [a[0] * 1e200, *a[1:]], "vertices of a level are no numbers up to"),
        ("face", lambda a: [a[0] * 0, *a[1:]], "a triangle names one vertex twice"),
        ("up_transform", lambda a: [a[0] * np.nan, *a[1:]], "up_transform 0 has weights that are not finite"),
    ],
)
def test_levels_that_do_not_fit_are_refused(tmp_path, levels, name, change, named):
    path = written(tmp_path, {**levels, name: change(levels[name])})
    with pytest.raises(CorruptWeightsError, match=rf"transform\.pkl.*{named}"):
        load_transform_pickle(path)
