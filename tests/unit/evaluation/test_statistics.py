"""Values and intervals that must not move: two models are compared across versions of the code."""

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from fantasyid.evaluation.metrics.face_frechet_distance import frechet_distance
from fantasyid.evaluation.reader.measures import mean_of, median_of, shape_line
from fantasyid.evaluation.report import build_report
from fantasyid.evaluation.statistics import report_line
from tests.unit.evaluation.test_report import full_run

VALUES, PERSON = np.random.default_rng(3).normal(size=50), np.arange(25).repeat(2)


def test_the_readers_numbers_stay() -> None:
    mean, median = (shape_line("", statistic(VALUES, PERSON), 25) for statistic in (mean_of, median_of))
    assert (mean.value, mean.low, mean.high) == (0.024862986684953316, -0.2105546874398583, 0.2944663638318308)
    assert (median.value, median.low, median.high) == (-0.11779314142030708, -0.2754538727466319, 0.2511161863744607)


def test_the_tables_numbers_stay() -> None:
    (line,) = (line for line in build_report(full_run()).lines if line.name == "full: verified")
    assert (line.value, line.low, line.high) == (0.875, 0.625, 1.0)


def test_samples_that_measure_nothing_do_not_count() -> None:
    line = report_line("", lambda draw: 1.0 if 0 in draw else None, 2)
    assert (line.value, line.low, line.high) == (1.0, 1.0, 1.0)
    nothing = report_line("", lambda draw: None, 2, bar=0.5, direction="at least")
    assert (nothing.value, nothing.low, nothing.high, nothing.met) == (None, None, None, False)


def test_the_interval_is_over_people() -> None:
    """Of 40 people half have 1 and half 0: the standard error is 0.5 over the root of 40."""
    line = report_line("", lambda draw: float(np.mean(draw % 2)), 40)
    assert line.low is not None
    assert line.high is not None
    assert line.high - line.low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(40), rel=0.2)


def distance_of(world: NDArray[np.float64], people: NDArray[np.int64]) -> float:
    """Of the drawn people's photos (P,1,8) from their videos' frames (P,6,8)."""
    drawn = world[people]
    return frechet_distance(drawn[:, 0], drawn[:, 1:].reshape(-1, 8))


def test_the_interval_of_a_number_of_sets_is_of_the_number_that_as_many_others_have() -> None:
    """A sample that draws people twice is a smaller set, and smaller sets lie farther apart."""
    photos, noise = np.split(np.random.default_rng(6).normal(size=(100, 40, 7, 8)), [1], axis=2)
    worlds = np.concatenate([photos, photos / 2 + noise], axis=2)
    expected = np.mean([distance_of(world, np.arange(40)) for world in worlds])
    held = dict.fromkeys((True, False), 0)
    for world in worlds[:8]:
        for of_sets in held:
            line = report_line("", partial(distance_of, world), 40, of_sets=of_sets)
            assert line.low is not None
            assert line.high is not None
            held[of_sets] += line.low <= expected <= line.high
            assert (line.low <= line.value <= line.high) == of_sets
    assert held[True] >= 7
    assert held[False] <= 2


def test_an_interval_does_not_leave_what_a_number_can_be() -> None:
    line = report_line("", lambda draw: 0.1 + 0.2 * (len(set(draw)) < 15), 20, of_sets=True, bounds=(0.0, 1.0))
    assert (line.value, line.low) == (0.1, 0.0)
