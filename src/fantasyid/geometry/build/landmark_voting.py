"""Which head vertex each MediaPipe landmark lies on, found by running the detector on renders of random heads.

Only the builder of the head model uses this; it needs the extra `build`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from fantasyid.core.optional import require
from fantasyid.geometry.projection import project, rotation_matrix
from fantasyid.geometry.raster import interpolate, rasterise, vertex_normals

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SIZE = 320
_PIXELS_PER_CM = 12.0
_REACH_PIXELS = 6.0
_FIRST_RENDERS = 16
_RENDERS = 64
_LOWEST_VOTES = 16
_LIP_DEPTH_CM = 1.5
_SKIN, _DARK, _LIPS = (0.80, 0.62, 0.52), (0.22, 0.15, 0.11), (0.66, 0.36, 0.34)
_EYE_WHITE, _IRIS, _PUPIL = (0.93, 0.93, 0.93), (0.27, 0.19, 0.12), (0.02, 0.02, 0.02)
_BROWS = ((46, 53, 52, 65, 55, 107, 66, 105, 63, 70), (276, 283, 282, 295, 285, 336, 296, 334, 293, 300))
_OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)


@dataclass(frozen=True, eq=False)
class PaintedHead:
    """What is rendered for the detector."""

    mean: FloatArray
    """(N, 3) cm, the average identity; the mouth may be open."""
    modes: FloatArray
    """(K, N, 3) cm per sigma."""
    triangles: IntArray
    """(F, 3) of skin and eyes only."""
    skin: NDArray[np.bool_]
    """(N,) vertices that may carry landmarks 0-467."""
    eyes: tuple[IntArray, IntArray]
    """Vertices of the eyeball at x < 0 and of the one at x > 0, which may carry 468-472 and 473-477."""


def vote_landmarks(head: PaintedHead, generator: torch.Generator) -> tuple[FloatArray, FloatArray]:
    """Where the 478 landmarks lie on `head.mean`.

    A first round on bare skin finds brows and lips; a second round, with these painted, decides.

    Args:
        head: The head to render.
        generator: Source of the random heads and poses.

    Returns:
        (478, 3) cm median position on the surface, and (478,) cm median distance of the votes from it.

    Raises:
        RuntimeError: The detector found too few of the renders to place every landmark.
    """
    colour = _base_colour(head)
    votes = _collect(head, colour, _FIRST_RENDERS, generator)
    middle = np.stack([np.median(vote, axis=0) if len(vote) else np.full(3, np.inf) for vote in votes])
    for brow in _BROWS:
        colour[head.skin & _inside(middle[list(brow)], head.mean)] = _DARK
    in_mouth = head.skin & _inside(middle[list(_OUTER_LIPS)], head.mean)
    front = head.mean[:, 2] > middle[list(_OUTER_LIPS), 2].min() - _LIP_DEPTH_CM
    colour[in_mouth & front] = _LIPS
    colour[in_mouth & ~front] = _DARK
    votes = _collect(head, colour, _RENDERS, generator)
    fewest = min(len(vote) for vote in votes)
    if fewest < _LOWEST_VOTES:
        raise RuntimeError(f"a landmark was seen on {fewest} renders only; {_LOWEST_VOTES} are needed")
    position = np.stack([np.median(vote, axis=0) for vote in votes])
    spread = [float(np.median(np.linalg.norm(vote - p, axis=1))) for vote, p in zip(votes, position, strict=True)]
    return position, np.array(spread)


def _base_colour(head: PaintedHead) -> NDArray[np.float32]:
    """Skin, and eyes with iris and pupil by their angle from straight ahead."""
    colour = np.full((len(head.mean), 3), _SKIN, np.float32)
    for eye in head.eyes:
        offset = head.mean[eye] - (head.mean[eye].max(0) + head.mean[eye].min(0)) / 2
        angle = np.arccos(np.clip(offset[:, 2] / np.linalg.norm(offset, axis=1), -1, 1))
        colour[eye] = np.select([angle[:, None] < 0.25, angle[:, None] < 0.6], [_PUPIL, _IRIS], _EYE_WHITE)
    return colour


def _inside(polygon: FloatArray, points: FloatArray) -> NDArray[np.bool_]:
    """Points inside a polygon in the x-y plane, by the even-odd rule."""
    x, y = points[:, 0:1], points[:, 1:2]
    (ax, ay), (bx, by) = polygon[:, :2].T, np.roll(polygon[:, :2], -1, axis=0).T
    crosses = ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / np.where(by == ay, 1.0, by - ay) + ax)
    return np.asarray(crosses.sum(1) % 2 == 1)


def _collect(
    head: PaintedHead, colour: NDArray[np.float32], renders: int, generator: torch.Generator
) -> list[FloatArray]:
    """For every landmark the points of `head.mean` (n, 3) that lie under it in the renders where a face was found."""
    detector = require("mediapipe", "build", "place face landmarks on the head").solutions.face_mesh.FaceMesh(
        static_image_mode=True, refine_landmarks=True, max_num_faces=1, min_detection_confidence=0.2
    )
    mean, modes = torch.from_numpy(head.mean).float(), torch.from_numpy(head.modes).float()
    triangles, colours = torch.from_numpy(head.triangles), torch.from_numpy(colour)
    is_skin = head.skin[head.triangles[:, 0]]
    votes: list[list[FloatArray]] = [[] for _ in range(478)]
    for _ in range(renders):
        vertices = mean + 0.8 * torch.einsum("k,knd->nd", torch.randn(len(modes), generator=generator), modes)
        yaw, pitch = torch.randn(2, 1, generator=generator) * torch.tensor([[10.0], [5.0]])
        image, triangle_index, weights = _render(vertices, triangles, colours, yaw, pitch)
        found = _detect(detector, image)
        if found is None:
            continue
        shown = triangle_index.numpy()
        for first, last, wanted in ((0, 468, is_skin), (468, 478, ~is_skin)):
            pixels = np.argwhere((shown >= 0) & wanted[shown])
            distance, nearest = cKDTree(pixels).query(found[first:last, ::-1])
            rows, columns = pixels[nearest].T
            corners = triangles[triangle_index[rows, columns]]
            points = (mean[corners] * weights[rows, columns][..., None]).sum(1).double().numpy()
            for k in np.flatnonzero(distance < _REACH_PIXELS):
                votes[first + k].append(points[k])
    detector.close()
    return [np.array(vote).reshape(-1, 3) for vote in votes]


def _render(
    vertices: Tensor, triangles: Tensor, colour: Tensor, yaw: Tensor, pitch: Tensor
) -> tuple[FloatArray, Tensor, Tensor]:
    """Shaded picture (H, W, 3) in 0..1, and triangle and barycentric weights per pixel."""
    rotation = rotation_matrix(yaw, pitch, torch.zeros(1))
    # The face, not the eyes, sits in the middle of the picture.
    pixels = project(
        vertices[None], rotation, torch.tensor([_PIXELS_PER_CM]), torch.tensor([[_SIZE / 2, _SIZE * 0.42]])
    )
    triangle_index, weights = rasterise(pixels, triangles, _SIZE, _SIZE)
    normals = vertex_normals(vertices[None], triangles) @ rotation.transpose(1, 2)
    surface = interpolate(torch.cat([colour, normals[0]], 1), triangles, triangle_index, weights)[0]
    light = torch.nn.functional.normalize(torch.tensor([0.3, 0.5, 1.0]), dim=0)
    normal = torch.nn.functional.normalize(surface[..., 3:] + 1e-6, dim=-1)
    image = surface[..., :3] * (0.45 + 0.6 * (normal @ light).clamp(min=0))[..., None]
    image[triangle_index[0] < 0] = 0.85
    return image.clamp(0, 1).double().numpy(), triangle_index[0], weights[0]


def _detect(detector: Any, image: FloatArray) -> FloatArray | None:
    """Pixel positions (478, 2) of the landmarks, or None where no face was found."""
    faces = detector.process(np.ascontiguousarray((image * 255).round().astype(np.uint8))).multi_face_landmarks
    if not faces:
        return None
    return np.array([(point.x * _SIZE, point.y * _SIZE) for point in faces[0].landmark]) - 0.5
