"""The paper's identity encoder: face tokens and face vertices become the identity tokens V_F (paper 3.2 to 3.4)."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor

from fantasyid.core.errors import TopologyMismatchError
from fantasyid.models.depth_encoding import encode_depth
from fantasyid.models.face_abstractor import FaceAbstractor
from fantasyid.models.fusion import FusionTransformer, ResConv1D
from fantasyid.models.population_norm import PopulationNorm
from fantasyid.models.qformer import QFormer
from fantasyid.models.spiral import SpiralEncoder


class IdentityEncoder(ModelMixin, ConfigMixin):
    """Fuse what a face looks like with how it is shaped; runs once per video.

    Keep it in float32: bfloat16 rounds a vertex 10 cm from the origin to 0.6 mm, which is what tells people apart.

    Args:
        face_dim: Width C of the face tokens (EVA02-CLIP: 1024).
        grid_size: Side of the grid of face tokens (EVA02-CLIP: 24).
        pool_factor: Downsampling of the grid per side (paper: 4).
        hidden_dim: Width C' of fusion; a multiple of 64.
        num_layers: Layers of the fusion transformer (paper: 6).
        token_dim: Width of the identity tokens (CogVideoX-5B: 3072).
        abstractor: "c-abstractor", or "q-former" for the ablation "w/o FA".
        use_vertices: False for the ablation "w/o FV": only face tokens are fused, and they are the identity tokens.
        levels: Vertex counts of the mesh hierarchy, finest first (FLAME: 5023, 1256, 314).
        spiral_length: Vertices in a spiral.
        spiral_channels: Channels on every level but the last, which has `hidden_dim`.
        topology_hash: Hash of the mesh; None until `set_hierarchy`.
        centre: Whether the tokens are what a person differs by from the training's population, see `PopulationNorm`;
            the paper does not speak of it.
    """

    photo_style: ClassVar[Literal["portrait", "ffhq"]] = "portrait"
    _no_split_modules: ClassVar[list[str]] = ["TransformerBlock"]
    _keep_in_fp32_modules: ClassVar[list[str]] = ["face_abstractor", "vertex_encoder", "fusion", "lift", "population"]

    @register_to_config
    def __init__(
        self,
        face_dim: int = 192,
        grid_size: int = 12,
        pool_factor: int = 2,
        hidden_dim: int = 128,
        num_layers: int = 6,
        token_dim: int = 448,
        abstractor: Literal["c-abstractor", "q-former"] = "c-abstractor",
        use_vertices: bool = True,
        levels: tuple[int, ...] = (5912, 1478, 314),
        spiral_length: int = 9,
        spiral_channels: tuple[int, ...] = (32, 64),
        topology_hash: str | None = None,
        centre: bool = False,
    ) -> None:
        super().__init__()
        abstractors = {"c-abstractor": FaceAbstractor, "q-former": QFormer}
        self.face_abstractor = abstractors[abstractor](face_dim, hidden_dim, grid_size, pool_factor)
        self.vertex_encoder = (
            SpiralEncoder(levels, spiral_length, (*spiral_channels, hidden_dim)) if use_vertices else None
        )
        self.fusion = FusionTransformer(hidden_dim, num_layers, num_heads=hidden_dim // 64)
        self.lift = ResConv1D(hidden_dim, token_dim)
        num_tokens = levels[-1] if use_vertices else (grid_size // pool_factor) ** 2
        self.population = PopulationNorm(num_tokens, token_dim) if centre else None

    def set_hierarchy(
        self,
        spirals: Sequence[Tensor],
        down: Sequence[tuple[Tensor, Tensor]],
        template: Tensor,
        topology_hash: str,
    ) -> None:
        """Fill in the mesh that the vertices come from; a checkpoint carries it from then on.

        Args:
            spirals: Per level, vertex indices (N_l, spiral_length).
            down: Per step to the next level, indices (N_{l+1}, 3) into the finer level, and weights (N_{l+1}, 3).
            template: The mean neutral head (N_0, 3) in cm.
            topology_hash: Hash of the finest mesh.
        """
        assert self.vertex_encoder is not None, "an encoder without vertices has no mesh"
        self.vertex_encoder.set_hierarchy(spirals, down, template)
        self.register_to_config(topology_hash=topology_hash)

    def forward(self, face_tokens: Tensor, vertices: Tensor) -> Tensor:
        """Compute the identity tokens.

        Args:
            face_tokens: (B, grid_size, grid_size, face_dim).
            vertices: The person's neutral head (B, levels[0], 3) in cm; unused by an encoder without vertices.

        Returns:
            V_F (B, levels[-1], token_dim); without vertices (B, (grid_size / pool_factor) ** 2, token_dim).

        Raises:
            TopologyMismatchError: The vertices belong to another mesh, or the encoder has none yet.
        """
        return self.centred(self.describe(face_tokens, vertices))

    def centred(self, tokens: Tensor) -> Tensor:
        """Take out of tokens (B, N, token_dim) what people have in common, if the encoder does so (`centre`)."""
        return tokens if self.population is None else self.population(tokens)

    def describe(self, face_tokens: Tensor, vertices: Tensor) -> Tensor:
        """Compute the tokens before what people have in common is taken out; arguments and shapes as in `forward`."""
        tokens = rearrange(self.face_abstractor(face_tokens), "b h w c -> b (h w) c")
        if self.vertex_encoder is None:
            fused: Tensor = self.lift(self.fusion(tokens))
            return fused
        if self.config.topology_hash is None:
            raise TopologyMismatchError("The identity encoder holds no mesh yet; load weights or call set_hierarchy.")
        num_vertices = self.config.levels[0]
        if vertices.shape[1] != num_vertices:
            raise TopologyMismatchError(
                f"The face has {vertices.shape[1]} vertices, but the identity encoder was trained on a mesh of "
                f"{num_vertices} (topology {self.config.topology_hash}); use the head model it was trained with."
            )
        shape = self.vertex_encoder(vertices.type_as(face_tokens))
        depth_code = encode_depth(shape.vertices[..., 2], self.config.hidden_dim)
        vertex_tokens = shape.features + depth_code
        fused = self.fusion(torch.cat([vertex_tokens, tokens], dim=1))
        lifted: Tensor = self.lift(fused[:, : vertex_tokens.shape[1]])
        return lifted
