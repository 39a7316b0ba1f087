"""Numbers with their 95 % intervals over people, and the bars they have to meet."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

RESAMPLES = 1000

Draw = NDArray[np.int64]
"""(P,) indices of people, some more than once; 0, 1, ... P-1 for the value itself."""
Direction = Literal["at least", "at most"]


class ReportLine(BaseModel):
    """One number of a table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: float | None
    """None if nothing could be measured."""
    low: float | None
    """2.5 % of 1,000 bootstrap samples over people."""
    high: float | None
    bar: float | None = None
    direction: Direction | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without a bar."""
        if self.bar is None:
            return None
        if self.value is None:
            return False
        return self.value >= self.bar if self.direction == "at least" else self.value <= self.bar


def report_line(
    name: str,
    statistic: Callable[[Draw], float | None],
    num_people: int,
    bar: float | None = None,
    direction: Direction | None = None,
    of_sets: bool = False,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> ReportLine:
    """Evaluate a statistic and its interval: bootstrap samples draw people, not their pictures or videos.

    The draws are the same at every call, and samples in which nothing can be measured do not count. A sample holds
    fewer people than there are, because some are drawn twice. For a mean that makes no difference; a distance of two
    sets grows as they get smaller, so that all samples may lie above the value. The samples of such a statistic are
    moved so that their mean is the value: the interval is of the number that as many other people would have.

    Args:
        name: Of the number.
        statistic: Of the people drawn; None where they have nothing to measure.
        num_people: P.
        bar: What it has to reach, if anything.
        direction: Of the bar; without a bar it is left out.
        of_sets: Whether the statistic depends on how many different people there are.
        bounds: The lowest and the highest value there can be, which a moved interval does not leave.
    """
    draws = np.random.default_rng(0).integers(0, num_people, (RESAMPLES, num_people))
    resampled = [statistic(draw) for draw in draws]
    known = [value for value in resampled if value is not None]
    low, high = np.percentile(known, [2.5, 97.5]) if known else (None, None)
    value = statistic(np.arange(num_people))
    if of_sets and known and value is not None:
        low, high = np.clip(np.array([low, high]) + value - np.mean(known), *bounds)
    direction = direction if bar is not None else None
    return ReportLine(name=name, value=value, low=low, high=high, bar=bar, direction=direction)


def swap_test(difference: Callable[[NDArray[np.bool_]], float | None], num_people: int) -> float | None:
    """How probable a difference of two systems is where there is none: a permutation test over people.

    If the systems are alike, each person's videos may change places between them. The answer is the share of random
    exchanges, the given one among them, that differ at least as much; the draws are the same at every call.

    Args:
        difference: Of the systems, with the videos of the people where (P,) is True exchanged.
        num_people: P.

    Returns:
        p, two-sided, at least 1 / 1,001; None where nothing can be measured.
    """
    seen = difference(np.zeros(num_people, np.bool_))
    if seen is None:
        return None
    draws = np.random.default_rng(1).random((RESAMPLES, num_people)) < 0.5
    others = [difference(draw) for draw in draws]
    # What rounding makes of an equal difference is equal.
    as_large = [other is not None and abs(other) >= abs(seen) * (1 - 1e-9) for other in others]
    return (1 + sum(as_large)) / (1 + RESAMPLES)
