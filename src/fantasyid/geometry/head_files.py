"""Heads in mesh files: the vertices come with the hash of the file's own triangles, so another mesh is told apart."""

from pathlib import Path

import torch
from torch import Tensor

from fantasyid.core.errors import UnreadableMeshError
from fantasyid.core.mesh_files import read_mesh_and_sha256
from fantasyid.geometry.topology import MeshTopology


def read_head(path: Path) -> tuple[Tensor, str]:
    """Read a head.

    Args:
        path: A .ply or .obj file such as `fantasyid edit` and `fantasyid face inspect` write; cm, head space.

    Returns:
        (N, 3) float32 vertices and the hash of their topology.

    Raises:
        InvalidRequestError: The file's name has another ending.
        UnreadableMeshError: The file is missing, damaged, or not one triangle mesh.
    """
    vertices, topology_hash, _ = read_head_and_sha256(path)
    return vertices, topology_hash


def read_head_and_sha256(path: Path) -> tuple[Tensor, str, str]:
    """Read a head as `read_head` does, and hash the very bytes that it was read from.

    Args:
        path: A .ply or .obj file.

    Returns:
        (N, 3) float32 vertices, the hash of their topology, and the SHA-256 of the file's bytes in hexadecimal.

    Raises:
        InvalidRequestError: The file's name has another ending.
        UnreadableMeshError: The file is missing, damaged, or not one triangle mesh.
    """
    vertices, triangles, sha256 = read_mesh_and_sha256(path)
    try:
        topology = MeshTopology(triangles, len(vertices))
    except ValueError as error:
        raise UnreadableMeshError(f"{path} is damaged ({error}); write it again.") from error
    return torch.from_numpy(vertices), topology.hash, sha256
