"""A mesh at several resolutions: spirals on each level and the way down from level to level (paper section 3.3).

The built-in head goes N -> N/4 -> 314, as FLAME goes 5023 -> 1256 -> 314. A coarse vertex takes the value of the fine
vertex it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.core.npz_files import read_npz
from fantasyid.core.output_files import write_together
from fantasyid.geometry.build.simplify import simplify
from fantasyid.geometry.spirals import spiral_indices
from fantasyid.geometry.topology import IntArray, MeshTopology

FloatArray = NDArray[np.float64]
WeightArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MeshHierarchy:
    """Levels of one mesh, finest first. Level l has N_l vertices."""

    topologies: tuple[MeshTopology, ...]
    """Connectivity of each level."""
    spirals: tuple[IntArray, ...]
    """(N_l, spiral length) of each level, see `spirals.spiral_indices`."""
    down_index: tuple[IntArray, ...]
    """(N_{l+1}, 3) vertices of level l that make up each vertex of level l+1."""
    down_weight: tuple[WeightArray, ...]
    """(N_{l+1}, 3) their weights, >= 0, sum 1; here (1, 0, 0)."""

    @property
    def topology_hash(self) -> str:
        """Hash of the finest level."""
        return self.topologies[0].hash

    @property
    def num_vertices(self) -> tuple[int, ...]:
        """N_l of every level."""
        return tuple(topology.num_vertices for topology in self.topologies)

    def save(self, path: Path) -> None:
        """Write an npz without pickle."""
        arrays: dict[str, Any] = {
            "num_vertices": np.array(self.num_vertices, np.int64),
            "topology_hashes": np.array([topology.hash for topology in self.topologies]),
        }
        for level, topology in enumerate(self.topologies):
            arrays[f"triangles_{level}"] = topology.triangles.astype(np.int32)
            arrays[f"spirals_{level}"] = self.spirals[level].astype(np.int32)
        for level in range(len(self.topologies) - 1):
            arrays[f"down_index_{level}"] = self.down_index[level].astype(np.int32)
            arrays[f"down_weight_{level}"] = self.down_weight[level]
        with write_together([path], overwrite=True) as (made,):
            np.savez_compressed(made, **arrays)

    @classmethod
    def load(cls, path: Path | None = None) -> MeshHierarchy:
        """Read and check a hierarchy.

        Args:
            path: The npz; None = that of the built-in head, which comes with the package.

        Raises:
            MissingWeightsError: There is no such file.
            CorruptWeightsError: The file is damaged, a level does not have the topology hash it states, or an index or
                weight is impossible.
        """
        path = Path(str(files("fantasyid") / "weights" / "head_hierarchy.npz")) if path is None else Path(path)
        if not path.is_file():
            raise MissingWeightsError(
                f"The mesh hierarchy {path} is missing; reinstall fantasyid or build it with: "
                "python -m fantasyid.geometry.build.head --out head_model.npz"
            )
        try:
            arrays = read_npz(path)
            hierarchy, hashes = cls._from_arrays(arrays), arrays["topology_hashes"].tolist()
        except (ValueError, KeyError) as error:
            raise CorruptWeightsError(f"{path} is not a mesh hierarchy ({error}); reinstall fantasyid") from error
        if [topology.hash for topology in hierarchy.topologies] != hashes:
            raise CorruptWeightsError(f"{path}: a level does not have the topology hash it states; reinstall fantasyid")
        hierarchy._check(path)
        return hierarchy

    @classmethod
    def _from_arrays(cls, arrays: dict[str, Any]) -> MeshHierarchy:
        counts = [int(count) for count in arrays["num_vertices"]]
        levels, steps = range(len(counts)), range(len(counts) - 1)
        return cls(
            topologies=tuple(MeshTopology(arrays[f"triangles_{n}"].astype(np.int64), counts[n]) for n in levels),
            spirals=tuple(arrays[f"spirals_{n}"].astype(np.int64) for n in levels),
            down_index=tuple(arrays[f"down_index_{n}"].astype(np.int64) for n in steps),
            down_weight=tuple(arrays[f"down_weight_{n}"].astype(np.float32) for n in steps),
        )

    def _check(self, path: Path) -> None:
        counts = self.num_vertices
        for level, spirals in enumerate(self.spirals):
            _check_index(path, f"spirals_{level}", spirals, (counts[level], self.spirals[0].shape[1]), counts[level])
        for step, (fine, coarse) in enumerate(pairwise(counts)):
            _check_index(path, f"down_index_{step}", self.down_index[step], (coarse, 3), fine)
            weight = self.down_weight[step]
            if weight.shape != (coarse, 3) or not (weight >= 0).all() or not np.allclose(weight.sum(1), 1, atol=1e-4):
                raise CorruptWeightsError(f"{path}: down_weight_{step} has rows that are no means of 3 vertices")


def _check_index(path: Path, name: str, index: IntArray, shape: tuple[int, int], limit: int) -> None:
    if index.shape != shape or index.min() < 0 or index.max() >= limit:
        raise CorruptWeightsError(f"{path}: {name} must have shape {shape} and index {limit} vertices")


def build_hierarchy(
    vertices: FloatArray,
    topology: MeshTopology,
    counts: tuple[int, ...],
    spiral_length: int,
    importance: FloatArray | None = None,
) -> MeshHierarchy:
    """Simplify a mesh level by level.

    Args:
        vertices: (N, 3) positions of the mean shape.
        topology: Its connectivity.
        counts: Vertices of each coarser level, falling.
        spiral_length: Vertices per spiral on every level.
        importance: (N,) see `simplify.simplify`.

    Returns:
        The hierarchy with len(counts) + 1 levels.

    Raises:
        ValueError: A count cannot be reached.
    """
    topologies, down_index, down_weight = [topology], [], []
    for count in counts:
        kept, coarse = simplify(vertices, topologies[-1], count, importance)
        down_index.append(np.repeat(kept[:, None], 3, axis=1))
        down_weight.append(np.tile(np.array([[1, 0, 0]], np.float32), (count, 1)))
        topologies.append(coarse)
        vertices = vertices[kept]
        importance = None if importance is None else importance[kept]
    return MeshHierarchy(
        topologies=tuple(topologies),
        spirals=tuple(spiral_indices(level, spiral_length) for level in topologies),
        down_index=tuple(down_index),
        down_weight=tuple(down_weight),
    )
