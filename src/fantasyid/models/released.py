"""The identity encoder of the authors' released checkpoint, which is another network than the paper's.

Only what reaches the output is here; docs/released-checkpoint.md lists what does not. Names of weights are ours, and
`checkpoints/released/convert.py` has the table of theirs.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn

from fantasyid.core.errors import TopologyMismatchError
from fantasyid.models.attention import FeedForward
from fantasyid.models.face_abstractor import ChannelNorm, SqueezeExcitation
from fantasyid.models.spiral import SpiralConv, fill_mesh, pool_vertices

CM_PER_METRE = 100.0


class ReleasedBottleneck(nn.Module):
    """The released C-Abstractor's block: 1x1, depthwise 3x3, squeeze-excitation, 1x1, without biases.

    Args:
        in_channels: Channels in; a fourth of them pass the squeeze.
        channels: Channels out, and of all convolutions.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm1 = ChannelNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm2 = ChannelNorm(channels)
        self.excitation = SqueezeExcitation(channels, ratio=4 * channels // in_channels)
        self.conv3 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm3 = ChannelNorm(channels)
        self.skip = (
            nn.Identity()
            if in_channels == channels
            else nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), ChannelNorm(channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H, W)."""
        h = F.silu(self.norm1(self.conv1(x)))
        h = F.silu(self.norm2(self.conv2(h)))
        h = self.norm3(self.conv3(self.excitation(h)))
        return F.silu(h + self.skip(x))


class ReleasedFaceAbstractor(nn.Module):
    """Face tokens to few, wide face tokens: what is left of ten C-Abstractors, the last one.

    Args:
        face_dim: Width of the face tokens.
        grid_size: Side of their grid.
        pooled_size: Side of the grid that comes out; divides `grid_size`.
        conv_dim: Channels of the convolutions.
        token_dim: Width of the tokens that come out.
        num_blocks: Blocks before the pooling, and again after it.
    """

    def __init__(
        self, face_dim: int, grid_size: int, pooled_size: int, conv_dim: int, token_dim: int, num_blocks: int = 3
    ) -> None:
        super().__init__()
        self.mapping = nn.Sequential(
            nn.Linear(face_dim, face_dim),
            nn.LayerNorm(face_dim),
            nn.LeakyReLU(),
            nn.Linear(face_dim, face_dim),
            nn.LayerNorm(face_dim),
            nn.LeakyReLU(),
            nn.Linear(face_dim, face_dim),
        )
        self.positions = nn.Parameter(0.02 * torch.randn(2, grid_size, grid_size, face_dim))
        first, others = ReleasedBottleneck(face_dim, conv_dim), range(num_blocks - 1)
        self.before = nn.Sequential(first, *[ReleasedBottleneck(conv_dim, conv_dim) for _ in others])
        self.pool = nn.AvgPool2d(grid_size // pooled_size)
        self.after = nn.Sequential(*[ReleasedBottleneck(conv_dim, conv_dim) for _ in range(num_blocks)])
        self.mlp = nn.Sequential(nn.Linear(conv_dim, face_dim), nn.SiLU(), nn.Linear(face_dim, face_dim))
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(face_dim),
            nn.Linear(face_dim, 4 * face_dim, bias=False),
            nn.GELU(),
            nn.Linear(4 * face_dim, face_dim, bias=False),
        )
        self.to_out = nn.Linear(face_dim, token_dim, bias=False)

    def forward(self, face_tokens: Tensor) -> Tensor:
        """Abstract a grid of face tokens.

        Args:
            face_tokens: (B, grid_size, grid_size, face_dim).

        Returns:
            (B, pooled_size ** 2, token_dim).
        """
        grid = self.mapping(face_tokens)
        # Two of the authors' layers add theirs, one after the other; added at once, bfloat16 rounds to another sum.
        for position in self.positions:
            grid = grid + position
        grid = self.after(self.pool(self.before(rearrange(grid, "b h w c -> b c h w"))))
        tokens = self.mlp(rearrange(grid, "b c h w -> b (h w) c"))
        out: Tensor = self.to_out(self.feed_forward(tokens))
        return out


class ReleasedTransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward, no bias on queries, keys and values.

    Args:
        dim: Width of the tokens; a multiple of `num_heads`.
        num_heads: Number of heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, ratio=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, dim) to (B, N, dim)."""
        query, key, value = rearrange(
            self.to_qkv(self.norm1(x)), "b n (three h d) -> three b h n d", three=3, h=self.num_heads
        )
        # In the authors' steps, which PyTorch's attention function rounds otherwise; it all runs once per video.
        weights = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        x = x + self.to_out(rearrange(weights.softmax(dim=-1) @ value, "b h n d -> b n (h d)"))
        x = x + self.feed_forward(self.norm2(x))
        return x


class ReleasedResConv1D(nn.Module):
    """A strided residual convolution along the tokens: two convolutions beside one.

    Args:
        in_channels: Channels in.
        out_channels: Channels out, a multiple of 8.
        stride: Tokens that become one; the kernel spans one more.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        kernel, padding = stride + 1, (stride + 1) // 2
        self.conv1 = nn.Conv1d(in_channels, out_channels, kernel, stride, padding)
        self.norm1 = nn.GroupNorm(8, out_channels)
        self.conv2 = nn.Conv1d(out_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, out_channels)
        self.skip = nn.Conv1d(in_channels, out_channels, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, N) to (B, out_channels, ceil(N / stride))."""
        h = F.mish(self.norm1(self.conv1(x)))
        h = F.mish(self.norm2(self.conv2(h)))
        out: Tensor = h + self.skip(x)
        return out


class ReleasedVertexEncoder(nn.Module):
    """Depth of the coarse vertices, seen beside the face tokens, to features of all vertices.

    The mesh is part of the weights: spirals and pooling are persistent buffers, shaped by the config and filled by
    `set_hierarchy` or by loading.

    Args:
        widths: As `ReleasedIdentityEncoder`.
        num_layers: Layers of the transformer.
        num_heads: Its heads.
        levels: Vertex counts of the mesh hierarchy, finest first.
        spiral_length: Vertices in a spiral.
    """

    def __init__(
        self, widths: Sequence[int], num_layers: int, num_heads: int, levels: Sequence[int], spiral_length: int
    ) -> None:
        super().__init__()
        dim = widths[0]
        self.num_steps = len(levels) - 1
        self.queries = nn.Parameter(torch.zeros(1, levels[-1], dim))
        self.narrow = nn.Sequential(
            *[
                nn.Sequential(nn.Linear(wide, wide), nn.GELU(), nn.Linear(wide, narrow))
                for narrow, wide in reversed(list(pairwise(widths)))
            ]
        )
        self.blocks = nn.ModuleList([ReleasedTransformerBlock(dim, num_heads) for _ in range(num_layers)])
        self.convs = nn.ModuleList([SpiralConv(dim, dim, spiral_length) for _ in levels])
        self.head = nn.Linear(dim, dim)
        for step, (fine, coarse) in enumerate(pairwise(levels)):
            self.register_buffer(f"spirals_{step}", torch.zeros(fine, spiral_length, dtype=torch.int64))
            for name, count in (("down", coarse), ("up", fine)):
                self.register_buffer(f"{name}_indices_{step}", torch.zeros(count, 3, dtype=torch.int64))
                self.register_buffer(f"{name}_weights_{step}", torch.zeros(count, 3))

    def set_hierarchy(
        self, spirals: Sequence[Tensor], down: Sequence[tuple[Tensor, Tensor]], up: Sequence[tuple[Tensor, Tensor]]
    ) -> None:
        """Fill in the mesh.

        Args:
            spirals: Per level but the coarsest, vertex indices (N_l, spiral_length).
            down: Per step to the next level, indices (N_{l+1}, 3) into the finer level, and weights (N_{l+1}, 3).
            up: Per step back, indices (N_l, 3) into the coarser level, and weights (N_l, 3).
        """
        tensors = {f"spirals_{step}": spiral for step, spiral in enumerate(spirals)}
        for name, steps in (("down", down), ("up", up)):
            for step, (indices, weights) in enumerate(steps):
                tensors |= {f"{name}_indices_{step}": indices, f"{name}_weights_{step}": weights}
        fill_mesh(self, tensors)

    def forward(self, vertices: Tensor, face: Tensor) -> Tensor:
        """Describe a head at all its vertices.

        Args:
            vertices: (B, N_0, 3) in metres; only the z of the coarse vertices is used.
            face: Pooled face tokens (B, M, widths[-1]).

        Returns:
            (B, N_0, widths[0]).
        """
        coarse = vertices
        for step in range(self.num_steps):
            coarse = self._pool(coarse, "down", step)
        queries = self.queries + encode_released_depth(coarse[..., 2], self.queries.shape[2])

        tokens = torch.cat([queries, self.narrow(face)], dim=1)
        for block in self.blocks:
            tokens = block(tokens)

        shape = tokens[:, : queries.shape[1]]
        *upward, last = self.convs
        for conv, step in zip(upward, reversed(range(self.num_steps)), strict=True):
            shape = F.elu(conv(self._pool(shape, "up", step), self.get_buffer(f"spirals_{step}")))
        out: Tensor = self.head(last(shape, self.get_buffer("spirals_0")))
        return out

    def _pool(self, x: Tensor, direction: str, step: int) -> Tensor:
        indices = self.get_buffer(f"{direction}_indices_{step}")
        return pool_vertices(x, indices, self.get_buffer(f"{direction}_weights_{step}"))


class ReleasedIdentityEncoder(ModelMixin, ConfigMixin):
    """Face tokens and face vertices to identity tokens, as the released checkpoint does it; runs once per video.

    Pooled face tokens are the first identity tokens. They also pass a small transformer together with one token per
    coarse vertex, which knows that vertex's depth and nothing else of it; spiral convolutions take the vertex tokens
    up to the full mesh, and strided convolutions along the vertex numbers take them down again to the other identity
    tokens.

    Loaded in bfloat16 it computes as the authors' code does: only the vertex encoder stays in float32, where a depth
    keeps its millimetres.

    Args:
        face_dim: Width of the face tokens.
        grid_size: Side of the grid of face tokens.
        pooled_size: Side of the grid after pooling.
        conv_dim: Channels of the face abstractor's convolutions.
        widths: Widths from the vertex tokens to the identity tokens, each a multiple of 8.
        strides: Tokens that become one in each strided convolution, one per step of `widths`.
        num_layers: Layers of the transformer over vertex and face tokens.
        num_heads: Its heads.
        levels: Vertex counts of the mesh hierarchy, finest first.
        spiral_length: Vertices in a spiral.
        topology_hash: Hash of the finest mesh; None until `set_hierarchy`.
    """

    photo_style = "ffhq"
    """How a photo is cropped for this encoder; see `conditioning.identity`."""
    _no_split_modules: ClassVar[list[str]] = ["ReleasedTransformerBlock", "ReleasedBottleneck", "ReleasedResConv1D"]
    _keep_in_fp32_modules: ClassVar[list[str]] = ["vertex_encoder"]

    @register_to_config
    def __init__(
        self,
        face_dim: int = 1024,
        grid_size: int = 24,
        pooled_size: int = 6,
        conv_dim: int = 256,
        widths: tuple[int, ...] = (128, 256, 512, 1024, 2048),
        strides: tuple[int, ...] = (4, 4, 2, 2),
        num_layers: int = 6,
        num_heads: int = 4,
        levels: tuple[int, ...] = (5023, 1256, 314),
        spiral_length: int = 9,
        topology_hash: str | None = None,
    ) -> None:
        super().__init__()
        self.face_abstractor = ReleasedFaceAbstractor(face_dim, grid_size, pooled_size, conv_dim, widths[-1])
        self.vertex_encoder = ReleasedVertexEncoder(widths, num_layers, num_heads, levels, spiral_length)
        self.reducer = nn.Sequential(
            *[ReleasedResConv1D(inp, out, stride) for (inp, out), stride in zip(pairwise(widths), strides, strict=True)]
        )

    def set_hierarchy(
        self,
        spirals: Sequence[Tensor],
        down: Sequence[tuple[Tensor, Tensor]],
        up: Sequence[tuple[Tensor, Tensor]],
        topology_hash: str,
    ) -> None:
        """Fill in the mesh that the vertices come from; a checkpoint carries it from then on.

        Args:
            spirals: As `ReleasedVertexEncoder.set_hierarchy`.
            down: As there.
            up: As there.
            topology_hash: Hash of the finest mesh.
        """
        self.vertex_encoder.set_hierarchy(spirals, down, up)
        self.register_to_config(topology_hash=topology_hash)

    def forward(self, face_tokens: Tensor, vertices: Tensor) -> Tensor:
        """Compute the identity tokens.

        Args:
            face_tokens: (B, grid_size, grid_size, face_dim): EVA02-CLIP-L/14-336 after 20 of its 24 blocks, without
                the class token and the final norm; in the encoder's dtype.
            vertices: The person's FLAME head (B, levels[0], 3) in cm, float32. The checkpoint was made with heads that
                keep the photo's pose and expression.

        Returns:
            (B, pooled_size ** 2 + levels[0] divided by the strides, widths[-1]); 115 tokens of 2048 by default.

        Raises:
            TopologyMismatchError: The vertices belong to another mesh, or the encoder has none yet.
        """
        if self.config.topology_hash is None:
            raise TopologyMismatchError("The identity encoder holds no mesh yet; load weights or call set_hierarchy.")
        num_vertices = self.config.levels[0]
        if vertices.shape[1] != num_vertices:
            raise TopologyMismatchError(
                f"The face has {vertices.shape[1]} vertices, but the released identity encoder was trained on a mesh "
                f"of {num_vertices} (FLAME, topology {self.config.topology_hash}); use a FLAME reconstruction."
            )
        face = self.face_abstractor(face_tokens)
        dtype = self.vertex_encoder.queries.dtype
        shape = self.vertex_encoder(vertices.to(dtype) / CM_PER_METRE, face.to(dtype))
        reduced = self.reducer(rearrange(shape.to(face.dtype), "b n c -> b c n"))
        return torch.cat([face, rearrange(reduced, "b c n -> b n c")], dim=1)


def encode_released_depth(depth_m: Tensor, dim: int) -> Tensor:
    """Code depth as the released checkpoint does: half a turn per metre at the finest wave, sines beside cosines.

    A head is 0.25 m deep, so every wave is far from a full turn; the checkpoint was trained like that.

    Args:
        depth_m: z of the coarse vertices (B, N) in metres.
        dim: Width of the code, even.

    Returns:
        (B, N, dim).
    """
    exponent = torch.arange(dim // 2, dtype=torch.float32, device=depth_m.device) / (dim // 2)
    angles = rearrange(2 * math.pi * (0.5 * depth_m + 0.5), "b n -> b n 1") / 10000.0**exponent
    return rearrange([angles.sin(), angles.cos()], "two b n f -> b n (f two)").type_as(depth_m)
