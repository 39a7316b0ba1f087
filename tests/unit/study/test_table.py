"""Agreement and table on numbers whose answers are known."""

import numpy as np
import pytest

from fantasyid.core.errors import InvalidRequestError
from fantasyid.study.plan import QUESTIONS, Item, StudyPlan
from fantasyid.study.store import Rating
from fantasyid.study.table import krippendorff_alpha, make_table

NONE = np.nan


def test_krippendorffs_own_example() -> None:
    """Four observers, twelve units, seven values missing: 0.849 for interval data (Krippendorff 2011)."""
    scores = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
        [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
    ]
    assert krippendorff_alpha(np.array(scores)) == pytest.approx(0.849, abs=5e-4)


def test_agreement_of_raters_who_agree_and_who_contradict_each_other() -> None:
    assert krippendorff_alpha(np.array([[1.0, 5, 9], [1, 5, 9]])) == 1
    against = krippendorff_alpha(np.array([[0.0, 10, 0, 10], [10, 0, 10, 0]]))
    assert against is not None
    assert against < -0.7


@pytest.mark.parametrize("scores", [[[3.0, 3], [3, 3]], [[1.0, NONE], [NONE, 2]]])
def test_no_agreement_where_nothing_differs_or_nobody_shares_a_video(scores: list[list[float]]) -> None:
    assert krippendorff_alpha(np.array(scores)) is None


def plan(simulated: bool) -> StudyPlan:
    items = tuple(Item(name=name, reference=f"{name}.jpg", prompt="a nod") for name in ("p", "q"))
    return StudyPlan(items=items, systems=("a", "b"), pages_per_rater=2, simulated=simulated, sha256={})


def rated(rater: str, item: str, system: str, score: int) -> list[Rating]:
    return [Rating(rater, item, system, question, score, 0, "") for question in QUESTIONS]


def test_every_rating_counts_alike() -> None:
    """r2 stopped after one page."""
    ratings = [
        *rated("r1", "p", "a", 8),
        *rated("r1", "p", "b", 2),
        *rated("r1", "q", "a", 6),
        *rated("r1", "q", "b", 2),
        *rated("r2", "p", "a", 10),
        *rated("r2", "p", "b", 2),
    ]
    table = make_table(plan(simulated=False), ratings)
    assert (table.num_raters, table.num_pages) == (2, 3)
    line = table.scores["a"]["OQ"]
    assert (line.value, line.low, line.high) == (8, 7, 10)
    assert table.as_markdown().splitlines()[2:] == [
        "| a | 8.00 [7.00, 10.00] | 8.00 [7.00, 10.00] | 8.00 [7.00, 10.00] | 8.00 [7.00, 10.00] |",
        "| b | 2.00 [2.00, 2.00] | 2.00 [2.00, 2.00] | 2.00 [2.00, 2.00] | 2.00 [2.00, 2.00] |",
        "| agreement of raters (Krippendorff's alpha) | 0.94 | 0.94 | 0.94 | 0.94 |",
        "",
        "2 raters, 3 pages; mean scores, 0 to 10, and 95 % over raters.",
    ]


def test_what_programs_rated_says_so() -> None:
    text = make_table(plan(simulated=True), rated("r1", "p", "a", 8) + rated("r1", "p", "b", 8)).as_markdown()
    assert text.startswith("SIMULATED RATERS: programs gave these scores")
    assert text.endswith("1 simulated raters, 1 pages; mean scores, 0 to 10, and 95 % over simulated raters.")


def test_no_ratings_no_table() -> None:
    with pytest.raises(InvalidRequestError, match="Nobody has rated a page yet"):
        make_table(plan(simulated=False), [])
