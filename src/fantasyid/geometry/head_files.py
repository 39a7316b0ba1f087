"""Heads in mesh files: the vertices come with the hash of the file's own triangles, so another mesh is told apart."""

from pathlib import Path

import torch
from torch import Tensor

from fantasyid.core.errors import UnreadableMeshError
from fantasyid.core.mesh_files import read_mesh
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
    vertices, triangles = read_mesh(path)
    try:
        topology = MeshTopology(triangles, len(vertices))
    except ValueError as error:
        raise UnreadableMeshError(f"{path} is damaged ({error}); write it again.") from error
    return torch.from_numpy(vertices), topology.hash
