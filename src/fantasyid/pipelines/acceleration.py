"""Options that make denoising faster; each is off or on by name, and they compose."""

from types import MethodType
from typing import Annotated, Literal

import torch
from diffusers import FirstBlockCacheConfig, TaylorSeerCacheConfig
from diffusers.models.attention_processor import Attention
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.optional import require
from fantasyid.models.attention_kernels import AttentionKernel, use_attention
from fantasyid.models.fp8 import Fp8Linear
from fantasyid.models.transformer import FantasyIDBlock, FantasyIDTransformer3DModel

CacheKind = Literal["first-block", "taylor"]

_FP8_CAPABILITY = (8, 9)


class Acceleration(BaseModel):
    """What to speed up; the defaults change nothing, not even by a bit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    compile: bool = False
    """Compile the blocks, with one kernel of our own on GPUs: exact up to rounding; the first step takes longer."""
    attention: AttentionKernel | Literal["auto"] | None = None
    """Attention kernel: exact up to rounding; `auto` takes the fastest there is, None what PyTorch takes."""
    fuse_qkv: bool = False
    """One matrix product for query, key and value: exact; the transformer can't be saved afterwards."""
    fp8: bool = False
    """Linear layers of the blocks in 8-bit floating point, scaled by row; the transformer can't be saved afterwards."""
    cache: CacheKind | None = None
    """Skip steps whose outcome can be told from earlier ones.

    `first-block` repeats what the blocks added last time while the first block's own addition changes little; `taylor`
    extrapolates the output linearly, computing every `cache_interval`-th step.
    """
    cache_threshold: Annotated[float, Field(gt=0)] = 0.1
    """Relative change of the first block's addition below which `first-block` skips."""
    cache_interval: Annotated[int, Field(ge=2)] = 3
    """`taylor` computes one of so many steps."""


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
    if options.fuse_qkv:
        fuse_projections(transformer)
    if options.fp8:
        if device.type == "cuda" and torch.cuda.get_device_capability(device) < _FP8_CAPABILITY:
            raise InvalidRequestError(
                f"fp8 needs a GPU of compute capability {'.'.join(map(str, _FP8_CAPABILITY))} or higher, and this one "
                f"has {'.'.join(map(str, torch.cuda.get_device_capability(device)))}; leave fp8 off."
            )
        quantize_linears(transformer)
    if options.compile:
        if device.type == "cuda":
            fuse_norm_and_rotary(transformer)
        compile_blocks(transformer)
    if options.cache == "first-block":
        transformer.enable_cache(FirstBlockCacheConfig(threshold=options.cache_threshold))
    elif options.cache == "taylor":
        # The lite mode keeps one output and its slope, not those of each block (36 GiB at CogVideoX-5B's size).
        transformer.enable_cache(
            TaylorSeerCacheConfig(cache_interval=options.cache_interval, max_order=1, use_lite_mode=True)
        )
    return options


def fuse_projections(transformer: FantasyIDTransformer3DModel) -> None:
    """Compute query, key and value of each block in one matrix product; their separate weights are dropped."""
    for block in transformer.transformer_blocks:
        attention: Attention = block.attn1
        attention.fuse_projections()
        del attention.to_q, attention.to_k, attention.to_v


def quantize_linears(transformer: FantasyIDTransformer3DModel) -> None:
    """Put float8 layers in the place of the blocks' linear layers that see all tokens.

    What sees the time only, or the identity tokens once per video, stays as it is: it costs next to nothing.
    """
    for block in transformer.transformer_blocks:
        for name, module in list(block.named_modules()):
            once_per_video = name.startswith("injection.") and name.endswith((".to_k", ".to_v"))
            if isinstance(module, nn.Linear) and not name.startswith(("norm1.", "norm2.")) and not once_per_video:
                block.set_submodule(name, Fp8Linear(module))


def fuse_norm_and_rotary(transformer: FantasyIDTransformer3DModel) -> None:
    """Normalise and rotate queries and keys in one GPU kernel.

    Raises:
        MissingBackendError: Triton is not installed.
    """
    norm_rotary = require("fantasyid.models.norm_rotary", "gpu", "run compiled blocks on a GPU").norm_rotary
    for module in transformer.modules():
        if isinstance(module, Attention):
            module.processor.norm_rotary = norm_rotary


def compile_blocks(transformer: FantasyIDTransformer3DModel, backend: str = "inductor") -> None:
    """Compile the blocks, all by one compilation, as they differ in their weights only.

    Only the block's own computation is compiled, inside whatever hooks are put around it later: step caches decide from
    numbers and offloading moves weights, which no graph can hold.

    Args:
        transformer: Whose blocks to compile.
        backend: Of `torch.compile`.

    Raises:
        InvalidRequestError: The blocks already have hooks.
    """
    # With several devices, the gathers inside a block are what PyTorch 2.11 can't trace.
    whole = not torch.distributed.is_initialized()
    compiled = torch.compile(FantasyIDBlock.forward, fullgraph=whole, dynamic=False, backend=backend)
    for block in transformer.transformer_blocks:
        if "forward" in vars(block):
            raise InvalidRequestError("The blocks are compiled, cached or offloaded already; compile them first.")
        block.forward = MethodType(compiled, block)
