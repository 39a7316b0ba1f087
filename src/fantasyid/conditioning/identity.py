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
    face_transform,
    five_points,
    portrait_transform,
    warp,
    widen_transform,
)
from fantasyid.face.ffhq import ffhq_crop
from fantasyid.face.parsing import PARSING_SIZE, FaceParser, whiten
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
    parser: FaceParser | None = None,
) -> IdentityInputs:
    """Cut the crops of people whose landmarks and heads are known.

    Args:
        photos: (B,3,H,W) in [-1, 1].
        landmarks: (B,478,2) pixels.
        vertices: (B,N,3) cm, neutral.
        topology_hash: Hash of the vertices' mesh.
        preparation: What the model's networks want.
        parser: Makes all but the face white in the face crop; None leaves it as it is.

    Returns:
        The inputs, on the photos' device and in their dtype.
    """
    size, side = preparation.reference_size, preparation.face_size
    if preparation.style == "ffhq":
        crops, reference_image = _ffhq_pictures(photos, landmarks, size)
        face_crop = _shrink(crops if parser is None else whiten(crops, parser), side)
    else:
        frame = widen_transform(portrait_transform(landmarks), size)
        outside = beyond_edge(frame, size, (photos.shape[2], photos.shape[3]))
        reference_image = warp(photos, frame, size).masked_fill(outside, _BEYOND)
        affine = face_transform(landmarks)
        if parser is None:
            face_crop = warp(photos, affine, side)
        else:
            face_crop = _shrink(whiten(warp(photos, affine, PARSING_SIZE), parser), side)
    return IdentityInputs(reference_image, face_crop, vertices.to(photos), topology_hash)


def read_identity(
    photo: Photo,
    reader: FaceReader,
    face_index: int | None = None,
    preparation: IdentityPreparation = BUILTIN_PREPARATION,
    parser: FaceParser | None = None,
) -> tuple[IdentityInputs, FaceReading]:
    """Read a person from a photo.

    Args:
        photo: A path, a PIL image, or RGB uint8 (H,W,3).
        reader: Finds and reads the face.
        face_index: Which face, counted from 0 by falling size; None takes the largest.
        preparation: What the model's networks want, see `FantasyIDPipeline.identity_preparation`.
        parser: Makes all but the face white in the face crop; None leaves it as it is.

    Returns:
        Inputs for one person (B = 1), and the reading they were made from.

    Raises:
        FantasyIDError: The photo or the face in it cannot be used; see `FaceReader.read`.
    """
    pixels = as_photo(photo)
    reading = reader.read(pixels, face_index)
    inputs = prepare_identity(
        to_tensor(pixels),
        reading.landmarks[None, :, :2],
        reading.head.vertices[None],
        reading.head.topology_hash,
        preparation,
        parser,
    )
    return inputs, reading


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


def _shrink(crops: Tensor, side: int) -> Tensor:
    return F.interpolate(crops.float(), (side, side), mode="bicubic", antialias=True).to(crops)
