"""Which part of the head each skin vertex belongs to, found from mesh and landmarks; used by the builder only."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from fantasyid.geometry.head_model import FACE_OVAL, INNER_LIPS, PART_NAMES
from fantasyid.geometry.projection import project, rotation_matrix
from fantasyid.geometry.raster import rasterise
from fantasyid.geometry.topology import MeshTopology

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_NOSE_TIP = 4
_EAR_TARGETS = ("flap", "lobe", "wing")
_EAR_MOVES_CM = 0.1
_VIEWS_DEG = tuple((yaw, pitch) for yaw in (-60, -30, 0, 30, 60) for pitch in (-40, 0, 40))


def label_parts(
    mean: FloatArray, triangles: IntArray, skin: NDArray[np.bool_], landmarks: IntArray, targets: dict[str, FloatArray]
) -> NDArray[np.uint8]:
    """Label the skin of the mean head.

    The face is the region that the face oval, drawn along mesh edges, cuts out around the nose, one ring wider. The
    mouth interior is what no outside view of the closed mouth shows and hangs together behind the lips. Ears are what
    the ear targets move. The neck lies below a plane from under the chin to the nape; the scalp is the rest.

    Args:
        mean: (N, 3) cm.
        triangles: (F, 3).
        skin: (N,) vertices to label; the others get label 0.
        landmarks: (478,) vertices.
        targets: Shape targets by name, (N, 3) each.

    Returns:
        (N,) index into `PART_NAMES`.
    """
    topology = MeshTopology(triangles, len(mean))
    ears = np.zeros(len(mean), bool)
    for name, offsets in targets.items():
        if name[1:].startswith("-ear-") and name.split("-")[2] in _EAR_TARGETS:
            ears |= np.linalg.norm(offsets, axis=1) > _EAR_MOVES_CM
    mouth = _mouth_interior(mean, triangles, topology, skin, landmarks)
    face = _face_region(mean, topology, landmarks)
    chin, ear_bottom = mean[landmarks[152]], mean[ears].min(0)
    # The plane falls from the base of the skull behind the ears to the chin; the face label goes before it.
    front, back = chin + np.array([0, 0.5, -1.0]), np.array([0, ear_bottom[1] - 2.0, ear_bottom[2] - 2.0])
    height = front[1] + (mean[:, 2] - front[2]) * (back[1] - front[1]) / (back[2] - front[2])
    parts = np.where(mean[:, 1] < height, PART_NAMES.index("neck"), PART_NAMES.index("scalp"))
    parts[ears] = PART_NAMES.index("ears")
    parts[face & ~ears] = PART_NAMES.index("face")
    parts[mouth] = PART_NAMES.index("mouth_interior")
    return np.where(skin, parts, 0).astype(np.uint8)


def _face_region(mean: FloatArray, topology: MeshTopology, landmarks: IntArray) -> NDArray[np.bool_]:
    first, second = topology.edges.T
    length = np.linalg.norm(mean[first] - mean[second], axis=1)
    weights = coo_matrix((length, (first, second)), shape=(len(mean),) * 2).tocsr()
    oval = landmarks[list(FACE_OVAL)]
    before = dijkstra(weights, directed=False, indices=oval, return_predecessors=True)[1]
    wall = np.zeros(len(mean), bool)
    for k, start in enumerate(oval):
        vertex = oval[(k + 1) % len(oval)]
        wall[vertex] = True
        while vertex != start:
            vertex = before[k, vertex]
            wall[vertex] = True
    region = _grow(landmarks[_NOSE_TIP], ~wall, topology)
    return _ring(region | wall, topology)


def _mouth_interior(
    mean: FloatArray, triangles: IntArray, topology: MeshTopology, skin: NDArray[np.bool_], landmarks: IntArray
) -> NDArray[np.bool_]:
    seen = np.zeros(len(mean), bool)
    shown = triangles[skin[triangles[:, 0]] | (mean[triangles[:, 0], 1] > -2)]
    vertices = torch.from_numpy(mean)[None].float()
    for yaw, pitch in _VIEWS_DEG:
        rotation = rotation_matrix(*torch.tensor([[float(yaw)], [float(pitch)], [0.0]]))
        pixels = project(vertices, rotation, torch.tensor([30.0]), torch.tensor([[450.0, 450.0]]))
        index, _ = rasterise(pixels, torch.from_numpy(shown), 900, 900)
        seen[shown[np.unique(index[index >= 0].numpy())]] = True
    lips = mean[landmarks[list(INNER_LIPS)]]
    hidden = ~seen & skin & (mean[:, 1] > lips[:, 1].min() - 3) & (mean[:, 1] < lips[:, 1].max() + 3)
    behind = np.flatnonzero(hidden & (mean[:, 2] < lips[:, 2].mean() - 0.5))
    start = behind[np.linalg.norm(mean[behind] - lips.mean(0), axis=1).argmin()]
    return _grow(start, hidden, topology)


def _grow(start: int, allowed: NDArray[np.bool_], topology: MeshTopology) -> NDArray[np.bool_]:
    """All allowed vertices that hang together with `start`."""
    region = np.zeros(len(allowed), bool)
    region[start] = True
    while True:
        wider = _ring(region, topology) & allowed
        if (wider == region).all():
            return region
        region = wider


def _ring(region: NDArray[np.bool_], topology: MeshTopology) -> NDArray[np.bool_]:
    """The region and its neighbours."""
    wider = region.copy()
    first, second = topology.edges.T
    wider[second[region[first]]] = True
    wider[first[region[second]]] = True
    return wider
