"""Simplify a mesh by quadric-error edge collapse (Garland and Heckbert 1997) onto a subset of its vertices.

An edge collapses onto one of its ends, so coarse vertices are fine vertices and need no new positions. Every connected
component survives with at least one triangle; components are never joined; borders stay borders; no triangle flips.
"""

import heapq

import numpy as np
from numpy.typing import NDArray

from fantasyid.geometry.topology import IntArray, MeshTopology

FloatArray = NDArray[np.float64]

_SMALLEST_NORMAL_COSINE = 0.2
_TIE_BREAK = 1e-6  # flat regions cost nothing: then the shorter edge goes first


def simplify(
    vertices: FloatArray, topology: MeshTopology, target: int, importance: FloatArray | None = None
) -> tuple[IntArray, MeshTopology]:
    """Keep `target` vertices of a mesh.

    Args:
        vertices: (N, 3) positions.
        topology: Connectivity of the N vertices; every vertex belongs to a triangle.
        target: Number of vertices to keep, 1..N.
        importance: (N,) positive factor on the error a vertex leaves behind when it goes; None = 1 everywhere.

    Returns:
        (target,) kept vertices in ascending order, and the topology of the coarse mesh in that order.

    Raises:
        ValueError: The target cannot be reached without breaking the mesh.
    """
    importance = np.ones(len(vertices)) if importance is None else importance
    collapse = _Collapse(vertices, topology, importance)
    heap: list[tuple[float, int, int, int]] = []
    kept_before = collapse.num_kept + 1
    while collapse.num_kept > target:
        if not heap:
            # An edge refused once may be allowed now that its surroundings have changed: offer all of them anew.
            if collapse.num_kept == kept_before:
                raise ValueError(f"the mesh cannot be simplified to {target} vertices; {kept_before} must stay")
            kept_before = collapse.num_kept
            heap = [candidate for edge in collapse.edges() for candidate in collapse.candidates(*edge)]
            heapq.heapify(heap)
        _, leaving, staying, stamp = heapq.heappop(heap)
        if stamp != collapse.stamp(leaving, staying) or not collapse.allowed(leaving, staying):
            continue
        collapse.apply(leaving, staying)
        for neighbour in sorted(collapse.neighbours(staying)):
            for candidate in collapse.candidates(staying, neighbour):
                heapq.heappush(heap, candidate)
    kept = np.flatnonzero([bool(own) for own in collapse.triangles_of])
    triangles = np.array(sorted(collapse.triangles.values()), np.int64)
    return kept, MeshTopology(np.searchsorted(kept, triangles), len(kept))


