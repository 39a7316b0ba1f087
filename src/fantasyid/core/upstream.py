"""All private API of other packages that this one uses: names with a leading underscore, which any release may change.

No other file uses such a name; `tests/unit/core/test_upstream.py` sees to that, and fails when a name here goes away.
What a child class declares for diffusers to read, such as `_no_split_modules`, stands in the class.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry

# The words of a `_cp_plan`; they have no public address.
from diffusers.models._modeling_parallel import ContextParallelInput as ContextParallelInput
from diffusers.models._modeling_parallel import ContextParallelOutput as ContextParallelOutput
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    _templated_context_parallel_attention,
)
from torch import Tensor, nn

# Tensors with a shape and no content; without a public address, though torch.compile is built on them.
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode

ATTENTION_BACKENDS: Mapping[str, AttentionBackendName] = MappingProxyType(
    {
        "flash3": AttentionBackendName._FLASH_3,
        "cudnn": AttentionBackendName._NATIVE_CUDNN,
        "flash2": AttentionBackendName._NATIVE_FLASH,
        "efficient": AttentionBackendName._NATIVE_EFFICIENT,
        "math": AttentionBackendName._NATIVE_MATH,
        "native": AttentionBackendName.NATIVE,
    }
)
"""Diffusers' names of attention kernels; all but `NATIVE` are private, and the dispatcher takes no others."""

ATTENTION_OPERATIONS = (
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
)
"""What attention is to those who look at operations one by one; public is only the function that chooses among them."""

CPU_ATTENTION = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward,
)
"""The same on a CPU, and its gradient, as PyTorch's counter of operations calls them; it counts those of GPUs alone."""

scaled_product = torch._scaled_mm
"""float8 times float8 with a scale for each row; PyTorch's public layers for it are another package (torchao)."""

add_product_and_activate = torch._addmm_activation
"""A matrix product that applies GELU before it stores anything; reached by no public function."""

move_all_towards = torch._foreach_lerp_
"""`lerp_` of many tensors in few kernels; PyTorch's own averaging of weights uses it and hands it to no one."""

copy_all = torch._foreach_copy_
"""`copy_` of many tensors in few kernels."""


def computes_bfloat16_fast() -> bool:
    """Whether this CPU has instructions for bfloat16; PyTorch tells it by private names alone."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def flash_attention_3(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    """The kernel of the package fa3-fwd; its public function does not return the normaliser.

    Args:
        query: (B, S, heads, head_dim).
        key: (B, N, heads, head_dim).
        value: (B, N, heads, head_dim).
        scale: Of the logits; 1 / sqrt(head_dim) when None.

    Returns:
        What is attended to (B, S, heads, head_dim), and the logarithm of the softmax's sum (B, heads, S).
    """
    out, lse, *_ = torch.ops.fa3_fwd._flash_attn_forward(query, key, value, softmax_scale=scale)
    return out, lse


def register_attention(name: AttentionBackendName, attention: Callable[..., Tensor]) -> None:
    """Put a function where diffusers' dispatcher keeps a kernel, which may take part in context parallelism.

    Diffusers lets kernels be registered by its own files only.
    """
    if _AttentionBackendRegistry._backends[name] is not attention:
        _AttentionBackendRegistry.register(name, supports_context_parallel=True)(attention)


def attend_on_all_devices(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None, forward: Callable[..., Any], parallel_config: Any
) -> Tensor:
    """Attend by a kernel of our own under diffusers' context parallelism, forward only; diffusers' kernels do it so."""
    out: Tensor = _templated_context_parallel_attention(
        query, key, value, scale=scale, forward_op=forward, backward_op=None, _parallel_config=parallel_config
    )
    return out


def register_block(block: type[nn.Module]) -> None:
    """Tell diffusers' step caches that a class of blocks returns video tokens, then text tokens.

    They know the blocks of diffusers' own models, and have no public way to know others.
    """
    TransformerBlockRegistry.register(
        block, TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=1)
    )


def cache_config(model: nn.Module) -> Any:
    """The config of a diffusers model's step cache, or None; only whether there is one is public."""
    return model._cache_config


def reset_step_cache(model: nn.Module) -> None:
    """Forget what a step cache holds, so that the next step computes all; public only as ending the cache."""
    model._reset_stateful_cache()  # type: ignore[operator]


def parallel_config(model: nn.Module) -> Any:
    """What `enable_parallelism` was given, or None; diffusers offers no way to ask, or to change lengths later."""
    return model._parallel_config


def run_checkpointed(model: nn.Module, block: nn.Module, *inputs: Any) -> Any:
    """Run a block whose activations are computed again for the gradient, as every diffusers model does in `forward`."""
    return model._gradient_checkpointing_func(block, *inputs)  # type: ignore[operator]


def execution_device(pipeline: DiffusionPipeline) -> torch.device:
    """Where a pipeline computes, hooks included; `device` says where its weights lie at the moment."""
    device: torch.device = pipeline._execution_device
    return device


def offload_parts(model: nn.Module, names: Sequence[str]) -> None:
    """Tell block-level group offloading that a model's parts are called, and never the model as a whole.

    Diffusers' newer models declare it; of ours the VAE is an older one.
    """
    model._group_offload_block_modules = list(names)  # type: ignore[assignment]


def offloading_group(block: nn.Module) -> Any:
    """The group that diffusers offloads a block with: it has `onload_`, `offload_` and `stream`.

    Group offloading acts before and after `forward`; what works outside of it has to ask the group itself.
    """
    return block._diffusers_hook.get_hook("group_offloading").group  # type: ignore[union-attr, operator]


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks of diffusers or accelerate are on a module; neither offers a way to ask."""
    registry = getattr(module, "_diffusers_hook", None)  # which may be empty
    return hasattr(module, "_hf_hook") or (registry is not None and bool(registry.hooks))
