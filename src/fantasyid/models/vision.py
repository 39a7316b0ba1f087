"""The built-in face vision net: an aligned face crop becomes grid tokens and one identity embedding."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange, repeat
from torch import Tensor, nn

from fantasyid.models.attention import MultiHeadAttention, TransformerBlock
from fantasyid.models.chain import Chain


@dataclass(frozen=True)
class FaceVisionOutput:
    """What the vision net sees in a face.

    Attributes:
        tokens: Grid tokens (B, h, w, width), row 0 at the top of the picture.
        embedding: Identity embedding (B, embedding_dim), unit length.
    """

    tokens: Tensor
    embedding: Tensor


class ConvStem(Chain):
    """Stride-2 convolutions that double the width until the patch size is reached.

    Args:
        patch_size: Pixels per token side; a power of two.
        width: Channels of the result; a multiple of `patch_size / 2`.
    """

    def __init__(self, patch_size: int, width: int) -> None:
        num_convs = patch_size.bit_length() - 1
        if patch_size != 2**num_convs or width % (patch_size // 2):
            raise ValueError(f"patch_size {patch_size} must be a power of two and half of it must divide width {width}")
        channels = [3] + [width >> (num_convs - 1 - i) for i in range(num_convs)]
        layers: list[nn.Module] = []
        for inp, out in pairwise(channels):
            layers += [nn.Conv2d(inp, out, 3, stride=2, padding=1), nn.GroupNorm(1, out), nn.GELU()]
        super().__init__(*layers)


class FaceVisionModel(ModelMixin, ConfigMixin):
    """Turn an aligned face crop into grid tokens and an identity embedding.

    Stands where the paper has EVA02-CLIP (3.2), at a size that runs on two CPU cores.

    Args:
        image_size: Side of the square crop in pixels.
        patch_size: Pixels per token side; a power of two that divides `image_size`.
        width: Channels of the tokens.
        num_layers: Number of transformer blocks.
        num_heads: Attention heads; must divide `width`.
        embedding_dim: Length of the identity embedding.
    """

    _no_split_modules: ClassVar[list[str]] = ["TransformerBlock"]
    _repeated_blocks: ClassVar[list[str]] = ["TransformerBlock"]

    @register_to_config
    def __init__(
        self,
        image_size: int = 96,
        patch_size: int = 8,
        width: int = 192,
        num_layers: int = 6,
        num_heads: int = 3,
        embedding_dim: int = 128,
    ) -> None:
        super().__init__()
        grid = image_size // patch_size
        self.stem = ConvStem(patch_size, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, grid * grid, width))
        self.blocks = nn.ModuleList([TransformerBlock(width, num_heads) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(width)
        self.pool_query = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.pool = MultiHeadAttention(width, num_heads)
        self.to_embedding = nn.Linear(width, embedding_dim)

    def forward(self, images: Tensor) -> FaceVisionOutput:
        """See a face.

        Args:
            images: Aligned face crops (B, 3, image_size, image_size) in [-1, 1], RGB.

        Returns:
            Tokens (B, image_size / patch_size, image_size / patch_size, width) and unit embedding (B, embedding_dim).
        """
        features = self.stem(images.to(self.dtype))
        grid_height = features.shape[2]
        tokens = rearrange(features, "b c h w -> b (h w) c") + self.position
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        query = repeat(self.pool_query, "1 1 c -> b 1 c", b=images.shape[0])
        pooled = rearrange(self.pool(query, tokens), "b 1 c -> b c")
        embedding = F.normalize(self.to_embedding(pooled), dim=-1)
        return FaceVisionOutput(rearrange(tokens, "b (h w) c -> b h w c", h=grid_height), embedding)
