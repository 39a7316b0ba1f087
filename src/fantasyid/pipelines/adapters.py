"""LoRA adapters of CogVideoX's transformer: diffusers' own loading, and merging a file into the weights for good."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import CogVideoXLoraLoaderMixin
from torch import Tensor, nn

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.optional import require
from fantasyid.core.safetensors_files import load_safetensors

_PREFIX, _DOWN, _UP = "transformer.", ".lora_A.weight", ".lora_B.weight"
_REMEDY = "Give a LoRA of CogVideoX as diffusers saves it."


class AdaptersPipeline(CogVideoXLoraLoaderMixin, DiffusionPipeline):
    """A pipeline whose transformer takes LoRA adapters, of `fantasyid train` or of anyone's CogVideoX of its size."""

    _lora_loadable_modules: ClassVar[list[str]] = ["transformer"]

    def load_lora_weights(
        self, pretrained_model_name_or_path_or_dict: str | Path | dict[str, Tensor], *arguments: Any, **named: Any
    ) -> None:
        """Put an adapter beside the transformer's weights, as diffusers does; pickles are not read.

        Args:
            pretrained_model_name_or_path_or_dict: A name on the Hub, a folder, or tensors.
            *arguments: Of diffusers' own.
            **named: Likewise, such as `weight_name`.

        Raises:
            InvalidRequestError: A file is named that is no .safetensors.
            MissingBackendError: peft is not installed.
        """
        require("peft", "lora", "use LoRA adapters")
        source = pretrained_model_name_or_path_or_dict
        asked = (named.get("weight_name"), source if not isinstance(source, dict) and Path(source).is_file() else None)
        for file in asked:
            if file is not None and Path(file).suffix != ".safetensors":
                raise InvalidRequestError(
                    f"{file} is no .safetensors, the only kind of adapter that is read. {_REMEDY}"
                )
        super().load_lora_weights(source, *arguments, **{**named, "use_safetensors": True})

    def merge_lora(self, file: Path, scale: float = 1.0) -> None:
        """Add an adapter to the transformer's weights, after which it costs nothing and all options go with it.

        Args:
            file: Safetensors as diffusers saves a LoRA.
            scale: Its strength; 0 changes nothing.

        Raises:
            InvalidRequestError: It does not fit this transformer; nothing was changed.
            CorruptWeightsError: It is damaged.
            MissingBackendError: peft is not installed.
        """
        check_adapter(load_safetensors(file, _REMEDY), self.transformer, file)
        self.load_lora_weights(file.parent, weight_name=file.name, adapter_name="merged")
        self.fuse_lora(lora_scale=scale, adapter_names=["merged"])
        self.unload_lora_weights()


def check_adapter(tensors: Mapping[str, Tensor], transformer: nn.Module, file: Path) -> None:
    """Refuse tensors that are no LoRA of a transformer's layers; diffusers would leave them out with a warning.

    Args:
        tensors: By name.
        transformer: What they are for.
        file: Where they lie, for the error.

    Raises:
        InvalidRequestError: The message names the first tensor that does not fit.
    """
    layers = dict(transformer.named_modules())
    ranks: dict[str, dict[str, int]] = {}
    for name, tensor in tensors.items():
        end = next((end for end in (_DOWN, _UP) if name.endswith(end)), None)
        if end is None or not name.startswith(_PREFIX):
            raise InvalidRequestError(f"{file} is no LoRA of a video transformer: it holds {name!r}. {_REMEDY}")
        layer_name = name.removeprefix(_PREFIX).removesuffix(end)
        layer = layers.get(layer_name)
        if not isinstance(layer, nn.Linear):
            raise InvalidRequestError(
                f"{file} changes {layer_name}, which this model does not have; use the model it was trained on."
            )
        width = layer.in_features if end == _DOWN else layer.out_features
        rank, found = tensor.shape if end == _DOWN else tensor.shape[::-1]
        if found != width:
            raise InvalidRequestError(
                f"{file} is for a transformer with {found} channels at {layer_name}, and this model has {width}; use "
                "the model it was trained on."
            )
        if not torch.isfinite(tensor).all():
            raise InvalidRequestError(f"{file} holds numbers that are not finite in {name}; get the file anew.")
        ranks.setdefault(layer_name, {})[end] = rank
    for layer_name, pair in ranks.items():
        if len(pair) < 2 or pair[_DOWN] != pair[_UP]:
            raise InvalidRequestError(f"{file} holds half of an adapter for {layer_name}; get the file anew.")
    if not ranks:
        raise InvalidRequestError(f"{file} holds no tensor. {_REMEDY}")
