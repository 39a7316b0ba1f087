"""Backgrounds look like their words."""

import re

import numpy as np
import pytest

from fantasyid.data.repose.backdrops import COLOURS, backdrop

DRAWS = 300


@pytest.fixture(scope="module")
def drawn() -> list[tuple[np.ndarray, str, str]]:
    rng = np.random.default_rng(7)
    pairs = [backdrop(rng, 32) for _ in range(DRAWS)]
    words = [re.fullmatch(r"in front of a (plain|blurred) (\w+) background", text) for _, text in pairs]
    return [(picture, *match.groups()) for (picture, _), match in zip(pairs, words, strict=True)]


def test_the_named_colour_is_the_nearest_to_a_plain_backdrop(drawn) -> None:
    names, values = list(COLOURS), np.array(list(COLOURS.values()), float)
    plain = [(picture, name) for picture, kind, name in drawn if kind == "plain"]
    for picture, name in plain:
        distance = np.linalg.norm(values - picture.mean((0, 1)), axis=1)
        assert names[distance.argmin()] == name
    assert {name for _, name in plain} == set(COLOURS)


def test_both_kinds_are_drawn_as_often_as_stated(drawn) -> None:
    assert 0.5 < np.mean([kind == "plain" for _, kind, _ in drawn]) < 0.7


def test_plain_backdrops_are_flat_slopes_and_blurred_ones_are_not(drawn) -> None:
    for picture, kind, name in drawn:
        assert picture.shape == (32, 32, 3)
        assert picture.dtype == np.uint8
        if name in ("white", "black"):
            continue  # clipped, or too dark to measure
        bend = np.abs(np.diff(picture.astype(float), 2, axis=1)).mean()
        assert (bend < 1.5) if kind == "plain" else (picture.std((0, 1)).max() > 3)


def test_same_seed_same_backdrop_in_the_size_asked_for() -> None:
    first, second = (backdrop(np.random.default_rng(3), 48) for _ in range(2))
    assert first[1] == second[1]
    assert np.array_equal(first[0], second[0])
    assert first[0].shape == (48, 48, 3)
