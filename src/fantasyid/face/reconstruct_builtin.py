"""The built-in 3D head: the project's head model fitted to the landmarks by least squares."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.face.pose import pose_of_rotation
from fantasyid.face.types import ReconstructedHead
from fantasyid.geometry.fitting import fit_landmarks
from fantasyid.geometry.head_model import HeadModel


class BuiltinReconstructor:
    """Fits identity, expression and pose together and keeps the identity alone (paper 3.3: the neutral head).

    Args:
        head: The head model.
    """

    def __init__(self, head: HeadModel) -> None:
        self._head = head
        self._topology_hash = head.topology.hash

    def reconstruct(self, photo: NDArray[np.uint8], landmarks: Tensor) -> ReconstructedHead:
        """Reconstruct the head.

        Args:
            photo: RGB (H,W,3); not looked at, the landmarks say it all.
            landmarks: (478,3) pixels of the photo.

        Returns:
            Neutral vertices, and the pose and expression that were taken out.
        """
        fit = fit_landmarks(self._head, landmarks[None])
        vertices = self._head.shape(fit.identity[None], torch.zeros_like(fit.expression))[0]
        return ReconstructedHead(
            vertices=vertices,
            topology_hash=self._topology_hash,
            pose=pose_of_rotation(fit.rotation[0]),
            expression=fit.expression[0],
            error_cm=float(fit.error_cm[0]),
        )
