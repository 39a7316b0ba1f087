"""Options that make denoising faster; each is off or on by name, and they compose."""

from collections.abc import Callable, Mapping
from types import MappingProxyType, MethodType
from typing import Any

import torch
from diffusers import FirstBlockCacheConfig, TaylorSeerCacheConfig
from diffusers.models.activations import GELU
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import nn

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.optional import require
from fantasyid.models.kernels.attention_kernels import use_attention
from fantasyid.models.kernels.fp8 import Fp8Linear, gelu_quantize_rows, multiplies_fp8
from fantasyid.models.kernels.linear_gelu import LinearGelu
from fantasyid.models.transformer import FantasyIDBlock, FantasyIDTransformer3DModel
from fantasyid.pipelines.options import Acceleration

_FP8_CAPABILITY = (8, 9)
_TUNING: Mapping[str, bool] = MappingProxyType({"coordinate_descent_tuning": True, "max_autotune_pointwise": True})


def accelerate(
    transformer: FantasyIDTransformer3DModel, options: Acceleration, device: torch.device | None = None
) -> Acceleration:
    """Speed up a transformer, once, before a memory plan is applied to it.

    Args:
        transformer: The transformer to change.
        options: What to do.
        device: Where it will run; where it is, if not given.

    Returns:
        The options with the kernel that `auto` chose.

    Raises:
        InvalidRequestError: An option is not possible here; the message says why.
        MissingBackendError: A kernel's package is not installed.
    """
    device = device or transformer.device
    if options.attention is not None:
        options = options.model_copy(update={"attention": use_attention(transformer, options.attention, device)})
    if options.fp8:
        if device.type == "cuda" and torch.cuda.get_device_capability(device) < _FP8_CAPABILITY:
            raise InvalidRequestError(
                f"fp8 needs a GPU of compute capability {'.'.join(map(str, _FP8_CAPABILITY))} or higher, and this one "
                f"has {'.'.join(map(str, torch.cuda.get_device_capability(device)))}; leave fp8 off."
            )
        if not multiplies_fp8(device):
            raise InvalidRequestError(
                f"fp8 needs a newer PyTorch on this device ({device.type}) than {torch.__version__}; install 2.13 or "
                "newer, or leave fp8 off."
            )
        quantize_linears(transformer)
    if options.compile:
        if device.type == "cuda":
            use_gpu_kernels(transformer)
        compile_blocks(transformer, tune=options.tune)
    if options.cache == "first-block":
        transformer.enable_cache(FirstBlockCacheConfig(threshold=options.cache_threshold))
    elif options.cache == "taylor":
        # The lite mode keeps one output and its slope, not those of each block (36 GiB at CogVideoX-5B's size).
        transformer.enable_cache(
            TaylorSeerCacheConfig(cache_interval=options.cache_interval, max_order=1, use_lite_mode=True)
        )
    return options


def quantize_linears(transformer: FantasyIDTransformer3DModel) -> None:
    """Put float8 layers in the place of the blocks' linear layers that see all tokens.

    What sees the time only, or the identity tokens once per video, stays as it is: it costs next to nothing. The GELU
    between a block's last two layers becomes part of the second, which rounds what comes out of it.
    """
    for block in transformer.transformer_blocks:
        layers: Any = block.ff.net  # type: ignore[union-attr]
        if _is_tanh_gelu(layers[0]):
            layers[0], layers[2] = Fp8Linear(layers[0].proj), Fp8Linear(layers[2], gelu_quantize_rows)
        injection: Any = block.injection
        once_per_video = () if injection is None else injection.once_per_video
        for name, module in list(block.named_modules()):
            sees_all = not name.startswith(("norm1.", "norm2.")) and module not in once_per_video
            if isinstance(module, nn.Linear) and sees_all:
                block.set_submodule(name, Fp8Linear(module))


def use_gpu_kernels(transformer: FantasyIDTransformer3DModel) -> None:
    """Use our own GPU kernels where PyTorch's compiler passes over memory more often than need be.

    Raises:
        MissingBackendError: Triton is not installed.
    """
    purpose = "run compiled blocks on a GPU"
    norm_rotary = require("fantasyid.models.kernels.norm_rotary", "gpu", purpose).norm_rotary
    gelu_quantize = require("fantasyid.models.kernels.gelu_quantize", "gpu", purpose).gelu_quantize
    for module in transformer.modules():
        if isinstance(module, Attention):
            module.processor.norm_rotary = norm_rotary
        elif isinstance(module, FeedForward) and _is_tanh_gelu(module.net[0]):
            module.net[0] = LinearGelu(module.net[0])
        elif isinstance(module, Fp8Linear) and module.quantize is gelu_quantize_rows:
            module.quantize = gelu_quantize


def _is_tanh_gelu(module: nn.Module) -> bool:
    return isinstance(module, GELU) and module.approximate == "tanh"


def compile_blocks(
    transformer: FantasyIDTransformer3DModel, tune: bool = False, backend: str | Callable[..., Any] = "inductor"
) -> None:
    """Compile the blocks, all by one compilation, as they differ in their weights only.

    Only the block's own computation is compiled, inside whatever hooks are put around it later: step caches decide from
    numbers and offloading moves weights, which no graph can hold.

    Args:
        transformer: Whose blocks to compile.
        tune: Whether to search for the fastest form of each kernel.
        backend: Of `torch.compile`.

    Raises:
        InvalidRequestError: The blocks already have hooks.
    """
    # With several devices, the gathers inside a block are what PyTorch 2.11 can't trace.
    whole = not torch.distributed.is_initialized()
    compiled = torch.compile(
        FantasyIDBlock.forward,
        fullgraph=whole,
        dynamic=False,
        backend=backend,
        options=dict(_TUNING) if tune else None,
    )
    for block in transformer.transformer_blocks:
        if "forward" in vars(block):
            raise InvalidRequestError("The blocks are compiled, cached or offloaded already; compile them first.")
        block.forward = MethodType(compiled, block)
