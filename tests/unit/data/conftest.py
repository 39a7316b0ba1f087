"""Photos drawn with the head model itself, so that pose, expression and landmarks are known exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fantasyid.data.repose.prepare import _save
from fantasyid.data.repose.rig import CANVAS, CANVAS_MARGIN, HeadLayers, RigSet
from fantasyid.face.align import NOSE_TIP, PORTRAIT_RISE, PORTRAIT_SCALE
from fantasyid.geometry.head_model import PART_NAMES, HeadModel
from fantasyid.geometry.projection import project, rotation_matrix
from fantasyid.geometry.raster import interpolate, rasterise

NOSE_COLOUR = (0.0, 0.0, 1.0)
PEOPLE = (  # person, other, sex, age decade, tier, yaw of the photo, wave of the face, colour of scalp and neck
    (0, 1, "female", "40", "1", 0.0, (0.9, 0.0), (0.25, 0.15, 0.10)),
    (0, 0, "female", "40", "1", 8.0, (0.9, 0.0), (0.25, 0.15, 0.10)),
    (1, 2, "female", "30", "1", 3.0, (0.0, 0.9), (0.80, 0.75, 0.30)),
    (2, 3, "male", "", "1", 0.0, (0.6, 0.6), (0.10, 0.10, 0.10)),
    (3, 4, "male", "50", "1", -6.0, (0.6, -0.6), (0.40, 0.40, 0.40)),
    (4, 5, "male", "60", "1", 0.0, (0.0, 0.5), (0.50, 0.40, 0.40)),
)
"""`other` of a person with one photo is the photo itself; waves are radians per cm across and along the face."""


def _vertex_colours(head: HeadModel, wave: tuple[float, float], hair: tuple[float, float, float]) -> Tensor:
    """(N, 3): a waved face with a blue nose tip, white eyes and teeth, scalp, ears and neck in one colour."""
    names = [PART_NAMES[part] for part in head.parts]
    brightness = 0.6 + 0.2 * torch.cos(head.mean[:, :2] @ torch.tensor(wave))
    skin = brightness[:, None] * torch.tensor([1.0, 0.75, 0.6])
    other = [hair if name in ("scalp", "ears", "neck") else (0.9, 0.9, 0.9) for name in names]
    face = torch.tensor([name == "face" for name in names])
    nose = (head.mean - head.mean[head.landmarks478[NOSE_TIP]]).norm(dim=-1) < 1.1
    colours = torch.where(face[:, None], skin, torch.tensor(other))
    return torch.where((face & nose)[:, None], torch.tensor(NOSE_COLOUR), colours)


def _photo(head: HeadModel, place: int) -> dict[str, object]:
    """One photo in the form that `repose.prepare` collects."""
    person, other, sex, decade, tier, yaw, wave, hair = PEOPLE[place]
    identity, expression = torch.zeros(1, len(head.identity_basis)), torch.zeros(1, len(head.expression_names))
    identity[0, 0] = 0.8 if sex == "female" else -0.8
    identity[0, 1] = 0.3 * person - 0.6
    expression[0, [head.expression_names.index(f"mouthSmile{side}") for side in ("Left", "Right")]] = 0.3
    rotation = rotation_matrix(*torch.tensor([[yaw], [2.0], [0.0]]))
    vertices = head.shape(identity, expression)
    landmarks = vertices[:, head.landmarks478] + head.landmark_offset
    points = project(landmarks, rotation, torch.ones(1), torch.zeros(1, 2))[..., :2]
    low, high = points.amin(1), points.amax(1)
    side = CANVAS / CANVAS_MARGIN
    scale = side / PORTRAIT_SCALE / torch.maximum(high[:, 1] - low[:, 1], 1.2 * (high[:, 0] - low[:, 0]))
    middle = torch.tensor([CANVAS / 2 - 0.5, CANVAS / 2 - 0.5 + PORTRAIT_RISE * side])
    translation = middle - (low + high) / 2 * scale
    pixels = project(vertices, rotation, scale, translation)
    fine = torch.cat([pixels[..., :2] * 2 + 0.5, pixels[..., 2:]], -1)
    index, weights = rasterise(fine, head.triangles, 2 * CANVAS, 2 * CANVAS)
    colours = torch.cat([_vertex_colours(head, wave, hair), torch.ones(len(head.mean), 1)], -1)
    drawn = F.avg_pool2d(interpolate(colours, head.triangles, index, weights).permute(0, 3, 1, 2), 2)[0]
    backdrop = torch.tensor([0.2, 0.6, 0.3])
    picture = drawn[:3] + backdrop[:, None, None] * (1 - drawn[3])
    return {
        "image": (picture.permute(1, 2, 0) * 255).round().byte().numpy(),
        "alpha": (drawn[3] * 255).round().byte().numpy(),
        "backdrop": np.full((64, 64, 3), (backdrop * 255).round().byte().numpy()),
        "landmarks": project(landmarks, rotation, scale, translation)[0].numpy(),
        "identity": identity[0].numpy(),
        "expression": expression[0].numpy(),
        "scale": scale[0].numpy(),
        "rotation": rotation[0].numpy(),
        "translation": translation[0].numpy(),
        "person": person,
        "other": other,
        "row": {"id": f"drawn{place}", "sex": sex, "age_decade": decade, "tier": tier, "source": "drawn"},
    }


@pytest.fixture(scope="session")
def layers() -> HeadLayers:
    return HeadLayers.build(HeadModel.load())


@pytest.fixture(scope="session")
def rigs_path(layers: HeadLayers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rigs") / "rigs.npz"
    _save(path, [_photo(layers.head, place) for place in range(len(PEOPLE))], layers.head)
    return path


@pytest.fixture(scope="session")
def rigs(layers: HeadLayers, rigs_path: Path) -> RigSet:
    return RigSet.load(rigs_path, layers)
