"""Which part of the head each skin vertex belongs to, found from mesh and landmarks; used by the builder only."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from fantasyid.geometry.head_model import FACE_OVAL, INNER_LIPS, PART_NAMES
from fantasyid.geometry.projection import project, rotation_matrix
from fantasyid.geometry.raster import rasterise, vertex_normals
from fantasyid.geometry.topology import MeshTopology

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_NOSE_TIP = 4
_EAR_TARGETS = ("flap", "lobe", "wing")
_EAR_MOVES_CM = 0.1
_VIEWS_DEG = tuple((yaw, pitch) for yaw in range(-180, 180, 30) for pitch in (-40, 0, 40))
_GRAZING = -0.2
_INTO_MOUTH = np.array([0.0, 0.0, 3.0])
_INTO_HEAD = np.array([0.0, 0.0, 2.5])


def label_parts(
    mean: FloatArray,
    triangles: IntArray,
    skin: NDArray[np.bool_],
    outer: NDArray[np.bool_],
    landmarks: IntArray,
    targets: dict[str, FloatArray],
) -> NDArray[np.uint8]:
    """Label the skin of the mean head.

    The face is the region that the face oval, drawn along mesh edges, cuts out around the nose, one ring wider. The
    mouth interior is what no outside view of the closed mouth shows and hangs together behind the lips, less one ring
    of lip. Ears are what the ear targets move. The neck lies below a plane from the chin to the nape. The scalp is the
    rest, and the skull behind the eyeballs, less two rings of lid.

    Args:
        mean: (N, 3) cm.
        triangles: (F, 3).
        skin: (N,) vertices to label; the others get label 0.
        outer: (N,) vertices that can be seen when the mouth is closed: skin and eyes.
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
    hidden = _cavities(mean, triangles, topology, outer)
    lips = mean[landmarks[list(INNER_LIPS)]].mean(0)
    mouth, *sockets = (
        _shrink(_pocket(_nearest(mean, hidden, place), hidden, landmarks[_NOSE_TIP], skin, topology), topology, rings)
        for place, rings in ((lips - _INTO_MOUTH, 1), *((eye - _INTO_HEAD, 2) for eye in mean[landmarks[[468, 473]]]))
    )
    face = _face_region(mean, topology, landmarks)
    chin, ear_bottom = mean[landmarks[152]], mean[ears].min(0)
    # The plane falls from the base of the skull behind the ears to the chin; the face label goes before it.
    front, back = chin + np.array([0, 0.5, -1.0]), np.array([0, ear_bottom[1] - 2.0, ear_bottom[2] - 2.0])
    height = front[1] + (mean[:, 2] - front[2]) * (back[1] - front[1]) / (back[2] - front[2])
    parts = np.where(mean[:, 1] < height, PART_NAMES.index("neck"), PART_NAMES.index("scalp"))
    parts[ears] = PART_NAMES.index("ears")
    parts[face & ~ears & ~sockets[0] & ~sockets[1]] = PART_NAMES.index("face")
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


def _cavities(
    mean: FloatArray, triangles: IntArray, topology: MeshTopology, outer: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Skin no more than one of many outside views shows, the lips being closed and the eyes in place."""
    vertices = torch.from_numpy(mean)[None].float()
    shown = triangles[outer[triangles[:, 0]]]
    views = np.zeros(len(mean), int)
    for yaw, pitch in _VIEWS_DEG:
        rotation = rotation_matrix(*torch.tensor([[float(yaw)], [float(pitch)], [0.0]]))
        pixels = project(vertices, rotation, torch.tensor([30.0]), torch.tensor([[450.0, 450.0]]))
        index, _ = rasterise(pixels, torch.from_numpy(shown), 900, 900)
        seen = np.zeros(len(mean), bool)
        seen[shown[np.unique(index[index >= 0].numpy())]] = True
        # A triangle at a slit also has corners that look away from the viewer, inside.
        towards_viewer = (vertex_normals(vertices, torch.from_numpy(triangles)) @ rotation.transpose(1, 2))[0, :, 2]
        views += seen & (towards_viewer.numpy() > _GRAZING)
    return np.asarray((views <= 1) & (topology.components == topology.components[shown[0, 0]]))


def _pocket(
    start: int, hidden: NDArray[np.bool_], outside: int, skin: NDArray[np.bool_], topology: MeshTopology
) -> NDArray[np.bool_]:
    """The hidden region around `start`, with what it cuts off from `outside`: places seen through a slit."""
    return np.asarray(skin & ~_grow(outside, ~_grow(start, hidden, topology), topology))


def _grow(start: int, allowed: NDArray[np.bool_], topology: MeshTopology) -> NDArray[np.bool_]:
    """All allowed vertices that hang together with `start`."""
    region = np.zeros(len(allowed), bool)
    region[start] = True
    while True:
        wider = _ring(region, topology) & allowed
        if (wider == region).all():
            return region
        region = wider


def _shrink(region: NDArray[np.bool_], topology: MeshTopology, rings: int) -> NDArray[np.bool_]:
    """The region without its outermost rings."""
    outside = ~region
    for _ in range(rings):
        outside = _ring(outside, topology)
    return ~outside


def _nearest(mean: FloatArray, allowed: NDArray[np.bool_], place: FloatArray) -> int:
    """The allowed vertex nearest to a place."""
    candidates = np.flatnonzero(allowed)
    return int(candidates[np.linalg.norm(mean[candidates] - place, axis=1).argmin()])


def _ring(region: NDArray[np.bool_], topology: MeshTopology) -> NDArray[np.bool_]:
    """The region and its neighbours."""
    wider = region.copy()
    first, second = topology.edges.T
    wider[second[region[first]]] = True
    wider[first[region[second]]] = True
    return wider
