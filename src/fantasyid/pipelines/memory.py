"""Memory plans: where a pipeline's networks wait while they are not needed."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, get_args

import torch
from diffusers import DiffusionPipeline
from diffusers.hooks import apply_group_offloading
from torch import nn

from fantasyid.core.choices import MemoryPlan
from fantasyid.core.errors import InvalidRequestError, OutOfMemoryError

_GIB = 2**30
# Peaks measured on an H100 in bfloat16, divided by what they are proportional to.
_DENOISING_BUFFERS = 17
"""Buffers of the size of all tokens of both branches that a denoising step holds at its peak."""
_DECODING_BYTES_PER_PIXEL = 46_000
"""What the VAE holds at its peak for each pixel of a decoded frame, or of a tile where it decodes tiles."""
_TILES = 4
_STREAMED = ("text_encoder", "transformer")


def apply_plan(pipeline: DiffusionPipeline, plan: MemoryPlan | Literal["auto"], device: torch.device) -> MemoryPlan:
    """Place a pipeline's networks, once, after its acceleration was chosen.

    `fast` keeps all of them on the device. `balanced` keeps only the one that is working there, and decodes in tiles.
    `low` keeps the small ones there and streams the blocks of the text encoder and the transformer in as they are
    needed, the next one while one is working; it also decodes in tiles. Tiles change the frames slightly (they are
    decoded apart and blended where they overlap); nothing else changes them.

    Args:
        pipeline: On the CPU.
        plan: The plan, or `"auto"` for the first of them that the free memory suffices for.
        device: Where to compute.

    Returns:
        The plan in use.

    Raises:
        InvalidRequestError: The plan needs a GPU and there is none.
        OutOfMemoryError: No plan fits.
    """
    if plan == "auto":
        plan = _first_fitting(pipeline, device)
    if plan == "fast":
        pipeline.to(device)
    elif device.type == "cpu":
        raise InvalidRequestError(f"Memory plan {plan!r} is for GPUs, and the device is the CPU; use 'fast'.")
    elif plan == "balanced":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        stream_weights(pipeline, device)
    if plan != "fast":
        pipeline.vae.enable_tiling()
        pipeline.vae.enable_slicing()
    pipeline.memory_plan = plan
    return plan


def stream_weights(pipeline: DiffusionPipeline, device: torch.device) -> None:
    """Bring the weights of the two large networks to the device piece by piece, and all others once."""
    for name, component in pipeline.components.items():
        if isinstance(component, nn.Module) and name not in _STREAMED:
            component.to(device)
    apply_group_offloading(pipeline.text_encoder, device, offload_type="leaf_level")
    with_stream = device.type == "cuda"
    pipeline.transformer.enable_group_offload(
        device,
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=with_stream,
        record_stream=with_stream,
    )


def needed_gib(pipeline: DiffusionPipeline, plan: MemoryPlan) -> float:
    """Estimate the peak memory of one video of the model's own size, with guidance."""
    sizes = {
        name: sum(tensor.nbytes for tensor in (*component.parameters(), *component.buffers()))
        for name, component in pipeline.components.items()
        if isinstance(component, nn.Module)
    }
    config, transformer = pipeline.transformer.config, pipeline.transformer
    frames = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
    patches = frames * config.sample_height * config.sample_width // config.patch_size**2
    tokens = patches // (config.patch_size_t or 1) + config.max_text_seq_length
    width = config.num_attention_heads * config.attention_head_dim
    denoising = _DENOISING_BUFFERS * 2 * tokens * width * transformer.dtype.itemsize
    pixels = config.sample_height * config.sample_width * pipeline.vae_scale_factor_spatial**2
    share = pipeline.vae.config.block_out_channels[0] / 128 * pipeline.vae.dtype.itemsize / 2
    decoding = int(_DECODING_BYTES_PER_PIXEL * share * pixels)
    if plan == "fast":
        return float(sum(sizes.values()) + max(denoising, decoding)) / _GIB
    if plan == "balanced":
        working = {**sizes, "transformer": sizes["transformer"] + denoising, "vae": sizes["vae"] + decoding // _TILES}
        return float(max(working.values())) / _GIB
    resident = sum(size for name, size in sizes.items() if name not in _STREAMED)
    block = sizes["transformer"] // config.num_layers
    embedding = int(pipeline.text_encoder.get_input_embeddings().weight.nbytes)
    return float(resident + max(denoising + 3 * block, decoding // _TILES, embedding)) / _GIB


def _first_fitting(pipeline: DiffusionPipeline, device: torch.device) -> MemoryPlan:
    if device.type != "cuda":
        return "fast"
    free = torch.cuda.mem_get_info(device)[0] / _GIB
    for plan in get_args(MemoryPlan):
        if needed_gib(pipeline, plan) <= free:
            return plan  # type: ignore[no-any-return]
    raise OutOfMemoryError(
        f"{free:.1f} GiB of the GPU's memory are free, and even plan 'low' needs about "
        f"{needed_gib(pipeline, 'low'):.1f} GiB; free some, or use another GPU or the CPU."
    )


def explain_out_of_memory(call: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a pipeline call's running out of memory into an error that says which plan would fit."""

    @wraps(call)
    def explained(pipeline: DiffusionPipeline, *args: Any, **kwargs: Any) -> Any:
        try:
            return call(pipeline, *args, **kwargs)
        except torch.OutOfMemoryError as error:
            plans = get_args(MemoryPlan)
            smaller = plans[plans.index(pipeline.memory_plan) + 1 :]
            remedy = " or ".join(f"{plan!r} (about {needed_gib(pipeline, plan):.1f} GiB)" for plan in smaller)
            raise OutOfMemoryError(
                f"The GPU's memory does not suffice for memory plan {pipeline.memory_plan!r} (about "
                f"{needed_gib(pipeline, pipeline.memory_plan):.1f} GiB for one video of the model's own size); "
                + (f"use plan {remedy}." if smaller else "make fewer videos at once, or smaller or shorter ones.")
            ) from error

    return explained
