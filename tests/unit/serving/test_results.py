"""What a server withstood when it was tried, and that docs/serving.md tells it."""

import json
from pathlib import Path

import pytest

from benchmarks.serving import KILLS, NONSENSE, QUEUE, REQUESTS, RESULTS, SAME, table

ROOT = Path(__file__).parents[3]
FOUND = json.loads((ROOT / RESULTS).read_text())


def test_a_crowd_is_served_in_order() -> None:
    crowd = FOUND["crowd"]
    assert (crowd["asked"], crowd["completed"], crowd["clients"]) == (REQUESTS, REQUESTS, 20)
    assert (crowd["lost"], crowd["doubled"], crowd["out_of_order"]) == (0, 0, 0)
    assert crowd["refusals"] == crowd["refusals_that_the_server_counted"] > QUEUE


@pytest.mark.parametrize("which", ["kills_file", "kills_redis"])
def test_kills_lose_nothing_and_double_nothing(which: str) -> None:
    kills = FOUND[which]
    assert kills["kills"] == KILLS
    assert (kills["lost"], kills["made_twice"]) == (0, 0)
    ended = kills["completed"] + kills["failed_with_a_reason"]
    assert ended == kills["accepted"] + kills["kept_without_an_answer"]
    assert kills["begun_again"] > 0


def test_nonsense_is_refused_and_takes_no_memory() -> None:
    nonsense = FOUND["nonsense"]
    assert sum(nonsense["answers"].values()) == NONSENSE
    assert nonsense["videos"] == 0
    assert all(status.startswith("4") for status in nonsense["answers"])
    memory = nonsense["memory_mb_after_each_hundred"]
    assert memory[-1] < 1.03 * memory[0]


def test_one_worker_and_two_make_the_same_videos() -> None:
    assert FOUND["same"] == {"videos": SAME, "equal": SAME, "different_from_each_other": SAME}


def test_the_page_tells_what_was_found() -> None:
    assert table(FOUND) in (ROOT / "docs" / "serving.md").read_text()
