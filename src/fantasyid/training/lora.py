"""A LoRA of the base beside the new parts: few weights that let the base itself learn."""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers.loaders import CogVideoXLoraLoaderMixin
from torch import Tensor
from torch.distributed.tensor import DTensor

from fantasyid.core.optional import require
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.training.config import LoraConfig
from fantasyid.training.parallel import rank, whole

_ADAPTER = "default"
_LAYERS = r"transformer_blocks\.\d+\.attn1\.(to_q|to_k|to_v|to_out\.0)"


def is_adapter(name: str) -> bool:
    """Whether a weight of this name is of a LoRA."""
    return ".lora_" in name


def without_adapters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A transformer's weights by the names that they have without a LoRA."""
    return {name.replace(".base_layer.", "."): tensor for name, tensor in weights.items() if not is_adapter(name)}


def put_together(transformer: FantasyIDTransformer3DModel) -> FantasyIDTransformer3DModel:
    """A transformer whose weights are shared out, or have a LoRA beside them: whole, alone, on the CPU of process 0.

    All processes must ask.

    Returns:
        Itself where it is so. In the other processes it has no weights.
    """
    if not any(isinstance(weight, DTensor) or is_adapter(name) for name, weight in transformer.named_parameters()):
        return transformer
    with torch.device("meta"):
        copy: FantasyIDTransformer3DModel = FantasyIDTransformer3DModel.from_config(transformer.config)
    weights = {}
    for name, tensor in without_adapters(transformer.state_dict()).items():
        one = whole(tensor)
        if rank() == 0:
            weights[name] = one.cpu()
    if rank() == 0:
        copy.load_state_dict(weights, assign=True)
    return copy


def add_lora(transformer: FantasyIDTransformer3DModel, config: LoraConfig) -> None:
    """Put a LoRA beside the attention of every block, as CogVideoX's are made; it changes nothing before training.

    Args:
        transformer: Changed in place.
        config: How large it is.

    Raises:
        MissingBackendError: peft is not installed.
    """
    peft = require("peft", "lora", "train a LoRA")
    transformer.add_adapter(
        peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=_LAYERS), adapter_name=_ADAPTER
    )


def save_lora(transformer: FantasyIDTransformer3DModel, folder: Path) -> None:
    """Write the LoRA of a transformer in diffusers' form, whole and from process 0; all processes must ask.

    Args:
        transformer: It may be shared out.
        folder: Where `pytorch_lora_weights.safetensors` is put.
    """
    tensors = {}
    for name, weight in transformer.named_parameters():
        if is_adapter(name):
            tensors[name.replace(f".{_ADAPTER}.", ".")] = whole(weight.detach()).to("cpu", torch.float32).contiguous()
    if rank() == 0:
        CogVideoXLoraLoaderMixin.save_lora_weights(
            folder,
            transformer_lora_layers=tensors,
            transformer_lora_adapter_metadata=transformer.peft_config[_ADAPTER].to_dict(),
        )
