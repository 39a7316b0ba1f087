"""Fusion of 3-D and 2-D face tokens, and the 1-D convolutions that lift them to the injection's width (paper 3.4)."""

from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from fantasyid.models.attention import TransformerBlock
from fantasyid.models.chain import Chain


class FusionTransformer(nn.Module):
    """Pre-norm transformer over the face's tokens, [X_V, X_F].

    Args:
        dim: Width C' of the tokens; a multiple of `num_heads`.
        num_layers: Number of layers L.
        num_heads: Number of heads.
    """

    def __init__(self, dim: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([TransformerBlock(dim, num_heads) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, dim) to (B, N, dim)."""
        for block in self.blocks:
            tokens = block(tokens)
        out: Tensor = self.norm(tokens)
        return out


class ResConv1DBlock(nn.Module):
    """Two normalised 1-D convolutions of width 3 along the tokens, around a skip connection.

    Args:
        in_channels: Channels in, and between the two convolutions.
        out_channels: Channels out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(in_channels)
        self.conv1 = nn.Conv1d(in_channels, in_channels, 3, padding=1)
        self.norm2 = nn.LayerNorm(in_channels)
        self.conv2 = nn.Conv1d(in_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Linear(in_channels, out_channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, in_channels) to (B, N, out_channels)."""
        h = self.conv1(rearrange(F.silu(self.norm1(tokens)), "b n c -> b c n"))
        h = self.conv2(rearrange(F.silu(self.norm2(rearrange(h, "b c n -> b n c"))), "b n c -> b c n"))
        out: Tensor = self.skip(tokens) + rearrange(h, "b c n -> b n c")
        return out


class ResConv1D(Chain):
    """Residual 1-D convolution blocks; the last one lifts C' to the width of the identity tokens.

    Args:
        in_channels: Width C' of the tokens.
        out_channels: Width of the identity tokens.
        num_blocks: Number of blocks.
    """

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int = 4) -> None:
        widths = [in_channels] * num_blocks + [out_channels]
        super().__init__(*[ResConv1DBlock(inp, out) for inp, out in pairwise(widths)])
