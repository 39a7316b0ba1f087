"""Numbers a user gives lie within bounds and are finite."""

from typing import Any

import numpy as np
import pytest

from fantasyid.core.bounds import Bounds, check_integer, check_number
from fantasyid.core.errors import InvalidRequestError

BOUNDS = Bounds(1, 9)


@pytest.mark.parametrize("value", [1, 9, 2.5, np.float32(3), np.int64(4)])
def test_numbers_within_bounds_pass(value: Any) -> None:
    check_number("guidance", value, BOUNDS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, 0.999, 10, True, "3", None, 1j])
def test_other_numbers_are_refused_with_the_bounds(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"guidance is .*; it must be a number from 1 to 9\."):
        check_number("guidance", value, BOUNDS)


def test_integers_are_whole() -> None:
    for value in (1, 9, np.int64(4)):
        check_integer("steps", value, BOUNDS)
    for wrong in (0, 10, 2.0, True, float("nan"), "3", None):
        with pytest.raises(InvalidRequestError, match=r"steps is .*; it must be at least 1 and at most 9"):
            check_integer("steps", wrong, BOUNDS)
