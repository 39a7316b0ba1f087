import numpy as np
import pytest
from scipy.spatial import ConvexHull, Delaunay, cKDTree

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.geometry.build.simplify import simplify
from fantasyid.geometry.decimate import MeshHierarchy, build_hierarchy
from fantasyid.geometry.head_model import PART_NAMES
from fantasyid.geometry.spirals import spiral_indices
from fantasyid.geometry.topology import MeshTopology


@pytest.fixture(scope="module")
def hierarchy(sphere):
    return build_hierarchy(*sphere, counts=(256, 64), spiral_length=9)


def down_up(hierarchy, vertices, values):
    """Values taken down to the coarsest level and back, each vertex from the nearest place on the coarsest mesh."""
    fine = vertices
    for index, weight in zip(hierarchy.down_index, hierarchy.down_weight, strict=True):
        vertices, values = ((array[index] * weight[..., None]).sum(1) for array in (vertices, values))
    shares = np.array([(a, b, 12 - a - b) for a in range(13) for b in range(13 - a)]) / 12
    places, means = (
        np.einsum("sc,tcd->tsd", shares, array[hierarchy.topologies[-1].triangles]).reshape(-1, array.shape[1])
        for array in (vertices, values)
    )
    return means[cKDTree(places).query(fine)[1]]


def test_simplified_sphere_is_a_closed_sphere(sphere):
    vertices, topology = sphere
    kept, coarse = simplify(vertices, topology, 100)
    assert len(kept) == coarse.num_vertices == 100
    assert len(coarse.boundary_edges) == 0
    assert 100 - len(coarse.edges) + len(coarse.triangles) == 2
    corners = vertices[kept][coarse.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("td,td->t", normal, corners.mean(1)) > 0).all()


def test_border_and_components_survive(grid):
    vertices, topology = grid
    two = MeshTopology(np.concatenate([topology.triangles, topology.triangles + 36]), 72)
    kept, coarse = simplify(np.concatenate([vertices, vertices + np.array([0, 0, 5])]), two, 8)
    assert set(coarse.components) == {0, 1}
    assert set(kept.tolist()) == {0, 5, 30, 35, 36, 41, 66, 71}


def test_no_triangle_of_a_flat_mesh_flips():
    points = np.random.RandomState(0).rand(200, 2)
    triangles = Delaunay(points).simplices.astype(np.int64)
    a, b, c = points[triangles].swapaxes(0, 1)
    clockwise = (b - a)[:, 0] * (c - a)[:, 1] < (b - a)[:, 1] * (c - a)[:, 0]
    triangles[clockwise] = triangles[clockwise, ::-1]
    flat = np.concatenate([points, np.zeros((200, 1))], 1)
    kept, coarse = simplify(flat, MeshTopology(triangles, 200), 40)
    a, b, c = points[kept][coarse.triangles].swapaxes(0, 1)
    assert ((b - a)[:, 0] * (c - a)[:, 1] > (b - a)[:, 1] * (c - a)[:, 0]).all()


def test_a_narrow_strip_is_not_pinched():
    across = np.array([[x, x % 2 * 0.4, side * 0.1] for side in (0, 1) for x in range(8)], float)
    quads = [(x, x + 1, x + 9, x + 8) for x in range(7)]
    strip = MeshTopology(np.array([t for a, b, c, d in quads for t in ([a, b, c], [a, c, d])]), 16)
    _, coarse = simplify(across, strip, 8)
    assert (np.bincount(coarse.boundary_edges[:, 0]) == 1).all()
    assert 8 - len(coarse.edges) + len(coarse.triangles) == 1


def test_important_vertices_stay(sphere):
    vertices, topology = sphere
    upper = vertices[:, 2] > 0
    kept, _ = simplify(vertices, topology, 200, importance=np.where(upper, 50.0, 1.0))
    assert upper[kept].mean() > 0.75


def test_impossible_target_is_refused(octahedron):
    vertices = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, -1]], float)
    with pytest.raises(ValueError, match="cannot be simplified to 2"):
        simplify(vertices, octahedron, 2)


def test_down_then_up_keeps_smooth_functions(sphere, hierarchy):
    x, y, z = sphere[0].T
    smooth = np.stack([x, y * z, x**2 - y**2], 1)
    error = np.linalg.norm(down_up(hierarchy, sphere[0], smooth) - smooth, axis=1)
    assert hierarchy.num_vertices == (1026, 256, 64)
    assert error.mean() < 0.11  # 16 times fewer vertices, values of size 1
    assert error.max() < 0.3
    constant = np.ones((1026, 1))
    np.testing.assert_allclose(down_up(hierarchy, sphere[0], constant), constant, atol=1e-6)


