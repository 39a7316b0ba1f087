"""Triangle meshes in .ply and .obj files, vertices in their order: exact in .ply, to 16 decimals in .obj."""

import hashlib
import io
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from fantasyid.core.errors import InvalidRequestError, UnreadableMeshError
from fantasyid.core.output_files import write_together

MESH_SUFFIXES = (".ply", ".obj")
_OBJ_DECIMALS = 16  # float32 to the last bit for coordinates above 1e-7

# What trimesh raises on damaged, cut and foreign files, found by damaging some (tests/fuzz).
_DAMAGED = (
    ValueError,
    SyntaxError,
    NameError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    MemoryError,
)


def write_mesh(path: Path, vertices: NDArray[np.float32], triangles: NDArray[np.int64]) -> None:
    """Write a mesh; a file that was there is replaced when the new one is complete.

    Args:
        path: FILE.ply (binary) or FILE.obj (text), in a folder that exists.
        vertices: (N, 3).
        triangles: (F, 3) indices of vertices.

    Raises:
        InvalidRequestError: The name ends otherwise, or the folder does not exist.
    """
    suffix = _suffix(path)
    mesh = trimesh.Trimesh(vertices, triangles, process=False)
    options = {"digits": _OBJ_DECIMALS} if suffix == ".obj" else {}
    with write_together([path], overwrite=True) as (made,):
        mesh.export(made, file_type=suffix[1:], **options)


def read_mesh(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read a mesh without merging or reordering its vertices.

    Args:
        path: A .ply or .obj file with one triangle mesh.

    Returns:
        (N, 3) vertices and (F, 3) triangles.

    Raises:
        InvalidRequestError: The name ends otherwise.
        UnreadableMeshError: The file is missing, damaged, or holds no triangles.
    """
    vertices, triangles, _ = read_mesh_and_sha256(path)
    return vertices, triangles


def read_mesh_and_sha256(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64], str]:
    """Read a mesh as `read_mesh` does, and hash the very bytes that it was read from.

    Args:
        path: A .ply or .obj file with one triangle mesh.

    Returns:
        (N, 3) vertices, (F, 3) triangles, and the SHA-256 of the file's bytes in hexadecimal.

    Raises:
        InvalidRequestError: The name ends otherwise.
        UnreadableMeshError: The file is missing, damaged, or holds no triangles.
    """
    suffix = _suffix(path)
    if not path.is_file():
        raise UnreadableMeshError(f"There is no file {path}; check the path of the mesh.")
    content = path.read_bytes()
    try:
        mesh = trimesh.load_mesh(
            io.StringIO(_obj_shape(content)) if suffix == ".obj" else io.BytesIO(content),
            file_type=suffix[1:],
            process=False,
            maintain_order=True,
            skip_materials=True,
        )
    except _DAMAGED as error:
        reason = ascii(str(error)[:200])[1:-1]
        raise UnreadableMeshError(f"{path} is not a {suffix} mesh or is damaged ({reason}); write it again.") from error
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise UnreadableMeshError(f"{path} holds no triangle mesh; write it with its triangles.")
    vertices, triangles = np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int64)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise UnreadableMeshError(f"{path} has vertices without x, y and z; write it again, with three numbers each.")
    if triangles.ndim != 2 or triangles.shape[1] != 3 or triangles.min() < 0 or triangles.max() >= len(vertices):
        raise UnreadableMeshError(
            f"{path} has triangles that do not index its {len(vertices)} vertices; write it again."
        )
    if not (np.abs(vertices) <= np.finfo(np.float32).max).all():
        raise UnreadableMeshError(f"{path} has vertices that are not finite numbers; write it again.")
    return vertices.astype(np.float32), triangles, hashlib.sha256(content).hexdigest()


def _obj_shape(content: bytes) -> str:
    """The lines of an .obj that give its shape, without what makes trimesh split it: materials, groups and textures.

    They are text already: for bytes that are no UTF-8 trimesh would guess an encoding, by a package of its own choice.
    """
    lines = [line.split() for line in content.replace(b"\\\n", b" ").splitlines()]
    shape = [words for words in lines if words[:1] in ([b"v"], [b"f"])]
    corners = [[word.partition(b"/")[0] for word in words] for words in shape]
    if any(b"0" in words for words in corners if words[0] == b"f"):
        raise ValueError("a face has the vertex 0, and the first one is 1")
    return b"\n".join(b" ".join(words) for words in corners).decode("ascii")


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise InvalidRequestError(f"A mesh's name must end in {' or '.join(MESH_SUFFIXES)}, not {path.name!r}.")
    return suffix