class _Collapse:
    """The mesh while it shrinks: triangles by number, and which triangles each vertex has."""

    def __init__(self, vertices: FloatArray, topology: MeshTopology, importance: FloatArray) -> None:
        self.vertices = vertices
        self.homogeneous = np.pad(vertices, ((0, 0), (0, 1)), constant_values=1.0)
        self.importance = importance
        self.triangles: dict[int, tuple[int, int, int]] = {
            number: (a, b, c) for number, (a, b, c) in enumerate(topology.triangles.tolist())
        }
        self.triangles_of: list[set[int]] = [set() for _ in range(len(vertices))]
        for number, corners in self.triangles.items():
            for corner in corners:
                self.triangles_of[corner].add(number)
        if not all(self.triangles_of):
            raise ValueError("every vertex must belong to a triangle")
        self.num_kept = len(vertices)
        self.changes = [0] * len(vertices)
        self.quadrics = _quadrics(vertices, topology)

    def neighbours(self, vertex: int) -> set[int]:
        return {corner for number in self.triangles_of[vertex] for corner in self.triangles[number]} - {vertex}

    def edges(self) -> list[tuple[int, int]]:
        return [(v, other) for v in range(len(self.vertices)) for other in sorted(self.neighbours(v)) if v < other]

    def stamp(self, first: int, second: int) -> int:
        """Changes whenever one of the two vertices takes part in a collapse."""
        return self.changes[first] + self.changes[second]

    def candidates(self, first: int, second: int) -> list[tuple[float, int, int, int]]:
        """Both directions of an edge as (cost, leaving, staying, stamp)."""
        total = self.quadrics[first] + self.quadrics[second]
        gap = float(((self.vertices[first] - self.vertices[second]) ** 2).sum())
        found = []
        for leaving, staying in ((first, second), (second, first)):
            point = self.homogeneous[staying]
            cost = (max(float(point @ total @ point), 0.0) + _TIE_BREAK * gap) * float(self.importance[leaving])
            found.append((cost, leaving, staying, self.stamp(first, second)))
        return found

    def allowed(self, leaving: int, staying: int) -> bool:
        """Whether the collapse keeps a manifold with the same borders and components, and flips no triangle."""
        shared = self.triangles_of[leaving] & self.triangles_of[staying]
        moved = self.triangles_of[leaving] - shared
        if not shared or not moved:
            return False
        opposite = {corner for number in shared for corner in self.triangles[number]} - {leaving, staying}
        if self.neighbours(leaving) & self.neighbours(staying) != opposite:
            return False
        if self._on_border(leaving) and len(shared) != 1:
            return False
        present = {frozenset(self.triangles[number]) for number in self.triangles_of[staying]}
        for number in moved:
            corners = self.triangles[number]
            replaced = tuple(staying if corner == leaving else corner for corner in corners)
            if frozenset(replaced) in present:
                return False
            before, after = self._normal(corners), self._normal(replaced)
            if (
                before @ after < _SMALLEST_NORMAL_COSINE * np.linalg.norm(before) * np.linalg.norm(after)
                or not after.any()
            ):
                return False
        return True

    def apply(self, leaving: int, staying: int) -> None:
        for number in self.triangles_of[leaving] & self.triangles_of[staying]:
            for corner in self.triangles.pop(number):
                self.triangles_of[corner].discard(number)
        for number in self.triangles_of[leaving]:
            a, b, c = (staying if corner == leaving else corner for corner in self.triangles[number])
            self.triangles[number] = (a, b, c)
        self.triangles_of[staying] |= self.triangles_of[leaving]
        self.triangles_of[leaving] = set()
        self.quadrics[staying] += self.quadrics[leaving]
        self.num_kept -= 1
        self.changes[leaving] += 1
        self.changes[staying] += 1

    def _on_border(self, vertex: int) -> bool:
        return len(self.neighbours(vertex)) != len(self.triangles_of[vertex])

    def _normal(self, corners: tuple[int, ...]) -> FloatArray:
        a, b, c = self.vertices[list(corners)]
        (ux, uy, uz), (vx, vy, vz) = (b - a).tolist(), (c - a).tolist()
        # np.cross takes half of the whole run for single vectors.
        return np.array([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx])


def _quadrics(vertices: FloatArray, topology: MeshTopology) -> FloatArray:
    """(N, 4, 4) sums of squared distances to the planes of the triangles, weighted by area, and to walls on borders."""
    corners = vertices[topology.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    double_area = np.linalg.norm(normal, axis=1, keepdims=True)
    unit = normal / np.maximum(double_area, 1e-12)
    quadrics = np.zeros((len(vertices), 4, 4))
    faces = _plane_quadrics(unit, corners[:, 0], double_area[:, 0] / 2)
    for corner in range(3):
        np.add.at(quadrics, topology.triangles[:, corner], faces)
    border = topology.boundary_edges
    if len(border):
        owner = {
            (a, b): n for n, t in enumerate(topology.triangles.tolist()) for a, b in zip(t, t[1:] + t[:1], strict=True)
        }
        edge = vertices[border[:, 1]] - vertices[border[:, 0]]
        wall = np.cross(edge, unit[[owner[a, b] for a, b in border.tolist()]])
        length = np.linalg.norm(wall, axis=1, keepdims=True)
        walls = _plane_quadrics(wall / np.maximum(length, 1e-12), vertices[border[:, 0]], length[:, 0] ** 2)
        for end in range(2):
            np.add.at(quadrics, border[:, end], walls)
    return quadrics


def _plane_quadrics(normal: FloatArray, point: FloatArray, weight: FloatArray) -> FloatArray:
    plane = np.concatenate([normal, -(normal * point).sum(1, keepdims=True)], axis=1)
    return np.asarray(weight[:, None, None] * plane[:, :, None] * plane[:, None, :])
