"""Which attention kernels this machine has, and how diffusers' dispatcher reaches them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fantasyid.core.choices import AttentionKernel
from fantasyid.core.errors import FantasyIDError, InvalidRequestError
from fantasyid.core.optional import require
from fantasyid.core.upstream import ATTENTION_BACKENDS, attend_on_all_devices, flash_attention_3, register_attention
from fantasyid.models.injection import IdentityInjection
from fantasyid.models.joint_attention import JointAttnProcessor

_FLASH = ("flash2", "flash3")
_OLDEST_GPU: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"flash3": (9, 0), "cudnn": (8, 0), "flash2": (8, 0), "efficient": (5, 0)}
)


def attention_problem(kernel: AttentionKernel, device: torch.device) -> str | None:
    """Say why a kernel cannot be used on a device, and the remedy; None if it can."""
    oldest = _OLDEST_GPU.get(kernel)
    if oldest is None:
        return None
    if device.type != "cuda":
        return f"Attention kernel {kernel!r} needs a CUDA device, not {device.type}; use 'native'."
    found = torch.cuda.get_device_capability(device)
    too_new = kernel == "flash3" and found[0] != oldest[0]
    if found < oldest or too_new:
        return (
            f"Attention kernel {kernel!r} needs compute capability {oldest[0]}.{oldest[1]}"
            f"{'' if kernel == 'flash3' else ' or higher'}, and this GPU has {found[0]}.{found[1]}; use 'auto'."
        )
    if kernel == "flash3":
        try:
            require("fa3_fwd_interface", "gpu", "compute attention with FlashAttention-3")
        except FantasyIDError as error:
            return str(error)
    return None


def available_attention(device: torch.device) -> tuple[AttentionKernel, ...]:
    """Name the kernels usable on a device, fastest first."""
    return tuple(kernel for kernel in get_args(AttentionKernel) if attention_problem(kernel, device) is None)


def use_attention(
    transformer: nn.Module, kernel: AttentionKernel | Literal["auto"], device: torch.device | None = None
) -> AttentionKernel:
    """Make the transformer's own attention and its identity attention use one kernel.

    Args:
        transformer: A FantasyID transformer.
        kernel: The kernel, or `"auto"` for the fastest there is.
        device: Where the transformer will run; where it is, if not given.

    Returns:
        The kernel in use.

    Raises:
        InvalidRequestError: The kernel cannot be used here; the message says why.
    """
    device = device or next(transformer.parameters()).device
    if kernel == "auto":
        kernel = available_attention(device)[0]
    problem = attention_problem(kernel, device)
    if problem is not None:
        raise InvalidRequestError(problem)
    if kernel == "flash3":
        _register_flash_attention_3()
    for module in transformer.modules():
        if isinstance(module, IdentityInjection):
            # FlashAttention-2 refuses values that are not as wide as queries, and FlashAttention-3 is slower with them
            # than cuDNN, which PyTorch picks: 0.41 ms against 0.33 on an H100.
            fits = module.has_equal_widths or kernel not in _FLASH
            module.attention_backend = ATTENTION_BACKENDS[kernel if fits else "native"]
        processor = getattr(module, "processor", None)
        if isinstance(processor, JointAttnProcessor):
            processor.attention_backend = ATTENTION_BACKENDS[kernel]
    return kernel


def _register_flash_attention_3() -> None:
    """Put the fa3-fwd package's kernel where diffusers keeps FlashAttention-3.

    Diffusers looks for a module that only a build from source installs, and its entry has no context parallelism.
    """
    require("fa3_fwd_interface", "gpu", "compute attention with FlashAttention-3")
    register_attention(ATTENTION_BACKENDS["flash3"], _flash_attention_3)


def _flash_attention_3(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None = None, _parallel_config: Any = None
) -> Tensor:
    if _parallel_config is None:
        out: Tensor = _flash_attention_3_forward(None, query, key, value, scale=scale)
        return out
    return attend_on_all_devices(query, key, value, scale, _flash_attention_3_forward, _parallel_config)


def _flash_attention_3_forward(
    ctx: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    return_lse: bool = False,
    _save_ctx: bool = False,
    _parallel_config: Any = None,
) -> Any:
    """Attend as diffusers' context parallelism calls a kernel: (B, S, heads, head_dim), lse (B, S, heads)."""
    out, lse = flash_attention_3(query, key, value, scale)
    return (out, lse.transpose(1, 2)) if return_lse else out
