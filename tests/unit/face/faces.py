"""Shapes and pictures of faces shared by the tests of reading a photo."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut
from torch import Tensor

from fantasyid.face.align import (
    FACE_TEMPLATE,
    LEFT_EYE_CORNERS,
    MOUTH_CORNERS,
    NOSE_TIP,
    READER_SCALE,
    RIGHT_EYE_CORNERS,
)
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.projection import project, rotation_matrix
from fantasyid.models.face_reader import FaceReaderModel

# Where the face of `portrait` is, to a few pixels: the box dlib gives.
PORTRAIT_BOX = (97.0, 77.0, 187.0, 167.0)


def portrait() -> NDArray[np.uint8]:
    """A real photo in the public domain, (300,300,3), with one face 90 pixels wide."""
    return astronaut()[:300, 80:380].copy()


def resized(photo: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The photo at another size."""
    return np.asarray(Image.fromarray(photo).resize((side, side), Image.Resampling.LANCZOS))


def plausible_landmarks(
    height: float = 200.0, centre: tuple[float, float] = (240.0, 220.0), roll_deg: float = 0.0
) -> Tensor:
    """A face-like set of 478 points whose five alignment points sit as in the template: (1,478,2) pixels.

    Args:
        height: Height of the upright face in pixels.
        centre: Of the face box, pixels.
        roll_deg: Counter-clockwise as seen.
    """
    ring = torch.linspace(0, 2 * math.pi, 479)[:-1]
    unit = torch.stack([0.34 * ring.sin(), -0.4 * ring.cos()], dim=-1)
    right_eye, left_eye, nose, *mouth = torch.tensor(FACE_TEMPLATE) - 0.5
    lid = torch.tensor([0.06, 0.0])
    unit[list(RIGHT_EYE_CORNERS)] = torch.stack([right_eye - lid, right_eye + lid])
    unit[list(LEFT_EYE_CORNERS)] = torch.stack([left_eye - lid, left_eye + lid])
    unit[NOSE_TIP] = nose
    unit[list(MOUTH_CORNERS)] = torch.stack(mouth)
    angle = math.radians(roll_deg)
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (unit / 0.8 * height @ turn.T + torch.tensor(centre))[None]


def head_landmarks(head: HeadModel, yaw_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> Tensor:
    """The 478 landmarks of the average head in a pose, as a net sees them in a crop of unit size: (478,3)."""
    rotation = rotation_matrix(*torch.tensor([yaw_deg, pitch_deg, roll_deg]))
    shape = head.mean[head.landmarks478] + head.landmark_offset
    points = project(shape[None], rotation[None], torch.ones(1), torch.zeros(1, 2))[0]
    low, high = points.amin(dim=0), points.amax(dim=0)
    extent = high - low
    size = READER_SCALE * torch.maximum(extent[1], 1.2 * extent[0])
    middle = torch.cat([(low + high)[:2] / 2, points[:, 2:].mean().view(1)])
    return (points - middle) / size + torch.tensor([0.5, 0.5, 0.0])


def average_face_model(landmarks: Tensor, confidence: float = 10.0) -> FaceReaderModel:
    """A small real face reader whose last layers are zero: in every crop it sees the same face.

    Args:
        landmarks: (478,3) in crop units.
        confidence: Logit that it is a face.

    Returns:
        The network; it finds the mean head from the front, without expression.
    """
    model = FaceReaderModel(channels=(8, 8, 8, 8), landmark_width=8, head_channels=8, head_width=8).eval()
    for layer in (model.to_landmarks, model.to_identity, model.to_expression, model.to_pose, model.to_confidence):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    torch.nn.init.constant_(model.to_expression.bias, -50.0)  # its softplus is 0
    torch.nn.init.constant_(model.to_confidence.bias, confidence)
    model.mean_landmarks.copy_(landmarks)
    return model
