"""The face abstractor: a grid of tokens to a smaller grid, layout kept (paper 3.2, Honeybee's C-Abstractor)."""

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position of a (B, C, H, W) map, so that positions stay independent."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        return rearrange(super().forward(rearrange(x, "b c h w -> b h w c")), "b h w c -> b c h w")


class SqueezeExcitation(nn.Module):
    """Weigh channels by what the whole map holds.

    Args:
        channels: Channels of the map.
        ratio: Width of the bottleneck as a fraction 1 / ratio of `channels`.
    """

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(channels, channels // ratio), nn.SiLU(), nn.Linear(channels // ratio, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of (B, C, H, W)."""
        weights: Tensor = self.gate(reduce(x, "b c h w -> b c", "mean"))
        return x * rearrange(weights, "b c -> b c 1 1")


class BottleneckBlock(nn.Module):
    """RegNet's residual block: 1x1, grouped 3x3, squeeze-excitation, 1x1.

    Args:
        channels: Channels in and out; a multiple of `group_width`.
        group_width: Channels per group of the 3x3 convolution.
    """

    def __init__(self, channels: int, group_width: int) -> None:
        super().__init__()
        if channels % group_width:
            raise ValueError(f"{channels} channels do not divide into groups of {group_width}")
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.norm1 = ChannelNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels // group_width)
        self.norm2 = ChannelNorm(channels)
        self.excitation = SqueezeExcitation(channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm3 = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        h = F.silu(self.norm1(self.conv1(x)))
        h = F.silu(self.norm2(self.conv2(h)))
        h = self.norm3(self.conv3(self.excitation(h)))
        return F.silu(x + h)


class FaceAbstractor(nn.Module):
    """C-Abstractor: blocks, average pooling, blocks, MLP; the output's layout is the face's.

    The MLP is also the one of 3.4 that takes X_f from C to C'.

    Args:
        in_channels: Width C of the face tokens; a multiple of `group_width`.
        out_channels: Width C' of the result.
        grid_size: Side of the square token grid; a multiple of `pool_factor`.
        pool_factor: Tokens averaged into one, per side.
        num_blocks: Blocks before the pooling, and again after it.
        group_width: Channels per group of the 3x3 convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        grid_size: int,
        pool_factor: int,
        num_blocks: int = 3,
        group_width: int = 16,
    ) -> None:
        super().__init__()
        if grid_size % pool_factor:
            raise ValueError(f"a grid of {grid_size} tokens cannot be pooled by {pool_factor}")
        self.position = nn.Parameter(0.02 * torch.randn(1, in_channels, grid_size, grid_size))
        self.before = nn.Sequential(*[BottleneckBlock(in_channels, group_width) for _ in range(num_blocks)])
        self.pool = nn.AvgPool2d(pool_factor)
        self.after = nn.Sequential(*[BottleneckBlock(in_channels, group_width) for _ in range(num_blocks)])
        self.mlp = nn.Sequential(nn.Linear(in_channels, in_channels), nn.SiLU(), nn.Linear(in_channels, out_channels))

    def forward(self, face_tokens: Tensor) -> Tensor:
        """Abstract a grid of face tokens.

        Args:
            face_tokens: (B, grid_size, grid_size, in_channels).

        Returns:
            (B, grid_size / pool_factor, grid_size / pool_factor, out_channels).
        """
        grid = rearrange(face_tokens, "b h w c -> b c h w") + self.position
        grid = self.after(self.pool(self.before(grid)))
        out: Tensor = self.mlp(rearrange(grid, "b c h w -> b h w c"))
        return out
