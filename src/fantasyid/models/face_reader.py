"""The built-in face reader: a face crop becomes landmarks, head shape, expression, pose and a confidence."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn

NUM_LANDMARKS = 478
DEGREES = 20.0  # about the spread of head poses, so that the pose layer works at the scale of the others


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions around a skip connection.

    GroupNorm, because a batch norm would make one crop's landmarks depend on the other crops.

    Args:
        in_channels: Channels in; a multiple of 8.
        out_channels: Channels out; a multiple of 8.
        stride: 2 halves the resolution, 1 keeps it.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(in_channels // 8, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.norm2 = nn.GroupNorm(out_channels // 8, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = (
            nn.Identity()
            if stride == 1 and in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1, stride=stride)
        )
        self.activation = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        h = self.conv1(self.activation(self.norm1(x)))
        h = self.conv2(self.activation(self.norm2(h)))
        out: Tensor = self.skip(x) + h
        return out


@dataclass(frozen=True)
class FaceCropReading:
    """What `FaceReaderModel` sees in B crops.

    Attributes:
        landmarks: (B, 478, 3) in crop units: x right and y down with 0 and 1 at the crop's edges, z scaled like x,
            smaller = nearer.
        identity: (B, K) coefficients of the head model, in sigmas; expression and pose are not in them.
        expression: (B, E) activations of the head model's expressions, 0 or more.
        pose_deg: (B, 3) yaw, pitch and roll of the head as the crop shows it.
        confidence: (B,) logit that the crop shows a face, placed as the net was trained to see it.
    """

    landmarks: Tensor
    identity: Tensor
    expression: Tensor
    pose_deg: Tensor
    confidence: Tensor


class FaceReaderModel(ModelMixin, ConfigMixin):
    """Read a square face crop, at a size that runs on two CPU cores.

    Stands where the paper has DECA's encoder (3.3). Landmarks are offsets from `mean_landmarks`, a buffer that the
    trainer fills, so they start at the mean face; they come from the second last feature map, flattened, because where
    a feature lies is the answer. All else comes from the last map and from what the landmarks come from: where things
    lie tells a shape that was never seen better than what they look like.

    Args:
        image_size: Side of the square crop in pixels.
        channels: Channels of the stem and of each stage, multiples of 8; every stage halves the resolution, so the
            last map has a side of `image_size / 2 ** len(channels)`.
        landmark_channels: Channels kept per position for the landmarks; a multiple of 8.
        landmark_width: Width of the hidden layer before the points.
        head_channels: Channels kept per position of the last map; a multiple of 8.
        head_width: Width of the hidden layer before shape, expression, pose and confidence.
        head_dropout: Share of that layer's inputs that training drops.
        identity_dim: Identity coefficients K.
        expression_dim: Expression coefficients E.
    """

    mean_landmarks: Tensor

    @register_to_config
    def __init__(
        self,
        image_size: int = 128,
        channels: tuple[int, ...] = (32, 64, 128, 192, 256),
        landmark_channels: int = 16,
        landmark_width: int = 224,
        head_channels: int = 64,
        head_width: int = 384,
        head_dropout: float = 0.1,
        identity_dim: int = 60,
        expression_dim: int = 52,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels[0], 5, stride=2, padding=2)
        blocks = [
            nn.Sequential(ResidualBlock(inp, out, stride=2), ResidualBlock(out, out, stride=1))
            for inp, out in pairwise(channels)
        ]
        self.stages = nn.Sequential(*blocks[:-1])
        self.last_stage = blocks[-1]
        self.landmark_squeeze = _squeeze(channels[-2], landmark_channels)
        self.head_squeeze = _squeeze(channels[-1], head_channels)
        side = image_size // 2 ** len(channels)
        self.landmark_head = nn.Sequential(nn.Linear(landmark_channels * 4 * side * side, landmark_width), nn.SiLU())
        self.to_landmarks = nn.Linear(landmark_width, NUM_LANDMARKS * 3)
        self.head = nn.Sequential(
            nn.Dropout(head_dropout), nn.Linear(head_channels * side * side + landmark_width, head_width), nn.SiLU()
        )
        self.to_identity = nn.Linear(head_width, identity_dim)
        self.to_expression = nn.Linear(head_width, expression_dim)
        self.to_pose = nn.Linear(head_width, 3)
        self.to_confidence = nn.Linear(head_width, 1)
        self.register_buffer("mean_landmarks", torch.zeros(NUM_LANDMARKS, 3))

    def forward(self, images: Tensor) -> FaceCropReading:
        """Read faces.

        Args:
            images: Square face crops (B, 3, image_size, image_size) in [-1, 1], RGB.

        Returns:
            The readings.
        """
        features = self.stages(self.stem(images))
        places = self.landmark_head(rearrange(self.landmark_squeeze(features), "b c h w -> b (c h w)"))
        looks = rearrange(self.head_squeeze(self.last_stage(features)), "b c h w -> b (c h w)")
        hidden = self.head(torch.cat([looks, places], 1))
        offsets = self.to_landmarks(places)
        return FaceCropReading(
            landmarks=self.mean_landmarks + rearrange(offsets, "b (n xyz) -> b n xyz", xyz=3),
            identity=self.to_identity(hidden),
            expression=F.softplus(self.to_expression(hidden)),
            pose_deg=DEGREES * self.to_pose(hidden),
            confidence=self.to_confidence(hidden)[:, 0],
        )


def _squeeze(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.GroupNorm(in_channels // 8, in_channels),
        nn.SiLU(),
        nn.Conv2d(in_channels, out_channels, 1),
        nn.GroupNorm(out_channels // 8, out_channels),
        nn.SiLU(),
    )
