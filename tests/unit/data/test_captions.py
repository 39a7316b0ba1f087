"""Captions, word for word, and what all of their wordings agree with."""

import numpy as np
import pytest

from fantasyid.data.captions import caption, subject, worded
from fantasyid.data.repose.programs import PROGRAMS
from tests.unit.data.sentences import decade_of, light_of, says, sex_of, wordings

CAMERA = ("the camera zooms in", "the camera zooms out")
PHRASES = [*(program(np.random.default_rng(0), 9).phrase for _, program in PROGRAMS.values()), *CAMERA]
PLACE = "in front of a plain blue background"


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


def drawn(count: int, *arguments: object, **others: object) -> list[str]:
    rng = np.random.default_rng(0)
    return [worded(rng, *arguments, **others) for _ in range(count)]  # type: ignore[arg-type]


def test_no_wording_of_an_action_speaks_of_another() -> None:
    assert len(set(PHRASES)) == len(PROGRAMS) + 2
    for action in PHRASES:
        for other in PHRASES:
            assert action == other or not any(says(words, other) for words in wordings(action)), (action, other)


@pytest.mark.parametrize("action", PHRASES)
def test_every_wording_says_the_action_and_every_action_has_others(action: str) -> None:
    sentences = drawn(150, 1, 0, [action])
    assert all(says(sentence, action) for sentence in sentences)
    plain = sum(action in sentence for sentence in sentences)
    assert 0 < plain < len(sentences)
    assert len(set(sentences)) > 20


@pytest.mark.parametrize("sex", [0, 1, 2])
@pytest.mark.parametrize("decade", [0, 20, 30, 40, 60, 80])
def test_people_are_of_the_sex_and_age_asked_for_in_every_wording(sex: int, decade: int) -> None:
    sentences = [sentence for action in PHRASES for sentence in drawn(25, sex, decade, ["smiles", action])]
    assert {sex_of(sentence) for sentence in sentences} == {sex}
    ages = {decade_of(sentence) for sentence in sentences}
    kind = {"young"} if decade <= 30 else {"old"} if decade >= 60 else set()
    assert ages == ({"", f"{decade}s"} | kind if decade else {""})


@pytest.mark.parametrize("light", ["", "lit from the left", "lit from the right"])
@pytest.mark.parametrize("place", ["", PLACE, "in front of a blurred red background"])
def test_place_and_light_are_said_in_every_wording(place: str, light: str) -> None:
    sentences = drawn(200, 2, 0, ["nods"], place=place, light=light)
    shown = place.removeprefix("in front of ")
    for sentence in sentences:
        assert light_of(sentence) == light
        assert ("background" in sentence) == bool(place)
        assert shown in sentence
        assert "  " not in sentence
        assert sentence[0].isupper()
    if place:
        assert 0 < sum(sentence.lower().startswith(("in front", "before", "with")) for sentence in sentences) < 100


def test_actions_are_told_in_their_order() -> None:
    for sentence in drawn(100, 1, 40, ["nods", "closes the eyes"], place=PLACE):
        places = [
            min(sentence.find(words) for words in wordings(action) if words in sentence)
            for action in ("nods", "closes the eyes")
        ]
        assert places == sorted(places), sentence


def test_about_a_third_is_plain() -> None:
    """Nothing else gives this sentence, for no other wording has all three clauses' own words and a full stop often."""
    plain = caption(subject(1, 40), ["keeps a serious face"], PLACE, "lit from the left")
    sentences = drawn(2000, 1, 40, ["keeps a serious face"], place=PLACE, light="lit from the left")
    assert np.mean([sentence == plain for sentence in sentences]) == pytest.approx(0.35, abs=0.03)


def test_the_same_seed_words_alike() -> None:
    assert drawn(20, 1, 40, ["nods"]) == drawn(20, 1, 40, ["nods"])
