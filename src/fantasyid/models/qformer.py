"""The Q-Former: learned queries read the face tokens; the ablation "w/o FA" (paper 4.4) of the face abstractor."""

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from fantasyid.models.attention import FeedForward, MultiHeadAttention


class QFormerLayer(nn.Module):
    """Pre-norm self-attention of the queries, cross-attention to the tokens, feed-forward.

    Args:
        dim: Width of the queries; a multiple of `num_heads`.
        context_dim: Width of the tokens they read.
        num_heads: Number of heads.
    """

    def __init__(self, dim: int, context_dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.self_attention = MultiHeadAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attention = MultiHeadAttention(dim, num_heads, context_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Map queries (B, M, dim), reading context (B, N, context_dim), to (B, M, dim)."""
        queries = queries + self.self_attention(self.norm1(queries))
        queries = queries + self.cross_attention(self.norm2(queries), context)
        queries = queries + self.feed_forward(self.norm3(queries))
        return queries


class QFormer(nn.Module):
    """Learned queries that read a grid of face tokens and keep none of its layout.

    Takes and gives the shapes of `FaceAbstractor`, so that the two swap by config.

    Args:
        in_channels: Width C of the face tokens.
        out_channels: Width C' of the result; a multiple of 64.
        grid_size: Side of the square token grid; a multiple of `pool_factor`.
        pool_factor: The number of queries is (grid_size / pool_factor) squared.
        num_layers: Number of layers.
    """

    def __init__(
        self, in_channels: int, out_channels: int, grid_size: int, pool_factor: int, num_layers: int = 4
    ) -> None:
        super().__init__()
        self.side = grid_size // pool_factor
        self.queries = nn.Parameter(0.02 * torch.randn(1, self.side**2, out_channels))
        self.norm_context = nn.LayerNorm(in_channels)
        self.layers = nn.ModuleList(
            [QFormerLayer(out_channels, in_channels, out_channels // 64) for _ in range(num_layers)]
        )
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, face_tokens: Tensor) -> Tensor:
        """Read a grid of face tokens.

        Args:
            face_tokens: (B, grid_size, grid_size, in_channels).

        Returns:
            (B, grid_size / pool_factor, grid_size / pool_factor, out_channels); the order has no spatial meaning.
        """
        context = self.norm_context(rearrange(face_tokens, "b h w c -> b (h w) c"))
        queries = repeat(self.queries, "1 m c -> b m c", b=face_tokens.shape[0])
        for layer in self.layers:
            queries = layer(queries, context)
        out: Tensor = self.norm(queries)
        return rearrange(out, "b (h w) c -> b h w c", h=self.side)
