"""Prompts become token states; padding is silent and nothing is cut."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import BertModel, PreTrainedTokenizerBase, T5Config, T5EncoderModel

from fantasyid.conditioning.text import encode_text, load_text_encoder
from fantasyid.core.errors import FantasyIDWarning, InvalidRequestError


@pytest.fixture(scope="module")
def encoder() -> tuple[PreTrainedTokenizerBase, BertModel]:
    return load_text_encoder()


def test_padding_has_no_states_and_no_influence(encoder: tuple[PreTrainedTokenizerBase, BertModel]) -> None:
    states = encode_text(*encoder, ["a person smiles", "", "a young woman with red hair turns the head to the left"])
    assert states.shape == (3, 48, 384)
    assert states.dtype == torch.float32
    lengths = [int(row.abs().sum(dim=1).gt(0).sum()) for row in states]
    assert lengths == [5, 2, 14]
    short = encode_text(*encoder, ["a person smiles"], max_length=8)
    torch.testing.assert_close(states[:1, :8], short)


def test_prompts_differ_in_their_states(encoder: tuple[PreTrainedTokenizerBase, BertModel]) -> None:
    left, right = encode_text(*encoder, ["turns the head to the left", "turns the head to the right"])
    assert (left - right).abs().max() > 0.1


def test_a_long_prompt_is_refused_with_its_length(encoder: tuple[PreTrainedTokenizerBase, BertModel]) -> None:
    exactly = "smile " * 46
    assert encode_text(*encoder, [exactly]).shape == (1, 48, 384)
    with pytest.raises(InvalidRequestError, match="51 tokens and this model takes at most 48; shorten it by 3"):
        encode_text(*encoder, ["a short one", "smile " * 49])


def test_a_long_prompt_is_cut_as_the_tokenizer_cuts(encoder: tuple[PreTrainedTokenizerBase, BertModel]) -> None:
    tokenizer, model = encoder
    prompt = "a young woman with red hair turns the head to the left"
    with pytest.warns(FantasyIDWarning, match="14 tokens .* at most 8; left out is: 'turns the head to the left'"):
        states = encode_text(tokenizer, model, [prompt], max_length=8, truncate=True)
    ids = deepcopy(tokenizer)([prompt], truncation=True, max_length=8, return_tensors="pt").input_ids
    torch.testing.assert_close(states, model(ids).last_hidden_state)
    assert (tokenizer.backend_tokenizer.padding, tokenizer.backend_tokenizer.truncation) == (None, None)


@pytest.mark.parametrize(("text", "message"), [(b"smile", "is a bytes"), ("caf\udce9", "not UTF-8 at character 3")])
def test_what_is_no_text_is_refused(
    encoder: tuple[PreTrainedTokenizerBase, BertModel], text: Any, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        encode_text(*encoder, ["a short one", text])


def test_t5_padding_is_kept_as_upstream(encoder: tuple[PreTrainedTokenizerBase, BertModel]) -> None:
    torch.manual_seed(0)
    config = T5Config(vocab_size=30522, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    model = T5EncoderModel(config).eval()
    tokenizer = encoder[0]
    states = encode_text(tokenizer, model, ["a person smiles"], max_length=12)
    ids = deepcopy(tokenizer)(["a person smiles"], padding="max_length", max_length=12, return_tensors="pt").input_ids
    torch.testing.assert_close(states, model(ids).last_hidden_state.detach())
    assert states[:, 5:].abs().sum() > 0
