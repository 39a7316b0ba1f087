"""What the networks are told about a person; the same code serves a user's photo and a row of training data."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fantasyid.core.imaging import Photo, as_photo, to_tensor
from fantasyid.face.align import (
    FACE_SIZE,
    PORTRAIT_SIZE,
    beyond_edge,
    crop_corners,
    face_transform,
    five_points,
    portrait_transform,
    warp,
    widen_transform,
)
from fantasyid.face.ffhq import ffhq_crop
from fantasyid.face.part import MAX_PART_PIXELS, PhotoPart
from fantasyid.face.reader import FaceReader
from fantasyid.face.types import FaceReading

PhotoStyle = Literal["portrait", "ffhq"]
_BEYOND = 0.0
"""What a reference shows beyond the photo's edge: mid-grey, as in training (`data.precompute.tighten`)."""


@dataclass(frozen=True)
class IdentityPreparation:
    """How a photo becomes the pictures that a model's networks were trained with.

    Attributes:
        style: `"portrait"`: head and shoulders as reference, filling the video's shorter side, and the face cut out
            of the photo by five points. `"ffhq"`, for the authors' released checkpoint: one face crop of 512 pixels is
            the reference, stretched to the video's size, and shrunk also the face crop.
        reference_size: Height and width of the video in pixels.
        face_size: Side of the face crop in pixels.
    """

    style: PhotoStyle = "portrait"
    reference_size: tuple[int, int] = (PORTRAIT_SIZE, PORTRAIT_SIZE)
    face_size: int = FACE_SIZE


BUILTIN_PREPARATION = IdentityPreparation()
"""Of the built-in model and its training data."""


@dataclass(frozen=True, eq=False)
class IdentityInputs:
    """The person as tensors.

    Attributes:
        reference_image: Reference picture (B,3,H,W) of the video's size in [-1, 1]; becomes the reference latent.
        face_crop: Aligned face (B,3,S,S), RGB, -1 black and 1 white; becomes face tokens (paper 3.2).
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


def prepare_identity(
    photos: Tensor,
    landmarks: Tensor,
    vertices: Tensor,
    topology_hash: str,
    preparation: IdentityPreparation = BUILTIN_PREPARATION,
) -> IdentityInputs:
    """Cut the crops of people whose landmarks and heads are known.

    Args:
        photos: (B,3,H,W) in [-1, 1].
        landmarks: (B,478,2) pixels.
        vertices: (B,N,3) cm, neutral.
        topology_hash: Hash of the vertices' mesh.
        preparation: What the model's networks want.

    Returns:
        The inputs, on the photos' device and in their dtype.
    """
    size, side = preparation.reference_size, preparation.face_size
    if preparation.style == "ffhq":
        crops, reference_image = _ffhq_pictures(photos, landmarks, size)
        face_crop = F.interpolate(crops.float(), (side, side), mode="bicubic", antialias=True).to(crops)
    else:
        frame = _portrait_frame(landmarks, preparation)
        outside = beyond_edge(frame, size, (photos.shape[2], photos.shape[3]))
        reference_image = warp(photos, frame, size).masked_fill(outside, _BEYOND)
        face_crop = warp(photos, face_transform(landmarks), side)
    return IdentityInputs(reference_image, face_crop, vertices.to(photos), topology_hash)


def read_identity(
    photo: Photo,
    reader: FaceReader,
    face_index: int | None = None,
    preparation: IdentityPreparation = BUILTIN_PREPARATION,
) -> tuple[IdentityInputs, FaceReading]:
    """Read a person from a photo.

    Args:
        photo: Whatever `as_photo` takes, such as a path, a PIL image, or RGB uint8 (H,W,3).
        reader: Finds and reads the face.
        face_index: Which face, counted from 0 by falling size; None takes the largest.
        preparation: What the model's networks want, see `FantasyIDPipeline.identity_preparation`.

    Returns:
        Inputs for one person (B = 1), and the reading they were made from.

    Raises:
        FantasyIDError: The photo or the face in it cannot be used; see `FaceReader.read`.
    """
    pixels = as_photo(photo)
    reading = reader.read(pixels, face_index)
    landmarks = reading.landmarks[:, :2]
    # The other style shrinks the photo as a whole; and what is small stays as training rows are, to the last bit.
    if preparation.style == "portrait" and pixels.shape[0] * pixels.shape[1] > MAX_PART_PIXELS:
        frames = torch.cat([_portrait_frame(landmarks[None], preparation), face_transform(landmarks[None])])
        corners = crop_corners(frames).flatten(0, 1)
        part = PhotoPart.around(pixels, corners, 0.05)
        pixels, landmarks = part.pixels, part.from_photo(landmarks)
    inputs = prepare_identity(
        to_tensor(pixels),
        landmarks[None],
        reading.head.vertices[None],
        reading.head.topology_hash,
        preparation,
    )
    return inputs, reading


def _portrait_frame(landmarks: Tensor, preparation: IdentityPreparation) -> Tensor:
    """Affine (B,2,3) of the reference picture."""
    return widen_transform(portrait_transform(landmarks), preparation.reference_size)


def _ffhq_pictures(photos: Tensor, landmarks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Aligned squares, and the same stretched to a size, rounded to 8 bits where the authors' code rounds."""
    pixels = ((photos.float() + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    crops = [ffhq_crop(photo, points) for photo, points in zip(pixels, five_points(landmarks), strict=True)]
    height, width = size
    stretched = [Image.fromarray(crop).resize((width, height), Image.Resampling.LANCZOS) for crop in crops]
    squares, references = (
        torch.cat([to_tensor(np.asarray(picture)) for picture in pictures]).to(photos)
        for pictures in (crops, stretched)
    )
    return squares, references
