"""The built-in 3D head: the face reader's shape on the project's head model."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.core.imaging import to_tensor
from fantasyid.face.align import READER_SIZE, reader_transform, tilt_deg, warp
from fantasyid.face.part import PhotoPart
from fantasyid.face.types import HeadPose, ReconstructedHead
from fantasyid.geometry.fitting import placement_error_cm
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.projection import rotation_matrix
from fantasyid.models.face_reader import FaceReaderModel

# The crop sees 0.8 sides beyond the landmarks where the face is turned by 45 degrees.
SEEN_AROUND_FACE = 1.0


@dataclass(frozen=True)
class Mirror:
    """What a mirrored picture does to the coefficients.

    Attributes:
        identity: (K,) 1 for coefficients that stay, -1 for those that change sign.
        expression: (E,) index of the expression that each becomes.
    """

    identity: Tensor
    expression: Tensor

    @classmethod
    def of(cls, head: HeadModel) -> "Mirror":
        """For the bases of a head model."""
        flipped = head.identity_basis[:, head.mirror] * head.mean.new_tensor([-1.0, 1.0, 1.0])
        names = list(head.expression_names)
        sides = [name.replace("Left", "*").replace("Right", "Left").replace("*", "Right") for name in names]
        return cls(
            identity=(head.identity_basis * flipped).sum((1, 2)).sign(),
            expression=torch.tensor([names.index(name) for name in sides]),
        )


class BuiltinReconstructor:
    """Reads identity, expression and pose with one network and keeps the identity alone (paper 3.3: the neutral head).

    The crop and its mirror image are read and their answers averaged, so that a mirrored photo gives the mirrored head.

    Args:
        head: The head model.
        model: The face reader trained for it.
    """

    def __init__(self, head: HeadModel, model: FaceReaderModel) -> None:
        self._head, self._model = head, model
        self._mirror = Mirror.of(head)
        self._topology_hash = head.topology.hash

    @torch.no_grad()
    def reconstruct(self, photo: NDArray[np.uint8], landmarks: Tensor) -> ReconstructedHead:
        """Reconstruct the head.

        Args:
            photo: RGB (H,W,3).
            landmarks: (478,3) pixels of the photo.

        Returns:
            Neutral vertices, and the pose and expression that were taken out.
        """
        part = PhotoPart.around(photo, landmarks[:, :2], SEEN_AROUND_FACE)
        affine = reader_transform(part.from_photo(landmarks[None, :, :2]))
        crop = warp(to_tensor(part.pixels), affine, READER_SIZE).to(self._model.device, self._model.dtype)
        reading = self._model(torch.cat([crop, crop.flip(-1)]))
        identity = reading.identity.float().cpu()
        identity = (identity[0] + self._mirror.identity * identity[1]) / 2
        expression = reading.expression.float().cpu()
        expression = (expression[0] + expression[1, self._mirror.expression]) / 2
        angles = reading.pose_deg.float().cpu()
        yaw, pitch, roll = (angles[0] + angles[1] * angles.new_tensor([-1.0, 1.0, -1.0])) / 2
        pose = HeadPose(float(yaw), float(pitch), float(roll - tilt_deg(affine)[0].cpu()))

        rotation = rotation_matrix(*torch.tensor([pose.yaw_deg, pose.pitch_deg, pose.roll_deg]))
        shape = self._head.shape(identity[None], expression[None])[0]
        return ReconstructedHead(
            vertices=self._head.neutral(identity[None])[0],
            topology_hash=self._topology_hash,
            pose=pose,
            expression=expression,
            error_cm=placement_error_cm(self._head, shape, rotation, landmarks.float().cpu()),
        )
