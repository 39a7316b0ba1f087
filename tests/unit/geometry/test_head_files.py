from pathlib import Path

import numpy as np
import pytest

from fantasyid.core.errors import UnreadableMeshError
from fantasyid.core.mesh_files import write_mesh
from fantasyid.geometry.head_files import read_head
from fantasyid.geometry.head_model import HeadModel


@pytest.mark.parametrize(("suffix", "tolerance"), [(".ply", 0.0), (".obj", 1e-16)])
def test_a_written_head_comes_back_with_its_topology(
    tmp_path: Path, head: HeadModel, suffix: str, tolerance: float
) -> None:
    path = tmp_path / f"head{suffix}"
    write_mesh(path, head.mean.numpy(), head.triangles.numpy())
    vertices, topology_hash = read_head(path)
    assert (vertices - head.mean).abs().max() <= tolerance
    assert topology_hash == head.topology.hash


def test_another_mesh_of_as_many_vertices_has_another_hash(tmp_path: Path, head: HeadModel) -> None:
    write_mesh(tmp_path / "head.ply", head.mean.numpy(), head.triangles.numpy()[:-1])
    assert read_head(tmp_path / "head.ply")[1] != head.topology.hash


def test_degenerate_triangles_are_damage(tmp_path: Path) -> None:
    write_mesh(tmp_path / "flat.obj", np.eye(3, dtype=np.float32), np.array([[0, 1, 1]]))
    with pytest.raises(UnreadableMeshError, match="names one vertex twice"):
        read_head(tmp_path / "flat.obj")
