"""A head read from a photo, ready to be drawn: over the photo, and neutral from several sides."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.face.align import five_points
from fantasyid.face.types import FaceReading
from fantasyid.geometry.flame import JOINT_NAMES, FlameModel
from fantasyid.geometry.head_model import FACE_OVAL, NUM_SKIN_LANDMARKS, HeadModel
from fantasyid.geometry.pictures import SKIN_COLOUR, overlay, part_colours, turntable
from fantasyid.geometry.projection import rotation_matrix

# The oval's landmarks slide over the surface as the head turns, and the last ten, the irises, follow the gaze.
_ANCHORS = [mark for mark in range(NUM_SKIN_LANDMARKS) if mark not in FACE_OVAL]


@dataclass(frozen=True, eq=False)
class DrawableHead:
    """A head with its mesh and its place in the photo.

    Attributes:
        neutral: (N, 3) cm, without expression.
        posed: (N, 3) cm, with the photo's expression, not yet turned.
        triangles: (F, 3) int64.
        colours: (N, 3) in [0, 1].
        expression: Strengths by name.
        rotation: (3, 3) of the head in the photo.
        anchors: (L, 3) cm points of the head and (L, 2) pixels where the photo shows them.
    """

    neutral: Tensor
    posed: Tensor
    triangles: Tensor
    colours: Tensor
    expression: dict[str, float]
    rotation: Tensor
    anchors: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, reading: FaceReading, flame: FlameModel | None = None) -> "DrawableHead":
        """Make a reading drawable.

        Args:
            reading: Of a photo, the head neutral.
            flame: Head model of the reading; None is the built-in one.
        """
        read = reading.head
        vertices, strengths = read.vertices.float().cpu(), read.expression.float().cpu()
        landmarks = reading.landmarks.float().cpu()
        if flame is None:
            model = HeadModel.load()
            posed = vertices + torch.tensordot(strengths, model.expression_basis, 1)
            names, triangles, colours = model.expression_names, model.triangles, part_colours(model)
            marked = model.landmarks(posed)
            anchors = marked[_ANCHORS], landmarks[_ANCHORS, :2]
        else:
            # FLAME's files name no landmarks, but they do say where the eyeballs are.
            eyes = flame.joint_regressor[[JOINT_NAMES.index("eye_right"), JOINT_NAMES.index("eye_left")]] @ vertices
            posed = vertices + 100 * flame.expression_basis[..., : len(strengths)] @ strengths
            names = tuple(f"flame-{number:02d}" for number in range(len(strengths)))
            triangles, colours = flame.triangles, torch.tensor(SKIN_COLOUR).expand(len(vertices), -1)
            anchors = eyes, five_points(landmarks[None, :, :2])[0, :2]
        angles = torch.tensor([[read.pose.yaw_deg], [read.pose.pitch_deg], [read.pose.roll_deg]])
        return cls(
            neutral=vertices,
            posed=posed,
            triangles=triangles,
            colours=colours,
            expression=dict(zip(names, strengths.tolist(), strict=True)),
            rotation=rotation_matrix(*angles)[0],
            anchors=anchors,
        )

    def overlay(self, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The head over its photo, RGB (H, W, 3), at most 640 pixels a side."""
        return overlay(photo, self.posed, self.triangles, self.colours, self.rotation, self.anchors)

    def turntable(self) -> NDArray[np.uint8]:
        """The neutral head from five sides, RGB."""
        return turntable(self.neutral, self.triangles, self.colours)
