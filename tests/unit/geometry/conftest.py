"""Small meshes and the packaged head."""

import numpy as np
import pytest

from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.topology import MeshTopology


@pytest.fixture(scope="session")
def head():
    return HeadModel.load()


@pytest.fixture(scope="session")
def octahedron():
    """Closed, counter-clockwise from outside: poles 0 (up) and 5 (down), equator 1-4 counter-clockwise from above."""
    ring = [1, 2, 3, 4]
    upper = [[0, a, b] for a, b in zip(ring, ring[1:] + ring[:1], strict=True)]
    lower = [[5, b, a] for _, a, b in upper]
    return MeshTopology(np.array(upper + lower), 6)


@pytest.fixture(scope="session")
def sphere():
    """An octahedron divided four times, on the unit sphere: vertices (1026, 3) and topology."""
    vertices = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, -1]], float)
    triangles = [[0, a, b] for a, b in ((1, 2), (2, 3), (3, 4), (4, 1))] + [
        [5, b, a] for a, b in ((1, 2), (2, 3), (3, 4), (4, 1))
    ]
    for _ in range(4):
        points, middle, finer = vertices.tolist(), {}, []

        def between(a, b, points=points, middle=middle):
            key = (min(a, b), max(a, b))
            if key not in middle:
                total = np.add(points[a], points[b])
                middle[key] = len(points)
                points.append((total / np.linalg.norm(total)).tolist())
            return middle[key]

        for a, b, c in triangles:
            ab, bc, ca = between(a, b), between(b, c), between(c, a)
            finer += [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
        vertices, triangles = np.array(points), finer
    return vertices, MeshTopology(np.array(triangles), len(vertices))


@pytest.fixture(scope="session")
def grid():
    """A flat square with a border, 6 x 6, seen from +z; vertex = 6 * row + column."""
    x, y = np.meshgrid(np.arange(6.0), np.arange(6.0))
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(36)], 1)
    corners = [6 * row + column for row in range(5) for column in range(5)]
    triangles = [t for v in corners for t in ([v, v + 1, v + 7], [v, v + 7, v + 6])]
    return vertices, MeshTopology(np.array(triangles), 36)
