"""Mesh files: vertices exact and in their order, damage said clearly."""

from pathlib import Path

import numpy as np
import pytest

from fantasyid.core.errors import InvalidRequestError, UnreadableMeshError
from fantasyid.core.mesh_files import read_mesh, write_mesh

PLY = (
    b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    b"element face 1\nproperty list uchar int vertex_indices\nend_header\n"
)
TRIANGLES = np.array([[2, 1, 0], [3, 2, 0], [4, 0, 1]])


@pytest.fixture
def vertices() -> np.ndarray:
    """Awkward numbers: very small, a third, negative zero, and two vertices in one place."""
    points = np.random.default_rng(0).normal(0, 10, (6, 3)).astype(np.float32)
    points[1] = [1.2345678e-7, np.float32(1) / 3, -0.0]
    points[4] = points[2]
    return points


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".PLY"])
def test_round_trip_is_exact_and_keeps_the_order(tmp_path: Path, vertices: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"head{suffix}"
    write_mesh(path, vertices, TRIANGLES)
    again, triangles = read_mesh(path)
    assert again.dtype == np.float32
    assert np.array_equal(again, vertices)
    assert np.array_equal(triangles, TRIANGLES)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_texture_coordinates_of_other_programs_do_not_split_vertices(tmp_path: Path, vertices: np.ndarray) -> None:
    path = tmp_path / "head.obj"
    lines = ["mtllib head.mtl", "o Head", *(f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices[:5].tolist())]
    lines += ["vt 0 0", "vt 1 1", "vn 0 0 1", *(f"f {a + 1}/1/1 {b + 1}/2/1 {c + 1}/1/1" for a, b, c in TRIANGLES)]
    path.write_text("\n".join(lines) + "\n")
    again, triangles = read_mesh(path)
    assert np.array_equal(again, vertices[:5])
    assert np.array_equal(triangles, TRIANGLES)


def test_an_obj_with_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "head.obj"
    path.write_bytes(b"# \xff\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert read_mesh(path)[0].shape == (3, 3)
    path.write_bytes(path.read_bytes() + b"f 1 2 \xff\n")
    with pytest.raises(UnreadableMeshError, match=r"is not a \.obj mesh or is damaged"):
        read_mesh(path)


def test_materials_objects_and_groups_are_one_mesh_in_the_order_of_the_file(
    tmp_path: Path, vertices: np.ndarray
) -> None:
    path = tmp_path / "head.obj"
    lines = ["mtllib head.mtl", "o Skin", *(f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices.tolist())]
    lines += ["usemtl skin", "g face", "f 3/1/1 2/1/1 1/1/1", "usemtl hair", "s 1", "f 4//1 3//1 \\", "1//1"]
    lines += ["o Eye", "usemtl skin", "f 5 1 2"]
    path.write_text("\n".join(lines))
    again, triangles = read_mesh(path)
    assert np.array_equal(again, vertices)
    assert np.array_equal(triangles, TRIANGLES)


def test_a_file_that_was_there_is_replaced_whole(tmp_path: Path, vertices: np.ndarray) -> None:
    path = tmp_path / "head.ply"
    path.write_text("something else")
    write_mesh(path, vertices, TRIANGLES)
    assert np.array_equal(read_mesh(path)[0], vertices)


@pytest.mark.parametrize("name", ["head.stl", "head", "nowhere/head.ply"])
def test_names_that_cannot_be_written_are_refused(tmp_path: Path, vertices: np.ndarray, name: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"must end in \.ply or \.obj|does not exist"):
        write_mesh(tmp_path / name, vertices, TRIANGLES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.ply", None, "There is no file"),
        ("empty.ply", b"", "is not a .ply mesh or is damaged"),
        ("text.ply", b"hello", "is not a .ply mesh or is damaged"),
        ("text.obj", b"hello", "holds no triangle mesh"),
        ("points.obj", b"v 0 0 1\nv 1 1 1\n", "holds no triangle mesh"),
        ("flat.obj", b"v 0 0\nv 1 1\nv 0 1\nf 1 2 3\n", "vertices without x, y and z"),
        ("flat.ply", PLY.replace(b"property float z\n", b"") + b"0 0\n1 1\n0 1\n3 0 1 2\n", "damaged"),
        ("far.ply", PLY + b"0 0 1\n1 1 1\n0 1 1\n3 0 1 9\n", "do not index its 3 vertices"),
        ("zero.obj", b"v 0 0 1\nv 1 1 1\nv 0 1 1\nf 0 1 2\n", "the vertex 0, and the first one is 1"),
        ("wide.obj", b"v 0 0 1e99\nv 1 1 1\nv 0 1 1\nf 1 2 3\n", "not finite"),
        ("far.obj", b"v 0 0 1\nv 1 1 1\nv 0 1 1\nf 1 2 9\n", "damaged"),
        ("nan.obj", b"v 0 0 nan\nv 1 1 1\nv 0 1 1\nf 1 2 3\n", "not finite"),
    ],
)
def test_what_is_no_mesh_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableMeshError, match=message):
        read_mesh(tmp_path / name)


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_cut_files_never_read_as_another_mesh(tmp_path: Path, vertices: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"head{suffix}"
    write_mesh(path, vertices, TRIANGLES)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        try:
            _, triangles = read_mesh(path)
        except UnreadableMeshError:
            continue
        # A text file that ends early cannot be told from a smaller mesh: the topology's hash tells it.
        assert suffix == ".obj"
        assert not np.array_equal(triangles, TRIANGLES)
