"""Captions: every script that prompts are written in is drawn, and long lines are broken."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fantasyid.generation.text_drawing import draw_text, text_width, wrap_text

SCRIPTS = {
    "accents": "Eine Frau lächelt; čeština, żółć, élève, ñandú, İstanbul, Việt",
    "greek": "χαμογελάει",
    "cyrillic": "Женщина улыбается и щурится, усміхається їжак",
    "simplified": "一位女士微笑着把头转向左边，背景是蓝色的。",
    "traditional": "一位女士微笑著把頭轉向左邊，龜龍鬱",
    "japanese": "女性がほほえむ、カメラを見る。",
    "korean": "여자가 미소를 짓는다",
    "hebrew": "אישה מחייכת",
    "arabic": "امرأة تبتسم",
}


def drawn(text: str) -> np.ndarray:
    page = Image.new("RGB", (60 + round(text_width(text, 20)), 40), "white")
    draw_text(ImageDraw.Draw(page), (10, 5), text, 20, (0, 0, 0))
    return np.asarray(page.convert("L"))


@pytest.mark.parametrize("script", list(SCRIPTS))
def test_no_character_is_a_box(script: str) -> None:
    box = drawn("\U0010fffd")
    assert box.min() < 100, "there is a box to compare with"
    characters = sorted(set(SCRIPTS[script]) - {" "})
    pictures = [drawn(character) for character in characters]
    for character, picture in zip(characters, pictures, strict=True):
        assert picture.min() < 150, f"{character} is drawn"
        assert picture.shape != box.shape or not np.array_equal(picture, box), f"{character} is a box"
    assert len({picture.tobytes() for picture in pictures}) == len(characters), "each looks like itself"


def test_a_line_of_two_fonts_has_one_baseline_and_the_width_it_says() -> None:
    both = drawn("ab人cd")
    ink = np.flatnonzero((both < 128).any(axis=0))
    assert ink[0] >= 10
    assert ink[-1] <= 10 + text_width("ab人cd", 20)
    assert text_width("ab人cd", 20) == pytest.approx(text_width("abcd", 20) + text_width("人", 20), abs=1)
    rows = np.flatnonzero((both < 128).any(axis=1))
    assert rows[0] >= 5
    assert rows[-1] < 5 + 28, "within the height of a line of the caption"


def test_an_accent_typed_apart_is_joined() -> None:
    assert wrap_text("e\u0301le\u0300ve", 20, 500) == ["élève"]


def test_lines_are_broken_between_words_and_within_those_that_are_too_long() -> None:
    words = "A woman in her 40s smiles and looks to the left, in front of a plain grey background."
    lines = wrap_text(words, 20, 300)
    assert " ".join(lines) == words
    chinese = SCRIPTS["simplified"] * 3
    broken = wrap_text(f"Look: {chinese}", 20, 300)
    assert "".join(broken) == f"Look:{chinese}"
    for line in (*lines, *broken):
        assert text_width(line, 20) <= 300
    assert len(lines) > 2
    assert wrap_text("  ", 20, 300) == []
