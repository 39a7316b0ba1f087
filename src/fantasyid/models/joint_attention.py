"""CogVideoX's attention over text and video tokens, through diffusers' dispatcher."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor


class JointAttnProcessor:
    """What `CogVideoXAttnProcessor2_0` computes bit for bit, with a choice of kernel and context parallelism.

    Tokens stay in the (B, S, heads, head_dim) layout that projections write and attention kernels read. The rotary code
    is extended over the text by a rotation of zero, so that queries are neither cut apart nor joined again.

    Diffusers' own processor calls PyTorch's attention directly: under a context-parallel plan it would attend to its
    own device's tokens only, without a word.
    """

    _attention_backend: AttentionBackendName | None = None
    """Read and set by diffusers, as is the next."""
    _parallel_config: Any = None
    norm_rotary: Callable[[Tensor, Tensor, Tensor, float, Tensor, Tensor, int], Tensor] | None = None
    """What normalises and rotates queries and keys in one kernel, such as `models.kernels.norm_rotary`."""

    @property
    def attention_backend(self) -> AttentionBackendName | None:
        """Diffusers' name of the kernel; None for the dispatcher's own choice."""
        return self._attention_backend

    @attention_backend.setter
    def attention_backend(self, name: AttentionBackendName) -> None:
        self._attention_backend = name

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend over the joint sequence.

        Args:
            attn: The module whose weights are used.
            hidden_states: Video tokens (B, S, dim).
            encoder_hidden_states: Text tokens (B, L, dim).
            attention_mask: Added to the logits; broadcasts to (B, heads, L + S, L + S).
            image_rotary_emb: Cosine and sine for the video tokens, each (S, head_dim).

        Returns:
            Video tokens (B, S, dim) and text tokens (B, L, dim).
        """
        text_length = encoder_hidden_states.shape[1]
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        query, key, value = (
            project(tokens).unflatten(-1, (attn.heads, -1)) for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        if self.norm_rotary is not None and image_rotary_emb is not None:
            query, key = (
                self.norm_rotary(x, norm.weight, norm.bias, norm.eps, *image_rotary_emb, text_length)
                for x, norm in ((query, attn.norm_q), (key, attn.norm_k))
            )
        else:
            query, key = attn.norm_q(query), attn.norm_k(key)
            if image_rotary_emb is not None:
                cos, sin = image_rotary_emb
                rotary = F.pad(cos, (0, 0, text_length, 0), value=1.0), F.pad(sin, (0, 0, text_length, 0))
                query, key = (apply_rotary_emb(x, rotary, sequence_dim=1) for x in (query, key))
        attended = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=attention_mask,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        out: Tensor = attn.to_out[1](attn.to_out[0](attended.flatten(2, 3)))
        return out[:, text_length:], out[:, :text_length]
