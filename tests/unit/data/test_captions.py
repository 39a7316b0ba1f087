"""Captions, word for word."""

import pytest

from fantasyid.data.captions import caption, subject


@pytest.mark.parametrize(
    ("sex", "decade", "words"),
    [
        (0, 0, "A person"),
        (0, 20, "A person in their 20s"),
        (1, 0, "A woman"),
        (1, 40, "A woman in her 40s"),
        (2, 0, "A man"),
        (2, 70, "A man in his 70s"),
    ],
)
def test_people_are_described_by_sex_and_age(sex: int, decade: int, words: str) -> None:
    assert subject(sex, decade) == words


@pytest.mark.parametrize(
    ("actions", "place", "light", "sentence"),
    [
        (("smiles",), "", "", "A man smiles."),
        (("nods", "talks"), "", "", "A man nods and talks."),
        (("nods",), "in front of a plain red background", "", "A man nods, in front of a plain red background."),
        (("nods",), "", "lit from the left", "A man nods, lit from the left."),
        (("blinks",), "outdoors", "lit from the right", "A man blinks, outdoors, lit from the right."),
    ],
)
def test_sentences(actions: tuple[str, ...], place: str, light: str, sentence: str) -> None:
    assert caption("A man", actions, place, light) == sentence
