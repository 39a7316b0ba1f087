"""From what a visitor fills in to a request and back, and the words the page helps with."""

from pathlib import Path
from typing import Any

import pytest

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data import captions
from fantasyid.data.repose.backdrops import COLOURS
from fantasyid.generation.request import GenerationRequest, ModelRequest, PersonRequest
from fantasyid.geometry.edit_table import EDIT_NAMES
from fantasyid.ui import prompts
from fantasyid.ui.form import request_asked_for, values_of

MODEL = ModelRequest(device="cpu")
UNTOUCHED: dict[str, Any] = {
    **values_of(GenerationRequest(prompt="A person smiles.", person=PersonRequest(photos=(Path("a.png"),)))),
}
EVERYTHING = GenerationRequest(
    prompt="A woman nods.",
    negative_prompt="a hat",
    person=PersonRequest(
        photos=(Path("a.png"), Path("b.png")),
        face_index=1,
        face_backend="insightface",
        head_file=Path("head.ply"),
        edits={"face-width": 0.5, "lip-fullness": -0.25},
    ),
    use_reference=False,
    identity_scale=0.7,
    guidance_scale=3.5,
    guidance_interval=(0.1, 0.9),
    num_inference_steps=12,
    seed=2**64 - 3,
    num_videos=2,
    num_frames=9,
    height=64,
    width=96,
    fps=12.5,
    model=MODEL,
)


def test_what_is_left_alone_is_left_to_the_model() -> None:
    asked = request_asked_for(UNTOUCHED, MODEL)
    assert asked == GenerationRequest(
        prompt="A person smiles.", person=PersonRequest(photos=(Path("a.png"),)), model=MODEL
    )


@pytest.mark.parametrize("asked", [EVERYTHING, GenerationRequest(prompt="Anybody.", seed=0, model=MODEL)])
def test_every_field_survives_the_form(asked: GenerationRequest) -> None:
    assert request_asked_for(values_of(asked), MODEL) == asked


@pytest.mark.parametrize(
    ("filled_in", "sentence"),
    [
        ({"prompt": "  "}, "The prompt is empty"),
        ({"photo": None}, "There is no photo; add one"),
        ({"seed": "seven"}, "Seed is 'seven'; type a whole number, or leave it empty"),
        ({"seed": "1.5"}, "Seed is '1.5'; type a whole number"),
        ({"guidance_scale": "much"}, "Guidance is 'much'; type a number"),
        ({"guidance_scale": "nan"}, "Guidance is nan; it must be a number from 0 to 100"),
        ({"num_inference_steps": "0"}, "Steps is 0; it must be at least 1"),
        ({"num_frames": "-1"}, "Frames is -1"),
        ({"fps": "1000"}, "Frames per second is 1000"),
        ({"width": "64"}, "Give both width and height"),
        ({"guided_from": 0.8, "guided_to": 0.2}, "Guided share of the steps is"),
        ({"face-width": 0.5, "use_identity_tokens": False}, "switched off under Settings"),
        ({"face-width": 0.5, "face_backend": "deca"}, "Edits are made on the built-in head"),
    ],
)
def test_a_refusal_is_a_sentence_in_the_words_of_the_page(filled_in: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        request_asked_for({**UNTOUCHED, **filled_in}, MODEL)
    assert str(refused.value).startswith(sentence) or sentence in str(refused.value)
    assert "--" not in str(refused.value)


def test_sentences_are_put_together_as_in_training() -> None:
    made = prompts.compose("A woman", "40s", ["turns the head to the left", "smiles"], "plain blue", "from the left")
    assert made == (
        "A woman in her 40s turns the head to the left and smiles, in front of a plain blue background, lit from the "
        "left."
    )
    assert prompts.compose("A person", "any age", [], "as it comes", "as it comes") == "A person looks at the camera."


def test_the_page_offers_every_word_of_training_and_no_other() -> None:
    assert set(prompts.ACTIONS) == set(captions._ACTIONS)
    assert set(prompts.LIGHTS.values()) == {"", *captions._LIGHTS}
    assert len(prompts.PLACES) == 1 + 2 * len(COLOURS)


def test_every_edit_has_its_slider() -> None:
    assert set(EDIT_NAMES) <= set(UNTOUCHED)