def ball(count):
    """Points all over the unit sphere and their triangles, counter-clockwise from outside."""
    height = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (1 + 5**0.5) * np.arange(count)
    ring = np.sqrt(1 - height**2)
    points = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], 1)
    triangles = ConvexHull(points).simplices.astype(np.int64)
    a, b, c = points[triangles].swapaxes(0, 1)
    inward = np.einsum("td,td->t", np.cross(b - a, c - a), a) < 0
    triangles[inward] = triangles[inward, ::-1]
    return points, triangles


def test_a_mesh_like_flame_goes_to_1256_and_314_vertices():
    skull, skull_triangles = ball(4131)
    kept = skull[:, 1] > np.sort(skull[:, 1])[199]  # open at the neck
    skull_triangles = (np.cumsum(kept) - 1)[skull_triangles[kept[skull_triangles].all(1)]]
    eye, eye_triangles = ball(546)
    eyes = [1.2 * eye + np.array([side, 1, 8]) for side in (-3, 3)]
    vertices = np.concatenate([skull[kept] * np.array([8, 11, 10]), *eyes])
    topology = MeshTopology(np.concatenate([skull_triangles, eye_triangles + 3931, eye_triangles + 4477]), 5023)
    built = build_hierarchy(vertices, topology, counts=(1256, 314), spiral_length=9)
    assert built.num_vertices == (5023, 1256, 314)
    assert [len(np.unique(level.components)) for level in built.topologies] == [3, 3, 3]
    assert all(len(level.boundary_edges) > 8 for level in built.topologies)
    error = np.linalg.norm(down_up(built, vertices, vertices) - vertices, axis=1)
    assert error.mean() < 0.2  # cm, on a head 16 cm wide
    assert error.max() < 1


def test_saved_hierarchy_is_read_back(hierarchy, tmp_path):
    hierarchy.save(tmp_path / "h.npz")
    loaded = MeshHierarchy.load(tmp_path / "h.npz")
    assert loaded.topology_hash == hierarchy.topology_hash
    for name in ("spirals", "down_index", "down_weight"):
        for a, b in zip(getattr(loaded, name), getattr(hierarchy, name), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("triangles_1", lambda a: a[::1, ::-1]),
        ("down_index_0", lambda a: a + 1000),
        ("down_weight_0", lambda a: a * 2),
        ("spirals_0", lambda a: a[1:]),
        ("num_vertices", lambda a: a[:0]),
    ],
)
def test_altered_hierarchy_is_refused(hierarchy, tmp_path, name, change):
    path = tmp_path / "h.npz"
    hierarchy.save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays[name] = change(arrays[name])
    np.savez(path, **arrays)
    with pytest.raises(CorruptWeightsError, match=r"h\.npz"):
        MeshHierarchy.load(path)


def test_missing_hierarchy_is_named(tmp_path):
    with pytest.raises(MissingWeightsError, match=r"none\.npz"):
        MeshHierarchy.load(tmp_path / "none.npz")


def test_every_level_has_the_spirals_of_its_mesh(hierarchy):
    for built in (hierarchy, MeshHierarchy.load()):
        for spirals, topology in zip(built.spirals, built.topologies, strict=True):
            np.testing.assert_array_equal(spirals, spiral_indices(topology, 9))


def test_packaged_hierarchy_fits_the_packaged_head(head):
    packaged = MeshHierarchy.load()
    assert packaged.topology_hash == head.topology.hash
    assert packaged.num_vertices == (len(head.mean), round(len(head.mean) / 4), 314)
    assert all(spirals.shape[1] == 9 for spirals in packaged.spirals)
    coarse = packaged.down_index[0][:, 0][packaged.down_index[1][:, 0]]
    parts = head.parts.numpy()[coarse]
    assert (parts == PART_NAMES.index("face")).mean() > 0.45
    assert len(np.unique(packaged.topologies[2].components)) == len(np.unique(head.topology.components)) == 6
    mean = head.mean.numpy()
    error = np.linalg.norm(down_up(packaged, mean, mean) - mean, axis=1)
    assert error[head.parts.numpy() == 0].mean() < 0.1
