"""SpiralNet++ on a mesh hierarchy: face vertices become features of the coarse vertices (paper 3.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class SpiralConv(nn.Module):
    """A convolution on a mesh: each vertex's spiral of neighbours, concatenated, through one linear layer.

    Args:
        in_channels: Channels per vertex in.
        out_channels: Channels per vertex out.
        spiral_length: Vertices in a spiral, the centre included.
    """

    def __init__(self, in_channels: int, out_channels: int, spiral_length: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels * spiral_length, out_channels)

    def forward(self, x: Tensor, spirals: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: Vertex features (B, N, in_channels).
            spirals: Vertex indices (N, spiral_length), each row from the centre outwards.

        Returns:
            (B, N, out_channels).
        """
        out: Tensor = self.linear(rearrange(x[:, spirals], "b n s c -> b n (s c)"))
        return out


def pool_vertices(x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Carry vertex features to a coarser mesh, each coarse vertex a barycentric mix of three fine ones.

    Args:
        x: Fine features (B, N, C).
        indices: Fine vertices (M, 3) of every coarse vertex.
        weights: Their weights (M, 3), which sum to 1.

    Returns:
        (B, M, C).
    """
    return torch.einsum("bmkc,mk->bmc", x[:, indices], weights)


@dataclass(frozen=True)
class SpiralOutput:
    """What the spiral encoder finds at the coarse vertices.

    Attributes:
        features: X'_V (B, M, C').
        vertices: The coarse vertices (B, M, 3), in the units of the input.
    """

    features: Tensor
    vertices: Tensor


class SpiralEncoder(nn.Module):
    """Spiral convolution, ELU and mesh pooling per level, and a last convolution on the coarsest mesh.

    The mesh is part of the weights: spirals, pooling and template are persistent buffers, shaped by the config and
    filled by `set_hierarchy` or by loading. A vertex enters as its position (in units of `position_unit_cm`) and its
    offset from the template (in units of `offset_unit_cm`), because people differ by millimetres on a head of
    decimetres.

    Args:
        levels: Vertex counts, finest first.
        spiral_length: Vertices in a spiral.
        channels: Output channels of the convolution on each level; the last is C'.
    """

    position_unit_cm = 10.0
    offset_unit_cm = 0.5
    template: Tensor

    def __init__(self, levels: Sequence[int], spiral_length: int, channels: Sequence[int]) -> None:
        super().__init__()
        if len(levels) != len(channels):
            raise ValueError(f"{len(levels)} levels need as many channel counts, not {len(channels)}")
        inputs = [6, *channels[:-1]]
        self.convs = nn.ModuleList(
            [SpiralConv(inp, out, spiral_length) for inp, out in zip(inputs, channels, strict=True)]
        )
        for level, count in enumerate(levels):
            self.register_buffer(f"spirals_{level}", torch.zeros(count, spiral_length, dtype=torch.int64))
        for level, count in enumerate(levels[1:]):
            self.register_buffer(f"down_indices_{level}", torch.zeros(count, 3, dtype=torch.int64))
            self.register_buffer(f"down_weights_{level}", torch.zeros(count, 3))
        self.register_buffer("template", torch.zeros(levels[0], 3))
        self._kept_template: Tensor | None = None

    @property
    def mean_head(self) -> Tensor:
        """The template (N_0, 3) in cm, also while the buffers are offloaded, if `keep_mean_head` was called before."""
        return self.template if self._kept_template is None else self._kept_template

    def keep_mean_head(self) -> None:
        """Copy the template before the buffers are offloaded: heads are compared with it outside of `forward`."""
        if self._kept_template is None:
            self._kept_template = self.template.detach().clone()

    def set_hierarchy(self, spirals: Sequence[Tensor], down: Sequence[tuple[Tensor, Tensor]], template: Tensor) -> None:
        """Fill in the mesh.

        Args:
            spirals: Per level, vertex indices (N_l, spiral_length).
            down: Per step to the next level, indices (N_{l+1}, 3) into the finer level, and weights (N_{l+1}, 3).
            template: The mean neutral head (N_0, 3) in cm.
        """
        tensors = {f"spirals_{level}": spiral for level, spiral in enumerate(spirals)}
        for level, (indices, weights) in enumerate(down):
            tensors |= {f"down_indices_{level}": indices, f"down_weights_{level}": weights}
        tensors["template"] = template
        self._kept_template = None
        fill_mesh(self, tensors)

    def forward(self, vertices: Tensor) -> SpiralOutput:
        """Describe a head at its coarse vertices.

        Args:
            vertices: The neutral head (B, N_0, 3) in cm: x right, y up, z to the viewer.

        Returns:
            Features (B, N_last, channels[-1]) and coarse vertices (B, N_last, 3).
        """
        offsets = vertices - self.template
        x = torch.cat([vertices / self.position_unit_cm, offsets / self.offset_unit_cm], dim=-1)
        for level, conv in enumerate(self.convs):
            if level > 0:
                down = self.get_buffer(f"down_indices_{level - 1}"), self.get_buffer(f"down_weights_{level - 1}")
                x = pool_vertices(F.elu(x), *down)
                vertices = pool_vertices(vertices, *down)
            x = conv(x, self.get_buffer(f"spirals_{level}"))
        return SpiralOutput(features=x, vertices=vertices)

    def coarse_vertices(self, vertices: Tensor) -> Tensor:
        """Pool heads (B, N_0, 3) down to the coarsest mesh, (B, N_last, 3)."""
        for level in range(len(self.convs) - 1):
            down = self.get_buffer(f"down_indices_{level}"), self.get_buffer(f"down_weights_{level}")
            vertices = pool_vertices(vertices, *down)
        return vertices


def fill_mesh(encoder: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fill an encoder's buffers, all of which describe its mesh, by name.

    Raises:
        ValueError: Names or shapes are not those of the buffers.
    """
    buffers = dict(encoder.named_buffers())
    shapes = {name: tuple(buffer.shape) for name, buffer in buffers.items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if given != shapes:
        raise ValueError(f"the mesh hierarchy has arrays {given}, the encoder was built for {shapes}")
    for name, buffer in buffers.items():
        buffer.copy_(tensors[name])
