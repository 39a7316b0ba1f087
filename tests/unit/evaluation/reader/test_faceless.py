"""The pictures without people."""

from itertools import islice

import numpy as np

from fantasyid.evaluation.reader.faceless import NUM_PICTURES, faceless_pictures


def test_a_hundred_different_pictures() -> None:
    names, pictures = zip(*faceless_pictures(), strict=True)
    assert len(pictures) == len(set(names)) == len({picture.tobytes() for picture in pictures}) == NUM_PICTURES
    for name, picture in zip(names, pictures, strict=True):
        assert picture.dtype == np.uint8, name
        assert picture.shape[2:] == (3,), name
        assert min(picture.shape[:2]) >= 100, name
        assert picture.std() > 1, f"{name} is blank"
        assert "/" not in name, "no place on this machine"


def test_the_same_every_time_and_others_of_another_seed() -> None:
    first, again, other = ([picture for _, picture in islice(faceless_pictures(seed), 9)] for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert [np.array_equal(a, b) for a, b in zip(first, other, strict=True)] == [True, False, False] * 3
