"""Layer-aware injection of identity tokens into the video tokens of one transformer block (paper 3.5, Eq. 2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from einops import rearrange
from torch import Tensor, nn

from fantasyid.core.upstream import ContextParallelInput, ContextParallelOutput

InjectionKind = Literal["paper", "paper_without_layers", "released"]
"""The paper's; its ablation "w/o LACSI", without layer-aware features; and that of the authors' checkpoint."""


@dataclass(frozen=True)
class IdentityKeyValues:
    """Keys and values of the identity tokens for every block that injects them.

    They depend neither on time nor on the video, so one computation serves all denoising steps.

    Attributes:
        keys: One (B, heads, N, head_dim) per injecting block, first block first.
        values: The same for the values.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def chunk(self, chunks: int) -> tuple["IdentityKeyValues", ...]:
        """Cut the batch into as many parts, as `Tensor.chunk` does."""
        keys, values = (zip(*[x.chunk(chunks) for x in tensors], strict=True) for tensors in (self.keys, self.values))
        return tuple(map(IdentityKeyValues, keys, values))


class IdentityAttention(nn.Module):
    """Attention of video tokens to identity tokens: Attention(Z_l W_q, V_F W_k, V_F W_v).

    Queries and keys are layer-normalised per head, as in the base block's own attention: the residual stream Z_l grows
    by orders of magnitude over the layers. The keys' norm has no bias, which would move all logits of a query alike.
    Eq. 2 has no output projection; one exists only where the attention is narrower or wider than the block.

    Args:
        dim: Width of the video tokens.
        identity_dim: Width of the identity tokens.
        inner_dim: Width of the values; a multiple of `num_heads`.
        num_heads: Number of heads.
        query_dim: Width of queries and keys, a multiple of `num_heads`; `inner_dim` when None. W_q sees every video
            token at every step, so most of what the attention costs grows with it.
    """

    attention_backend: AttentionBackendName | None = None
    norm_q: nn.Module
    norm_k: nn.Module

    def __init__(
        self, dim: int, identity_dim: int, inner_dim: int, num_heads: int, query_dim: int | None = None
    ) -> None:
        super().__init__()
        query_dim = inner_dim if query_dim is None else query_dim
        for width in (inner_dim, query_dim):
            if width % num_heads:
                raise ValueError(f"injection width {width} is not a multiple of {num_heads} heads")
        self.num_heads = num_heads
        self.to_q = nn.Linear(dim, query_dim, bias=False)
        self.to_k = nn.Linear(identity_dim, query_dim, bias=False)
        self.to_v = nn.Linear(identity_dim, inner_dim, bias=False)
        self.norm_q = nn.LayerNorm(query_dim // num_heads)
        self.norm_k = nn.LayerNorm(query_dim // num_heads, bias=False)
        self.to_out = nn.Identity() if inner_dim == dim else nn.Linear(inner_dim, dim, bias=False)

    @property
    def once_per_video(self) -> tuple[nn.Module, ...]:
        """The layers that see the identity tokens and nothing else, in the order in which `project` calls them."""
        return self.to_k, self.norm_k, self.to_v

    def project(self, identity_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Turn identity tokens (B, N, identity_dim) into a key and a value, each (B, heads, N, head_dim)."""
        key = self.norm_k(rearrange(self.to_k(identity_tokens), "b n (h d) -> b h n d", h=self.num_heads))
        value = rearrange(self.to_v(identity_tokens), "b n (h d) -> b h n d", h=self.num_heads)
        return key, value

    def forward(self, hidden_states: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend from video tokens (B, S, dim) to the projected identity tokens; returns (B, S, dim)."""
        query = self.norm_q(rearrange(self.to_q(hidden_states), "b s (h d) -> b s h d", h=self.num_heads))
        attended = dispatch_attention_fn(
            query, key.transpose(1, 2), value.transpose(1, 2), backend=self.attention_backend
        )
        out: Tensor = self.to_out(attended.flatten(2, 3))
        return out


class ReleasedIdentityAttention(IdentityAttention):
    """The same attention as the authors' released checkpoint has it: tokens are normalised whole, heads are not.

    It always has an output projection, and no gain starts at zero. Unless an attention kernel is chosen, it computes in
    the authors' steps, so that bfloat16 rounds to the same bits.

    Args:
        dim: Width of the video tokens.
        identity_dim: Width of the identity tokens.
        inner_dim: Width of the values; a multiple of `num_heads`.
        num_heads: Number of heads.
        query_dim: Width of queries and keys; `inner_dim` when None.
    """

    def __init__(
        self, dim: int, identity_dim: int, inner_dim: int, num_heads: int, query_dim: int | None = None
    ) -> None:
        super().__init__(dim, identity_dim, inner_dim, num_heads, query_dim)
        self.norm_q, self.norm_k = nn.Identity(), nn.Identity()
        self.norm_hidden = nn.LayerNorm(dim)
        self.norm_identity = nn.LayerNorm(identity_dim)
        self.to_out = nn.Linear(inner_dim, dim, bias=False)

    @property
    def once_per_video(self) -> tuple[nn.Module, ...]:
        """The layers that see the identity tokens and nothing else, in the order in which `project` calls them."""
        return self.norm_identity, *super().once_per_video

    def project(self, identity_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Turn identity tokens (B, N, identity_dim) into a key and a value, each (B, heads, N, head_dim)."""
        return super().project(self.norm_identity(identity_tokens))

    def forward(self, hidden_states: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend from video tokens (B, S, dim) to the projected identity tokens; returns (B, S, dim)."""
        hidden_states = self.norm_hidden(hidden_states)
        if self.attention_backend is not None:
            return super().forward(hidden_states, key, value)
        query = rearrange(self.to_q(hidden_states), "b s (h d) -> b h s d", h=self.num_heads)
        half_scale = query.shape[-1] ** -0.25
        logits = (query * half_scale) @ (key * half_scale).transpose(-1, -2)
        weights = logits.softmax(dim=-1, dtype=torch.float32).type_as(logits)
        out: Tensor = self.to_out(rearrange(weights @ value, "b h s d -> b s (h d)"))
        return out


class LayerAwareFeature(nn.Module):
    """F_l of Eq. 2: a depthwise convolution over the token grid, then LayerNorm whose gain and bias start at zero.

    The paper says "a convolution block followed by normalization" and gives no size. The kernel spans (1, 3, 3) of the
    (T, H, W) grid: the block's own attention already mixes time, a 2-D depthwise kernel is the fast one on every
    device, and no latent frame needs a neighbour that another device may hold. It starts as the identity kernel.

    Args:
        dim: Width of the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.norm = nn.LayerNorm(dim)
        nn.init.dirac_(self.conv.weight, groups=dim)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, features: Tensor, token_grid: tuple[int, int, int]) -> Tensor:
        """Weigh the attended identity features for this layer.

        Args:
            features: (B, T * H * W, dim), frames first, then rows, then columns.
            token_grid: T, H and W, in tokens.

        Returns:
            (B, T * H * W, dim); zero until trained.
        """
        frames, height, width = token_grid
        grid = rearrange(features, "b (t h w) c -> (b t) c h w", t=frames, h=height, w=width)
        out: Tensor = self.norm(rearrange(self.conv(grid), "(b t) c h w -> b (t h w) c", t=frames))
        return out


class IdentityInjection(nn.Module):
    """What one block adds to its video tokens: F_l(Attention(Z_l W_q, V_F W_k, V_F W_v)) (paper 3.5, Eq. 2).

    Who speeds it up, moves it or shares it among devices asks it for what they need to know. Its child classes are the
    other kinds; `INJECTIONS` has them by name.

    Args:
        dim: Width of the video tokens.
        identity_dim: Width of the identity tokens.
        inner_dim: Width of the attention's values.
        num_heads: Heads of the attention.
        query_dim: Width of the attention's queries and keys; `inner_dim` when None.
    """

    attention_class: ClassVar[type[IdentityAttention]] = IdentityAttention
    """What attends to the identity tokens."""
    has_feature: ClassVar[bool] = True
    """Whether there is an F_l; if not, what is attended to is added as it is."""
    shares_gain: ClassVar[bool] = False
    """Whether the transformer scales what all layers add by one gain, zero-initialised."""
    rounds_latents: ClassVar[bool] = False
    """Whether the noisy latents have the network's dtype between two steps, and not float32."""

    def __init__(
        self, dim: int, identity_dim: int, inner_dim: int, num_heads: int, query_dim: int | None = None
    ) -> None:
        super().__init__()
        self.attention = self.attention_class(dim, identity_dim, inner_dim, num_heads, query_dim)
        self.feature = LayerAwareFeature(dim) if self.has_feature else None

    @property
    def once_per_video(self) -> tuple[nn.Module, ...]:
        """The layers that work in `project` alone, in the order of their calls; all others see every video token."""
        return self.attention.once_per_video

    @property
    def attention_backend(self) -> AttentionBackendName | None:
        """Diffusers' name of the attention's kernel; None for the dispatcher's own choice."""
        return self.attention.attention_backend

    @attention_backend.setter
    def attention_backend(self, name: AttentionBackendName) -> None:
        self.attention.attention_backend = name

    @property
    def has_equal_widths(self) -> bool:
        """Whether the attention's values are as wide as its queries, as some kernels want it."""
        return self.attention.to_q.out_features == self.attention.to_v.out_features

    @property
    def context_parallel_plan(self) -> dict[str, Any]:
        """What diffusers' context parallelism gathers for it, by the names of its parts; nothing, if it can stay split.

        Attention to the identity needs no other video token. F_l convolves over whole latent frames, which an even
        split of the tokens cuts apart: its input is gathered, every device computes it (under 3 % of a block), and its
        output is split again.
        """
        if self.feature is None:
            return {}
        gather = ContextParallelOutput(gather_dim=1, expected_dims=3)
        split = ContextParallelInput(split_dim=1, expected_dims=3, split_output=True)
        return {"attention": gather, "feature": {0: split}}

    def project(self, identity_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Turn identity tokens (B, N, identity_dim) into a key and a value, each (B, heads, N, head_dim)."""
        return self.attention.project(identity_tokens)

    def forward(self, hidden_states: Tensor, key: Tensor, value: Tensor, token_grid: tuple[int, int, int]) -> Tensor:
        """Compute the addition to the video tokens.

        Args:
            hidden_states: Video tokens (B, T * H * W, dim).
            key: Identity keys (B, heads, N, head_dim).
            value: Identity values (B, heads, N, head_dim).
            token_grid: T, H and W, in tokens.

        Returns:
            (B, T * H * W, dim).
        """
        attended: Tensor = self.attention(hidden_states, key, value)
        if self.feature is None:
            return attended
        weighed: Tensor = self.feature(attended, token_grid)
        return weighed


class InjectionWithoutLayers(IdentityInjection):
    """The ablation "w/o LACSI" (paper 4.4, Table 3): no F_l, and one gain that all layers share in its place."""

    has_feature = False
    shares_gain = True


class ReleasedInjection(IdentityInjection):
    """What the authors' checkpoint adds: what its attention gives, as it is. It is not silent before training."""

    attention_class = ReleasedIdentityAttention
    has_feature = False
    rounds_latents = True


INJECTIONS: Mapping[InjectionKind, type[IdentityInjection]] = MappingProxyType(
    {"paper": IdentityInjection, "paper_without_layers": InjectionWithoutLayers, "released": ReleasedInjection}
)
"""The injection of each kind."""


def current_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Say in today's words what a config says that named the injection by two fields.

    Until there were three kinds, a config had `use_layer_aware`, and "paper" or "released" as `injection_kind`.

    Args:
        config: A transformer's, of then or of now.

    Returns:
        The config of now.

    Raises:
        ValueError: The two fields contradict each other.
    """
    fields = dict(config)
    is_layer_aware = fields.pop("use_layer_aware", None)
    kind = fields.get("injection_kind", "paper")
    if is_layer_aware is None or (kind == "paper" and is_layer_aware):
        return fields
    if is_layer_aware:
        raise ValueError(f"use_layer_aware is True, and an injection of the kind {kind} has no layer-aware features")
    if kind == "paper":
        # The kind may stand among the fields that were left at what was then their default.
        unset = [name for name in fields.get("_use_default_values", ()) if name != "injection_kind"]
        fields |= {"injection_kind": "paper_without_layers", "_use_default_values": unset}
    return fields
