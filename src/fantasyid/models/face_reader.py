"""The built-in landmark net: a face crop becomes 478 points."""

from itertools import pairwise

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn

NUM_LANDMARKS = 478


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


class FaceLandmarkModel(ModelMixin, ConfigMixin):
    """Read the 478 MediaPipe landmarks from a square face crop.

    The net predicts the offset from `mean_landmarks`, a buffer that the trainer fills, so it starts at the mean face.
    The last feature map is flattened, not averaged, because where a feature lies is the answer.

    Args:
        image_size: Side of the square crop in pixels.
        channels: Channels per stage, each a multiple of 8; every stage after the first halves the resolution once
            more, so the last map has a side of `image_size / 2 ** len(channels)`.
        head_channels: Channels kept per position of the last map; a multiple of 8.
        head_width: Width of the hidden layer before the points.
    """

    mean_landmarks: Tensor

    @register_to_config
    def __init__(
        self,
        image_size: int = 128,
        channels: tuple[int, ...] = (24, 48, 96, 128),
        head_channels: int = 16,
        head_width: int = 224,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels[0], 5, stride=2, padding=2)
        stages: list[nn.Module] = []
        for inp, out in pairwise(channels):
            stages += [ResidualBlock(inp, out, stride=2), ResidualBlock(out, out, stride=1)]
        self.stages = nn.Sequential(*stages)
        self.squeeze = nn.Sequential(
            nn.GroupNorm(channels[-1] // 8, channels[-1]),
            nn.SiLU(),
            nn.Conv2d(channels[-1], head_channels, 1),
            nn.GroupNorm(head_channels // 8, head_channels),
            nn.SiLU(),
        )
        side = image_size // 2 ** len(channels)
        self.head = nn.Sequential(
            nn.Linear(head_channels * side * side, head_width), nn.SiLU(), nn.Linear(head_width, NUM_LANDMARKS * 3)
        )
        self.register_buffer("mean_landmarks", torch.zeros(NUM_LANDMARKS, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Find the landmarks.

        Args:
            images: Square face crops (B, 3, image_size, image_size) in [-1, 1], RGB.

        Returns:
            Landmarks (B, 478, 3) in crop units: x right and y down with 0 and 1 at the crop's edges, z scaled like x,
            smaller = nearer.
        """
        features = self.squeeze(self.stages(self.stem(images)))
        offsets: Tensor = self.head(rearrange(features, "b c h w -> b (c h w)"))
        return self.mean_landmarks + rearrange(offsets, "b (n xyz) -> b n xyz", xyz=3)
