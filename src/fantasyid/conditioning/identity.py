"""What the networks are told about a person; the same code serves a user's photo and a row of training data."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fantasyid.core.imaging import Photo, as_photo, to_tensor
from fantasyid.face.align import FACE_SIZE, PORTRAIT_SIZE, face_transform, portrait_transform, warp
from fantasyid.face.reader import FaceReader
from fantasyid.face.types import FaceReading


@dataclass(frozen=True, eq=False)
class IdentityInputs:
    """The person as tensors.

    Attributes:
        reference_image: Head and shoulders, eyes level (B,3,128,128) in [-1, 1]; becomes the reference latent.
        face_crop: Aligned face (B,3,96,96) in [-1, 1]; becomes face tokens (paper 3.2).
        vertices: Neutral head (B,N,3) in cm (paper 3.3).
        topology_hash: Hash of the mesh the vertices belong to.
    """

    reference_image: Tensor
    face_crop: Tensor
    vertices: Tensor
    topology_hash: str

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "IdentityInputs":
        """The same inputs on another device or in another dtype; None keeps what is."""
        return replace(
            self,
            reference_image=self.reference_image.to(device=device, dtype=dtype),
            face_crop=self.face_crop.to(device=device, dtype=dtype),
            vertices=self.vertices.to(device=device, dtype=dtype),
        )


def prepare_identity(photos: Tensor, landmarks: Tensor, vertices: Tensor, topology_hash: str) -> IdentityInputs:
    """Cut the crops of people whose landmarks and heads are known.

    Args:
        photos: (B,3,H,W) in [-1, 1].
        landmarks: (B,478,2) pixels.
        vertices: (B,N,3) cm, neutral.
        topology_hash: Hash of the vertices' mesh.

    Returns:
        The inputs, on the photos' device and in their dtype.
    """
    return IdentityInputs(
        reference_image=warp(photos, portrait_transform(landmarks), PORTRAIT_SIZE),
        face_crop=warp(photos, face_transform(landmarks), FACE_SIZE),
        vertices=vertices.to(photos),
        topology_hash=topology_hash,
    )


def read_identity(
    photo: Photo, reader: FaceReader, face_index: int | None = None
) -> tuple[IdentityInputs, FaceReading]:
    """Read a person from a photo.

    Args:
        photo: A path, a PIL image, or RGB uint8 (H,W,3).
        reader: Finds and reads the face.
        face_index: Which face, counted from 0 by falling size; None takes the largest.

    Returns:
        Inputs for one person (B = 1), and the reading they were made from.

    Raises:
        FantasyIDError: The photo or the face in it cannot be used; see `FaceReader.read`.
    """
    pixels = as_photo(photo)
    reading = reader.read(pixels, face_index)
    inputs = prepare_identity(
        to_tensor(pixels), reading.landmarks[None, :, :2], reading.head.vertices[None], reading.head.topology_hash
    )
    return inputs, reading
