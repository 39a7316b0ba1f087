"""The full-size face vision net: the visual tower of EVA02-CLIP-L/14-336 up to the block whose tokens are used."""

import re
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange, repeat
from torch import Tensor, nn

from fantasyid.core.building import BUILDING
from fantasyid.core.checkpoint import fill_network

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

# Names in the published checkpoint to names here. What is on the left and not in the network built is refused.
_RENAMED = {
    "cls_token": "class_token",
    "pos_embed": "position",
    "patch_embed.proj.": "patch_embedding.",
    ".attn.q_proj.weight": ".attention.to_q.weight",
    ".attn.q_bias": ".attention.to_q.bias",
    ".attn.k_proj.weight": ".attention.to_k.weight",
    ".attn.v_proj.weight": ".attention.to_v.weight",
    ".attn.v_bias": ".attention.to_v.bias",
    ".attn.inner_attn_ln.": ".attention.norm.",
    ".attn.proj.": ".attention.to_out.",
    ".mlp.w1.": ".feed_forward.gate.",
    ".mlp.w2.": ".feed_forward.value.",
    ".mlp.ffn_ln.": ".feed_forward.norm.",
    ".mlp.w3.": ".feed_forward.out.",
}
# The text tower, the CLIP head behind the last block, and angles that are computed here.
_UNUSED = re.compile(
    r"text\..*|logit_scale|visual\.(norm|head)\.(weight|bias)|visual\.(blocks\.\d+\.attn\.)?rope\.freqs_(cos|sin)"
)


@dataclass(frozen=True)
class EvaVisionOutput:
    """What the vision net sees in a face.

    Attributes:
        tokens: Grid tokens (B, h, w, width), row 0 at the top of the picture; the class token is left out.
    """

    tokens: Tensor


