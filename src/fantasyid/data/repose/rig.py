"""Photos made movable: each is a square canvas, a person mask and a fitted head, all on one device.

A canvas is the portrait frame of `face.align` enlarged by `CANVAS_MARGIN`, so that a camera may move inside it.
Canvas coordinates are pixels, x right and y down, pixel centres at integers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError, TopologyMismatchError
from fantasyid.core.input_files import check_input_file
from fantasyid.core.npz_files import ArchiveError, read_npz
from fantasyid.face.align import PORTRAIT_SIZE
from fantasyid.geometry.head_model import FACE_OVAL, NUM_SKIN_LANDMARKS, PART_NAMES, HeadModel
from fantasyid.geometry.projection import project_camera
from fantasyid.geometry.raster import interpolate, rasterise, vertex_normals

CANVAS = 2 * PORTRAIT_SIZE
CANVAS_MARGIN = 1.2
GRID = 64
_REGISTRATION_CM = 0.7
_ARRAYS = {
    *("identity", "expression", "scale", "rotation", "translation", "landmarks"),
    *("person", "other", "sex", "decade", "weight"),
    *("image", "image_end", "alpha", "alpha_end", "backdrop", "backdrop_end"),
}
_SKIN_PARTS = ("face", "scalp", "ears", "neck")
_MOUTH_PARTS = ("mouth_interior", "teeth_upper", "teeth_lower", "tongue")
_INNER_PARTS = (*_MOUTH_PARTS, "eye_left", "eye_right")
_INNER_COLOUR = {
    "mouth_interior": (0.20, 0.07, 0.07),
    "eye_left": (0.90, 0.90, 0.90),
    "eye_right": (0.90, 0.90, 0.90),
    "teeth_upper": (0.84, 0.81, 0.76),
    "teeth_lower": (0.84, 0.81, 0.76),
    "tongue": (0.46, 0.20, 0.20),
}


@dataclass(frozen=True)
class HeadLayers:
    """The same for every photo: the head model split into what is drawn and how.

    Attributes:
        head: The head model, on the rigs' device.
        skin: (F1, 3) triangles of skin, for depth and normals.
        drawn: (F2, 3) triangles drawn over the grid: skin, which shows only in the face, and eyes, teeth and mouth.
        softness: (N,) in [0, 1]: 0 outside the face and at its border, 1 well inside; 1 on inner parts.
        inner: (N,) 1 on eyes, teeth and mouth, else 0.
        mouth: (N,) 1 on teeth and mouth, else 0.
        inner_colour: (N, 3) RGB in [0, 1] for inner parts the photo does not show.
        registration: (N, 478) what vertices take of displacements of landmarks: a smooth average of those around, and
            nothing far from the face. The face oval slides over the skin as the head turns, so it moves nothing.
    """

    head: HeadModel
    skin: Tensor
    drawn: Tensor
    softness: Tensor
    inner: Tensor
    mouth: Tensor
    inner_colour: Tensor
    registration: Tensor

    @classmethod
    def build(cls, head: HeadModel, border_rings: int = 5) -> "HeadLayers":
        """Split the head by its part labels; `border_rings` is the width of the soft border in mesh rings."""
        device, part = head.mean.device, head.parts.long()

        def is_part(names: tuple[str, ...]) -> Tensor:
            return torch.isin(part, torch.tensor([PART_NAMES.index(name) for name in names], device=device))

        skin, inner, face = is_part(_SKIN_PARTS), is_part(_INNER_PARTS), is_part(("face",))
        outside = head.triangles[skin[head.triangles].any(1) & ~face[head.triangles].all(1)]
        reached = torch.zeros(len(part), device=device)
        reached[outside.reshape(-1)] = 1.0
        rings = torch.where((reached > 0) | ~face, 0.0, float(border_rings))
        for ring in range(1, border_rings):
            spread = reached.clone()
            touching = head.triangles[(reached[head.triangles] > 0).any(1)]
            spread[touching.reshape(-1)] = 1.0
            rings = torch.where(face & (spread > 0) & (reached == 0), float(ring), rings)
            reached = spread
        colour = torch.zeros(len(part), 3, device=device)
        for name, value in _INNER_COLOUR.items():
            colour[is_part((name,))] = torch.tensor(value, device=device)
        return cls(
            head=head,
            skin=head.triangles[skin[head.triangles].all(1)],
            drawn=head.triangles,
            softness=torch.where(inner, 1.0, rings / border_rings),
            inner=inner.float(),
            mouth=is_part(_MOUTH_PARTS).float(),
            inner_colour=colour,
            registration=_registration(head),
        )

    def registered(self, residual: Tensor) -> Tensor:
        """How far photos show vertices from where the fit puts them: (B, 478, 3) -> (B, N, 3), in the picture plane."""
        return F.pad(self.registration @ residual[..., :2], (0, 1))


@dataclass(frozen=True)
class RigSet:
    """P photos ready to be re-posed.

    Attributes:
        image: (P, 3, CANVAS, CANVAS) uint8 RGB.
        alpha: (P, 1, CANVAS, CANVAS) uint8 person mask.
        backdrop: (P, 3, 64, 64) uint8 background with the person painted away.
        identity: (P, K) head model coefficients, the same for all photos of one person.
        expression: (P, E) the photo's own expression.
        scale: (P,) canvas pixels per cm.
        rotation: (P, 3, 3) head pose of the photo.
        translation: (P, 2) canvas pixels.
        person: (P,) index of the person.
        other: (P,) index of the person's other photo, or of the photo itself.
        sex: (P,) 0 unknown, 1 female, 2 male.
        decade: (P,) age decade (40 = forties), 0 unknown.
        weight: (P,) sampling weight.
        landmarks: (P, 478, 3) detected in the photo, canvas pixels.
        residual: (P, 478, 3) detected minus fitted landmarks, canvas pixels and depth.
        grid_depth: (P, GRID, GRID) cm toward the viewer, of hair, ears and shoulders.
        grid_normal: (P, 3, GRID, GRID) unit normals in camera space, diffused beyond the head.
        grid_triangle: (P, GRID, GRID) skin triangle under each grid vertex, -1 for none.
        grid_weights: (P, GRID, GRID, 3) its barycentric coordinates.
    """

    image: Tensor
    alpha: Tensor
    backdrop: Tensor
    identity: Tensor
    expression: Tensor
    scale: Tensor
    rotation: Tensor
    translation: Tensor
    person: Tensor
    other: Tensor
    sex: Tensor
    decade: Tensor
    weight: Tensor
    landmarks: Tensor
    residual: Tensor
    grid_depth: Tensor
    grid_normal: Tensor
    grid_triangle: Tensor
    grid_weights: Tensor

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def load(cls, path: Path, layers: HeadLayers) -> "RigSet":
        """Read the file of `repose.prepare` to the device of `layers` and derive the depth grids there.

        Raises:
            InvalidRequestError: The file is missing or damaged.
            TopologyMismatchError: The heads were fitted with another head model.
        """
        import cv2

        device = layers.head.mean.device
        check_input_file(path, "rigs")
        try:
            fields: dict[str, Any] = read_npz(path)
        except ArchiveError as error:
            raise InvalidRequestError(
                f"{path} cannot be read ({error}); make it again with `fantasyid data rigs`."
            ) from error
        if str(fields.pop("head", "")) != layers.head.coefficients_hash:
            raise TopologyMismatchError(
                f"The heads in {path} were fitted with another head model; make the file again with "
                "`fantasyid data rigs`."
            )
        if lacking := sorted(_ARRAYS - set(fields)):
            raise InvalidRequestError(f"{path} lacks {', '.join(lacking)}; make it again with `fantasyid data rigs`.")

        def pictures(name: str, flag: int) -> Tensor:
            data, ends = fields.pop(name), fields.pop(f"{name}_end")
            starts = np.concatenate([[0], ends[:-1]])
            decoded = [cv2.imdecode(data[a:b], flag) for a, b in zip(starts, ends, strict=True)]
            stack = np.stack([np.asarray(picture) for picture in decoded])
            stack = stack[..., None] if stack.ndim == 3 else stack[..., ::-1]
            return torch.from_numpy(np.ascontiguousarray(stack.transpose(0, 3, 1, 2))).to(device)

        image, alpha = pictures("image", cv2.IMREAD_COLOR), pictures("alpha", cv2.IMREAD_GRAYSCALE)
        backdrop = pictures("backdrop", cv2.IMREAD_COLOR)
        rest = {name: torch.from_numpy(value).to(device) for name, value in fields.items() if name != "ids"}
        parts = []
        for start in range(0, len(image), 64):
            batch = slice(start, start + 64)
            pose = (rest[name][batch] for name in ("identity", "expression", "scale", "rotation", "translation"))
            parts.append(_depth_grid(layers, rest["landmarks"][batch], *pose))
        names = ("residual", "grid_depth", "grid_normal", "grid_triangle", "grid_weights")
        derived = {name: torch.cat(field) for name, field in zip(names, zip(*parts, strict=True), strict=True)}
        return cls(image, alpha, backdrop, **rest, **derived)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, C, H, W) with mirrored borders."""
    radius = min(max(1, round(2.5 * sigma)), min(image.shape[-2:]) - 1)
    position = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (position / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = image.shape[1]
    padded = F.pad(image, (radius, radius, radius, radius), mode="reflect")
    rows = F.conv2d(padded, kernel.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
    return F.conv2d(rows, kernel.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)


def _registration(head: HeadModel) -> Tensor:
    """See `HeadLayers.registration`: Gaussian weights over the average head, against a weight of 0.5 for staying."""
    weight = torch.exp(-0.5 * (torch.cdist(head.mean, head.landmarks(head.mean)) / _REGISTRATION_CM) ** 2)
    weight[:, NUM_SKIN_LANDMARKS:] = 0
    weight[:, list(FACE_OVAL)] = 0
    return weight / (weight.sum(1, keepdim=True) + 0.5)


def _depth_grid(
    layers: HeadLayers,
    landmarks: Tensor,
    identity: Tensor,
    expression: Tensor,
    scale: Tensor,
    rotation: Tensor,
    translation: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Landmark residual, and depth and normals of the fitted head on the grid, diffused outwards beyond it."""
    camera = layers.head.shape(identity, expression) @ rotation.mT
    pixels = project_camera(camera, scale, translation)
    residual = landmarks - project_camera(layers.head.landmarks(camera, rotation), scale, translation)
    on_grid = pixels * pixels.new_tensor([(GRID - 1) / (CANVAS - 1), (GRID - 1) / (CANVAS - 1), 1.0])
    index, weights = rasterise(on_grid, layers.skin, GRID, GRID)
    normals = vertex_normals(camera, layers.skin)
    surface = interpolate(torch.cat([camera[..., 2:], normals], -1), layers.skin, index, weights).permute(0, 3, 1, 2)
    covered = (index >= 0).float()[:, None]
    solid = 1 - F.max_pool2d(1 - covered, 3, stride=1, padding=1)  # depth at the silhouette is unreliable
    filled, known = surface * solid, solid
    for sigma in (0.8, 1.5, 3.0, 6.0, 12.0, 24.0):
        spread, amount = blur(filled, sigma), blur(known, sigma)
        new = (known < 1e-3) & (amount > 1e-3)
        filled = torch.where(new, spread / amount.clamp(min=1e-6), filled)
        known = torch.where(new, torch.ones_like(known), known)
    smooth = torch.where(solid > 0, surface, blur(filled, 1.0))
    triangle = torch.where(solid[:, 0] > 0, index, -1)
    return residual, smooth[:, 0], F.normalize(blur(smooth[:, 1:], 1.5), dim=1), triangle, weights
