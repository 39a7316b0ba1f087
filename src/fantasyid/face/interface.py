"""What a face backend must offer; the built-in ones and libraries stand side by side behind these."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.face.types import DetectedFace, ReconstructedHead


class FaceDetector(Protocol):
    """Finds faces."""

    def detect(self, photo: NDArray[np.uint8]) -> tuple[DetectedFace, ...]:
        """Find all faces.

        Args:
            photo: RGB (H,W,3).

        Returns:
            The faces, largest first; none is no error.
        """
        ...


class FaceRecognizer(Protocol):
    """Tells people apart."""

    @property
    def same_person_distance(self) -> float:
        """Two faces nearer than this are taken for one person."""
        ...

    def embed(self, photo: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.float32]:
        """Describe the person.

        Args:
            photo: RGB (H,W,3).
            face: A face in it.

        Returns:
            (D,) embedding.
        """
        ...

    def distance(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
        """How unlike two embeddings are; 0 = the same."""
        ...


class FaceReconstructor(Protocol):
    """Makes a neutral 3D head of a face."""

    def reconstruct(self, photo: NDArray[np.uint8], landmarks: Tensor) -> ReconstructedHead:
        """Reconstruct the head.

        Args:
            photo: RGB (H,W,3).
            landmarks: (478,3) pixels of the photo.

        Returns:
            Neutral vertices, and the pose and expression that were taken out.
        """
        ...