class RotaryAttention(nn.Module):
    """Self-attention with rotated patches and a norm before its last projection (EVA-02's sub-LN).

    Args:
        width: Channels of the tokens; a multiple of `num_heads`.
        num_heads: Number of heads.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.to_out = nn.Linear(width, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attend.

        Args:
            x: Tokens (B, 1 + N, width), the class token first, which has no place and is not rotated.
            cos: (N, width / num_heads).
            sin: As `cos`.

        Returns:
            (B, 1 + N, width).
        """
        query, key, value = (
            rearrange(project(x), "b n (h d) -> b h n d", h=self.num_heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        attended = F.scaled_dot_product_attention(_rotate(query, cos, sin), _rotate(key, cos, sin), value)
        out: Tensor = self.to_out(self.norm(rearrange(attended, "b h n d -> b n (h d)")))
        return out


class GatedFeedForward(nn.Module):
    """SwiGLU with a norm before its last projection.

    Args:
        width: Channels of input and output.
        hidden_width: Channels inside.
    """

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden_width)
        self.value = nn.Linear(width, hidden_width)
        self.norm = nn.LayerNorm(hidden_width, eps=1e-6)
        self.out = nn.Linear(hidden_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, width) to (B, N, width)."""
        out: Tensor = self.out(self.norm(F.silu(self.gate(x)) * self.value(x)))
        return out


class EvaBlock(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual.

    Args:
        width: Channels of the tokens.
        num_heads: Attention heads.
        feed_forward_width: Channels inside the feed-forward layer.
    """

    def __init__(self, width: int, num_heads: int, feed_forward_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = RotaryAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.feed_forward = GatedFeedForward(width, feed_forward_width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map tokens (B, 1 + N, width) to the same shape; see `RotaryAttention` for the angles."""
        x = x + self.attention(self.norm1(x), cos, sin)
        x = x + self.feed_forward(self.norm2(x))
        return x


class EvaVisionModel(ModelMixin, ConfigMixin):
    """Turn a face crop into grid tokens with EVA02-CLIP (paper 3.2).

    The tokens are those after `num_layers` blocks, without CLIP's final norm. The released checkpoint reads them after
    20 of 24 blocks and never looks at the class token, so its later blocks, norm and head are not built.

    Args:
        image_size: Side of the square crop in pixels.
        patch_size: Pixels per token side; must divide `image_size`.
        width: Channels of the tokens.
        num_layers: Blocks to run.
        num_heads: Attention heads; four times it must divide `width`.
        feed_forward_width: Channels inside the feed-forward layers.
        pretrained_grid: Tokens per side the rotary angles were trained with; the actual grid is stretched over it.
    """

    _no_split_modules: ClassVar[list[str]] = ["EvaBlock"]
    _repeated_blocks: ClassVar[list[str]] = ["EvaBlock"]

    @register_to_config
    def __init__(
        self,
        image_size: int = 336,
        patch_size: int = 14,
        width: int = 1024,
        num_layers: int = 20,
        num_heads: int = 16,
        feed_forward_width: int = 2730,
        pretrained_grid: int = 16,
    ) -> None:
        super().__init__()
        grid = image_size // patch_size
        self.patch_embedding = nn.Conv2d(3, width, patch_size, stride=patch_size)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + grid * grid, width))
        self.blocks = nn.ModuleList([EvaBlock(width, num_heads, feed_forward_width) for _ in range(num_layers)])

    @classmethod
    def from_eva_clip(cls, state: dict[str, Tensor], **config: int) -> "EvaVisionModel":
        """Take the visual tower out of a published EVA02-CLIP checkpoint.

        Args:
            state: The whole checkpoint, text tower and all.
            **config: The arguments of this class; without any it is EVA02-CLIP-L/14-336.

        Returns:
            The network in the checkpoint's dtype, in evaluation mode and without gradients.

        Raises:
            CorruptWeightsError: A tensor is missing, unknown, or of another shape.
        """
        with BUILDING, init_empty_weights(include_buffers=False):
            model: EvaVisionModel = cls(**config)
        kept = {}
        for key, tensor in state.items():
            block = re.match(r"visual\.blocks\.(\d+)\.", key)
            if _UNUSED.fullmatch(key) or (block and int(block[1]) >= model.config.num_layers):
                continue
            name = key.removeprefix("visual.")
            for old, new in _RENAMED.items():
                name = name.replace(old, new)
            kept[name] = tensor
        fill_network(model, kept, "The checkpoint's visual tower is not this EVA02-CLIP")
        return model

    def forward(self, images: Tensor) -> EvaVisionOutput:
        """See a face.

        Args:
            images: Face crops (B, 3, image_size, image_size), RGB, -1 black and 1 white; float32 keeps all of the
                picture until it is normalised.

        Returns:
            Tokens (B, image_size / patch_size, image_size / patch_size, width).
        """
        config = self.config
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        features = self.patch_embedding((((images + 1) / 2 - mean) / std).to(self.dtype))
        grid_height = features.shape[2]
        patches = rearrange(features, "b c h w -> b (h w) c")
        tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), patches], dim=1) + self.position
        cos, sin = _rotary_angles(grid_height, config.pretrained_grid, config.width // config.num_heads, images.device)
        for block in self.blocks:
            tokens = block(tokens, cos, sin)
        return EvaVisionOutput(rearrange(tokens[:, 1:], "b (h w) c -> b h w c", h=grid_height))


def _rotary_angles(grid: int, pretrained_grid: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (grid * grid, head_dim): the first half of the channels turn with the row, the rest with the
    column, neighbouring channels forming a pair."""
    half = head_dim // 2
    frequencies = 10000 ** (-torch.arange(0, half, 2, device=device, dtype=torch.float32) / half)
    places = torch.arange(grid, device=device, dtype=torch.float32) * (pretrained_grid / grid)
    angles = repeat(torch.outer(places, frequencies), "n f -> n (f two)", two=2)
    rows, columns = repeat(angles, "h d -> (h w) d", w=grid), repeat(angles, "w d -> (h w) d", h=grid)
    both = torch.cat([rows, columns], dim=1)
    return both.cos(), both.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate all tokens (B, H, 1 + N, D) but the first, in the precision of the angles."""
    places = x[:, :, 1:].to(cos.dtype)
    even, odd = rearrange(places, "b h n (d two) -> two b h n d", two=2)
    turned = rearrange([-odd, even], "two b h n d -> b h n (d two)")
    return torch.cat([x[:, :, :1], (places * cos + turned * sin).to(x.dtype)], dim=2)
