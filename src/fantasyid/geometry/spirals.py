"""Spiral orderings of mesh vertices (SpiralNet++, Gong et al. 2019; paper section 3.3).

A spiral starts at its centre and goes outwards ring by ring, each ring counter-clockwise seen from outside. It depends
on the connectivity alone, and so is the same for every head of one topology and in every run.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from fantasyid.geometry.topology import MeshTopology


def spiral_indices(topology: MeshTopology, length: int) -> NDArray[np.int64]:
    """Order the surroundings of every vertex.

    The first ring starts at the smallest neighbour, at a border at the clockwise end of the fan. A connected component
    with fewer than `length` vertices is padded by repeating the centre, so every index is valid.

    Args:
        topology: The mesh; borders and several components are fine.
        length: Vertices per spiral, the centre included, >= 1.

    Returns:
        (N, length) vertex indices; column 0 is the vertex itself.

    Raises:
        ValueError: `length` is below 1, or two triangles run along an edge in one direction, so that a ring breaks.
    """
    if length < 1:
        raise ValueError(f"a spiral has at least 1 vertex, not {length}")
    return np.array([_spiral(topology.rings, v, length) for v in range(topology.num_vertices)], np.int64).reshape(
        -1, length
    )


def _spiral(rings: tuple[tuple[int, ...], ...], centre: int, length: int) -> list[int]:
    spiral = {centre: None, **dict.fromkeys(rings[centre])}
    parent = dict.fromkeys(rings[centre], centre)
    current = list(rings[centre])
    while current and len(spiral) < length:
        outer: list[int] = []
        for vertex in current:
            ring = rings[vertex]
            # Counter-clockwise from the inner neighbour, the outer ones follow in the order of the spiral.
            if parent[vertex] not in ring:
                raise ValueError(f"the triangles around the vertex {vertex} do not agree on which side is outside")
            start = ring.index(parent[vertex])
            for neighbour in ring[start:] + ring[:start]:
                if neighbour not in spiral:
                    spiral[neighbour] = None
                    parent[neighbour] = vertex
                    outer.append(neighbour)
        current = outer
    ordered = list(spiral)[:length]
    return ordered + [centre] * (length - len(ordered))


def released_spiral_indices(topology: MeshTopology, positions: NDArray[np.float64], length: int) -> NDArray[np.int64]:
    """Order the surroundings of every vertex as the released checkpoint was trained with.

    Its spirals are those of SpiralNet++'s code over OpenMesh, so they run clockwise seen from outside, and depend on
    the order in which the triangles are listed: the first ring starts at the corner that follows the vertex in its last
    triangle, at a border at the counter-clockwise end of the fan. A vertex whose component ends before the spiral does
    gets the vertices nearest in space instead.

    Args:
        topology: A manifold mesh; borders and several components are fine.
        positions: (N, 3), for the vertices nearest in space.
        length: Vertices per spiral, the centre included, 1..N.

    Returns:
        (N, length) vertex indices; column 0 is the vertex itself.

    Raises:
        ValueError: The mesh is not manifold: the order is not defined.
    """
    triangles = topology.triangles
    half_edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    fans = np.bincount(topology.boundary_edges[:, 0], minlength=topology.num_vertices)
    if len(np.unique(half_edges, axis=0)) != len(half_edges) or fans.max(initial=0) > 1:
        raise ValueError("the mesh is not manifold, so the released checkpoint's spirals are not defined on it")
    first = np.full(topology.num_vertices, -1)
    first[triangles.reshape(-1)] = np.roll(triangles, -1, axis=1).reshape(-1)  # the last triangle's value stays
    rings = [
        _from(ring[::-1], -1 if fan else start) for ring, fan, start in zip(topology.rings, fans, first, strict=True)
    ]
    tree = KDTree(positions)
    spirals = []
    for centre in range(topology.num_vertices):
        spiral, ring = [centre, *rings[centre]], list(rings[centre])
        following = _next_ring(rings, ring, {*spiral})
        while following and len(spiral) + len(following) < length:
            spiral, ring = spiral + following, following
            following = _next_ring(rings, ring, {*spiral})
        spirals.append((spiral + following)[:length] if following else tree.query(positions[centre], length)[1])
    return np.array(spirals, np.int64).reshape(-1, length)


def _from(ring: tuple[int, ...], start: int) -> tuple[int, ...]:
    """Turn a closed ring so that it begins at `start`; an open one (-1) stays."""
    begin = ring.index(start) if start >= 0 else 0
    return ring[begin:] + ring[:begin]


def _next_ring(rings: list[tuple[int, ...]], ring: list[int], inside: set[int]) -> list[int]:
    """Vertices around those of `ring` that are not yet `inside`, in the order in which they are met."""
    found: dict[int, None] = {}
    for vertex in ring:
        around = rings[vertex]
        begin = next((place for place, neighbour in enumerate(around) if neighbour in ring), 0)
        for neighbour in around[begin:] + around[:begin]:
            if neighbour not in inside:
                found[neighbour] = None
    return list(found)
