"""What of a prompt the text encoder cannot have learned is told, and English is left in peace."""

from typing import Any

import pytest

from fantasyid.conditioning.prompt_words import doubt_about
from tests.tiny_pipeline import minilm_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return minilm_tokenizer()


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a man \N{GRINNING FACE} smiles", "no token for '\N{GRINNING FACE}'"),
        ("一个女人微笑", "no token for '一个女人微笑'"),
        ("мужчина улыбается", "'мужчина', 'улыбается' is in another script"),
        ("Eine Frau lächelt und dreht den Kopf nach links", "looks like German"),
        ("Une femme sourit et tourne la tête", "looks like French"),
        ("Un hombre sonríe y asiente con la cabeza", "looks like Spanish"),
        ("Una donna sorride", "looks like Spanish or Italian"),
        ("O homem vira a cabeça para a esquerda", "looks like Portuguese"),
        ("Een vrouw lacht", "looks like Dutch"),
    ],
)
def test_what_was_not_learned_is_told(tokenizer: Any, prompt: str, message: str) -> None:
    doubt = doubt_about(tokenizer, prompt)
    assert doubt is not None
    assert message in doubt


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "smiling",
        "A woman smiles.",
        "a young woman with red hair turns the head to the left",
        "a cyberpunk hacker girl, neon lights, bokeh, cinematic, photorealistic, 8k",
        "Señora María smiles",
        "a woman en route to the café",
        'a man\'s eyes - 50% closed - look "up"!',
    ],
)
def test_english_is_left_in_peace(tokenizer: Any, prompt: str) -> None:
    assert doubt_about(tokenizer, prompt) is None
