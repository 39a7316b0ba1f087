"""Triangle meshes in .ply and .obj files, vertices in their order: exact in .ply, to 16 decimals in .obj."""

from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from fantasyid.core.errors import InvalidRequestError, UnreadableMeshError
from fantasyid.core.output_files import write_together

MESH_SUFFIXES = (".ply", ".obj")
_OBJ_DECIMALS = 16  # float32 to the last bit for coordinates above 1e-7

# What trimesh raises on damaged, cut and foreign files.
_DAMAGED = (
    ValueError,
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
    suffix = _suffix(path)
    if not path.is_file():
        raise UnreadableMeshError(f"There is no file {path}; check the path of the mesh.")
    try:
        mesh = trimesh.load_mesh(path, file_type=suffix[1:], process=False, maintain_order=True, skip_materials=True)
    except _DAMAGED as error:
        raise UnreadableMeshError(f"{path} is not a {suffix} mesh or is damaged ({error}); write it again.") from error
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise UnreadableMeshError(f"{path} holds no single triangle mesh; write it with its triangles as one object.")
    vertices = np.asarray(mesh.vertices, np.float32)
    if not np.isfinite(vertices).all():
        raise UnreadableMeshError(f"{path} has vertices that are not finite numbers; write it again.")
    return vertices, np.asarray(mesh.faces, np.int64)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise InvalidRequestError(f"A mesh's name must end in {' or '.join(MESH_SUFFIXES)}, not {path.name!r}.")
    return suffix
