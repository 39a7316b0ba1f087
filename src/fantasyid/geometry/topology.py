"""Triangle-mesh connectivity: the hash that names a topology, edges, boundary, and ordered rings of neighbours."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MeshTopology:
    """Connectivity of a triangle mesh, without positions.

    Conventions: triangles are counter-clockwise seen from outside. The mesh may have borders and several connected
    components; a vertex without triangles has no neighbours.

    Args:
        triangles: (F, 3) vertex indices in 0..num_vertices-1, three different ones per triangle.
        num_vertices: Number of vertices N.

    Raises:
        ValueError: The shape, the range or a triangle is not as stated.
    """

    triangles: IntArray
    num_vertices: int

    def __post_init__(self) -> None:
        triangles = np.array(self.triangles, dtype=np.int64)
        if triangles.ndim != 2 or triangles.shape[1] != 3:
            raise ValueError(f"triangles must have shape (F, 3), not {triangles.shape}")
        if len(triangles) and (triangles.min() < 0 or triangles.max() >= self.num_vertices):
            raise ValueError(f"triangles must index 0..{self.num_vertices - 1}")
        if (triangles == np.roll(triangles, 1, axis=1)).any():
            raise ValueError("a triangle names one vertex twice")
        triangles.flags.writeable = False
        object.__setattr__(self, "triangles", triangles)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the vertex count and the triangles, whatever their order and their first corner."""
        first = self.triangles.argmin(axis=1)[:, None]
        rotated = np.take_along_axis(self.triangles, (first + np.arange(3)) % 3, axis=1)
        ordered = rotated[np.lexsort(rotated.T[::-1])]
        return sha256(np.array([self.num_vertices], "<i8").tobytes() + ordered.astype("<i8").tobytes()).hexdigest()

    @cached_property
    def edges(self) -> IntArray:
        """(E, 2) undirected edges, each once, smaller index first, sorted."""
        return np.unique(np.sort(self._half_edges, axis=1), axis=0)

    @cached_property
    def boundary_edges(self) -> IntArray:
        """(B, 2) edges that belong to exactly one triangle, directed as in that triangle."""
        half = self._half_edges
        _, inverse, count = np.unique(np.sort(half, axis=1), axis=0, return_inverse=True, return_counts=True)
        return np.asarray(half[count[inverse.reshape(-1)] == 1])

    @cached_property
    def components(self) -> IntArray:
        """(N,) number of each vertex's connected component; components are numbered by their smallest vertex."""
        label = np.arange(self.num_vertices)
        first, second = self.edges.T
        while True:
            smallest = np.minimum(label[first], label[second])
            merged = label.copy()
            np.minimum.at(merged, first, smallest)
            np.minimum.at(merged, second, smallest)
            merged = merged[merged]
            if (merged == label).all():
                number: IntArray = np.unique(label, return_inverse=True)[1].reshape(-1)
                return number
            label = merged

    @cached_property
    def rings(self) -> tuple[tuple[int, ...], ...]:
        """Neighbours of every vertex, counter-clockwise seen from outside.

        An inner vertex's ring starts at its smallest neighbour. At a border the ring is an open fan and starts at the
        fan's clockwise end. Where several fans meet in one vertex, closed ones come first, then by first neighbour.
        """
        successors: list[dict[int, int]] = [{} for _ in range(self.num_vertices)]
        for a, b, c in self.triangles.tolist():
            successors[a][b] = c
            successors[b][c] = a
            successors[c][a] = b
        return tuple(_ordered_ring(successor) for successor in successors)

    @property
    def _half_edges(self) -> IntArray:
        return np.concatenate([self.triangles[:, [0, 1]], self.triangles[:, [1, 2]], self.triangles[:, [2, 0]]])


def _ordered_ring(successor: dict[int, int]) -> tuple[int, ...]:
    """Chain the neighbours of one vertex: `successor[p]` follows p counter-clockwise."""
    remaining = dict(successor)
    starts = sorted(set(successor) - set(successor.values()))
    fans = [(True, _walk(start, remaining)) for start in starts]
    while remaining:
        fans.append((False, _walk(min(remaining), remaining)))
    return tuple(dict.fromkeys(vertex for _, fan in sorted(fans) for vertex in fan))


def _walk(start: int, remaining: dict[int, int]) -> list[int]:
    fan = [start]
    while fan[-1] in remaining:
        following = remaining.pop(fan[-1])
        if following == start:
            break
        fan.append(following)
    return fan
