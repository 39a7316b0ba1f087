"""Attention and pre-norm blocks shared by the vision net, the Q-Former and the fusion transformer."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from fantasyid.models.chain import Chain


class MultiHeadAttention(nn.Module):
    """Multi-head attention of one sequence to itself or to another.

    Args:
        dim: Width of queries and output; a multiple of `num_heads`.
        num_heads: Number of heads.
        context_dim: Width of the sequence attended to; `dim` when it is the sequence itself.
    """

    def __init__(self, dim: int, num_heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(dim, dim)
        self.to_kv = nn.Linear(dim if context_dim is None else context_dim, 2 * dim)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: Queries (B, M, dim).
            context: Keys and values (B, N, context_dim); `x` itself when None.

        Returns:
            (B, M, dim).
        """
        query = rearrange(self.to_q(x), "b m (h d) -> b h m d", h=self.num_heads)
        key, value = rearrange(
            self.to_kv(x if context is None else context), "b n (two h d) -> two b h n d", two=2, h=self.num_heads
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.to_out(rearrange(attended, "b h m d -> b m (h d)"))
        return out


class FeedForward(Chain):
    """Linear, GELU, linear.

    Args:
        dim: Width of input and output.
        ratio: Hidden width as a multiple of `dim`.
    """

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward, each with a residual.

    Args:
        dim: Width of the tokens; a multiple of `num_heads`.
        num_heads: Number of heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, dim) to (B, N, dim)."""
        x = x + self.attention(self.norm1(x))
        x = x + self.feed_forward(self.norm2(x))
        return x
