"""Spiral orderings of mesh vertices (SpiralNet++, Gong et al. 2019; paper section 3.3).

A spiral starts at its centre and goes outwards ring by ring, each ring counter-clockwise seen from outside. It depends
on the connectivity alone, and so is the same for every head of one topology and in every run.
"""

import numpy as np
from numpy.typing import NDArray

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
        ValueError: `length` is below 1.
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
            start = ring.index(parent[vertex])
            for neighbour in ring[start:] + ring[:start]:
                if neighbour not in spiral:
                    spiral[neighbour] = None
                    parent[neighbour] = vertex
                    outer.append(neighbour)
        current = outer
    ordered = list(spiral)[:length]
    return ordered + [centre] * (length - len(ordered))
