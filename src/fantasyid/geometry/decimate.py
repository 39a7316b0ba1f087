"""A mesh at several resolutions: spirals on each level and barycentric maps between levels (paper section 3.3).

The built-in head goes N -> N/4 -> 314, as FLAME goes 5023 -> 1256 -> 314. Going down, a coarse vertex takes the value
of the fine vertex it is. Going up, a fine vertex takes the barycentric mean of the corners of the nearest coarse
triangle of its own connected component: an eye is never interpolated from a lid.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.core.npz_files import read_npz
from fantasyid.geometry.simplify import simplify
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
    up_index: tuple[IntArray, ...]
    """(N_l, 3) vertices of level l+1 that make up each vertex of level l."""
    up_weight: tuple[WeightArray, ...]
    """(N_l, 3) their weights, >= 0, sum 1."""

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
            arrays[f"up_index_{level}"] = self.up_index[level].astype(np.int32)
            arrays[f"up_weight_{level}"] = self.up_weight[level]
        np.savez_compressed(path, **arrays)

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
                "python -m fantasyid.geometry.build_head_model --out head_model.npz"
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
            up_index=tuple(arrays[f"up_index_{n}"].astype(np.int64) for n in steps),
            up_weight=tuple(arrays[f"up_weight_{n}"].astype(np.float32) for n in steps),
        )

    def _check(self, path: Path) -> None:
        counts = self.num_vertices
        for level, spirals in enumerate(self.spirals):
            _check_index(path, f"spirals_{level}", spirals, (counts[level], self.spirals[0].shape[1]), counts[level])
        for step, (fine, coarse) in enumerate(pairwise(counts)):
            for name, index, weight, rows, limit in (
                ("down", self.down_index[step], self.down_weight[step], coarse, fine),
                ("up", self.up_index[step], self.up_weight[step], fine, coarse),
            ):
                _check_index(path, f"{name}_index_{step}", index, (rows, 3), limit)
                if weight.shape != (rows, 3) or not (weight >= 0).all() or not np.allclose(weight.sum(1), 1, atol=1e-4):
                    raise CorruptWeightsError(f"{path}: {name}_weight_{step} has rows that are no means of 3 vertices")


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
    topologies, down_index, down_weight, up_index, up_weight = [topology], [], [], [], []
    for count in counts:
        kept, coarse = simplify(vertices, topologies[-1], count, importance)
        index, weight = closest_points(vertices, topologies[-1].components, vertices[kept], coarse)
        down_index.append(np.repeat(kept[:, None], 3, axis=1))
        down_weight.append(np.tile(np.array([[1, 0, 0]], np.float32), (count, 1)))
        up_index.append(index)
        up_weight.append(weight.astype(np.float32))
        topologies.append(coarse)
        vertices = vertices[kept]
        importance = None if importance is None else importance[kept]
    return MeshHierarchy(
        topologies=tuple(topologies),
        spirals=tuple(spiral_indices(level, spiral_length) for level in topologies),
        down_index=tuple(down_index),
        down_weight=tuple(down_weight),
        up_index=tuple(up_index),
        up_weight=tuple(up_weight),
    )


def closest_points(
    points: FloatArray, components: IntArray, vertices: FloatArray, topology: MeshTopology
) -> tuple[IntArray, FloatArray]:
    """Corners and barycentric weights of the nearest place on a mesh, within the same connected component.

    Args:
        points: (P, 3).
        components: (P,) component number of each point, numbered as `topology.components`.
        vertices: (N, 3) positions of the mesh.
        topology: Its connectivity.

    Returns:
        (P, 3) vertex indices and (P, 3) weights, >= 0, sum 1.
    """
    triangle_component = topology.components[topology.triangles[:, 0]]
    index, weights = np.empty((len(points), 3), np.int64), np.empty((len(points), 3))
    for component in np.unique(components):
        triangles = topology.triangles[triangle_component == component]
        corners = vertices[triangles]
        mine = np.flatnonzero(components == component)
        # A triangle that is at least as near as the nearest corner has its middle within `reach`: skip the others.
        middles = corners.mean(1)
        size = np.linalg.norm(corners - middles[:, None], axis=2).max()
        reach = cKDTree(corners.reshape(-1, 3)).query(points[mine])[0] + 1.001 * size
        candidates = cKDTree(middles).query_ball_point(points[mine], reach, return_sorted=True)
        for point, near in zip(mine, candidates, strict=True):
            barycentric = _closest_barycentric(points[point], corners[near])
            distance = np.linalg.norm(np.einsum("tc,tcd->td", barycentric, corners[near]) - points[point], axis=1)
            nearest = distance.argmin()
            index[point], weights[point] = triangles[near][nearest], barycentric[nearest]
    return index, weights


def _closest_barycentric(point: FloatArray, corners: FloatArray) -> FloatArray:
    """(T, 3) barycentric weights of the place nearest to `point` in each of the triangles `corners` (T, 3, 3)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    first, second, offset = b - a, c - a, point - a
    d11, d12, d22 = (first * first).sum(1), (first * second).sum(1), (second * second).sum(1)
    p1, p2 = (offset * first).sum(1), (offset * second).sum(1)
    area = np.maximum(d11 * d22 - d12 * d12, 1e-18)
    v, w = (d22 * p1 - d12 * p2) / area, (d11 * p2 - d12 * p1) / area
    inside = np.stack([1 - v - w, v, w], 1)
    options, costs = [inside], [np.where((inside >= 0).all(1), _distance(inside, corners, point), np.inf)]
    for start, end in ((0, 1), (1, 2), (2, 0)):
        edge = corners[:, end] - corners[:, start]
        share = ((point - corners[:, start]) * edge).sum(1) / np.maximum((edge * edge).sum(1), 1e-18)
        on_edge = np.zeros_like(inside)
        on_edge[:, end] = share.clip(0, 1)
        on_edge[:, start] = 1 - on_edge[:, end]
        options.append(on_edge)
        costs.append(_distance(on_edge, corners, point))
    best = np.stack(costs).argmin(0)
    return np.asarray(np.stack(options)[best, np.arange(len(corners))])


def _distance(weights: FloatArray, corners: FloatArray, point: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.norm(np.einsum("tc,tcd->td", weights, corners) - point, axis=1))
