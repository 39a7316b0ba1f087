"""32 simulated raters at once, each pressing every button twice, on a server that is killed among them."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Condition

import numpy as np
import pytest

from fantasyid.evaluation.statistics import RESAMPLES
from fantasyid.study.plan import QUESTIONS
from fantasyid.study.store import RatingStore
from tests.commands import run
from tests.unit.study.browser import PATIENCE_S, Browser
from tests.unit.study.conftest import ITEMS, SYSTEMS

RATERS, PAGES = 32, 3

Ledger = dict[tuple[str, str, str, str], int]
"""Scores by rater, item, system and question."""


@contextmanager
def served(videos: Path, ratings: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The command at work, and its address."""
    options = ["--ratings", str(ratings), "--pages", str(PAGES), "--port", "0", "--simulated"]
    command = [sys.executable, "-m", "fantasyid", "study", "serve", str(videos), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as server:
        try:
            assert server.stdout is not None
            yield server, server.stdout.readline().strip().removeprefix("Raters begin at ")
        finally:
            server.kill()


class SimulatedRaters:
    """They know what they see from the content of the videos, and write down what they said and what was confirmed."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.said: Ledger = {}
        self.confirmed: list[tuple[str, str]] = []
        self.changed = Condition()

    def rate_everything(self, number: int) -> str:
        browser, chance = self.browser, Random(number)
        rater = browser.begin()
        while (page := browser.next_page(rater)) is not None:
            form = {}
            for place, video in enumerate(browser.videos(page)):
                item, system = video.split()
                for question in QUESTIONS:
                    form[f"{place}-{question}"] = score = chance.randint(0, 5) + 5 * (system == "ours")
                    assert self.said.setdefault((rater, item, system, question), score) == score, "a page came twice"
            for answer in browser.click_twice(page, form):
                assert answer.status == 303
            with self.changed:
                self.confirmed.append((rater, item))
                self.changed.notify()
        return rater


@pytest.fixture
def finished(videos: Path, tmp_path: Path) -> tuple[Path, SimulatedRaters]:
    """The file of ratings after all have rated, with a kill when half is done."""
    ratings = tmp_path / "ratings.db"
    with ThreadPoolExecutor(RATERS) as pool:
        with served(videos, ratings) as (server, address):
            raters = SimulatedRaters(Browser(address))
            assert "Simulated raters" in raters.browser.ask("/").body.decode()
            at_work = [pool.submit(raters.rate_everything, number) for number in range(RATERS)]
            with raters.changed:
                assert raters.changed.wait_for(lambda: len(raters.confirmed) >= RATERS * PAGES // 2, PATIENCE_S)
            server.kill()
            server.wait()
            confirmed = list(raters.confirmed)
        kept = RatingStore(ratings)
        assert all(item in kept.answered(rater) for rater, item in confirmed)
        with served(videos, ratings) as (_, raters.browser.address):
            assert len({rater.result() for rater in at_work}) == RATERS
    return ratings, raters


def test_no_rating_is_lost_or_doubled_and_the_table_is_a_direct_computation(
    finished: tuple[Path, SimulatedRaters], tmp_path: Path
) -> None:
    ratings, raters = finished
    said = raters.said
    assert len(said) == RATERS * PAGES * len(SYSTEMS) * len(QUESTIONS)
    assert run("study", "export", ratings, "--out", tmp_path / "ratings.csv").exit_code == 0
    with (tmp_path / "ratings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(said)
    assert {row["simulated"] for row in rows} == {"1"}
    assert [sum(row["item"] == item for row in rows) for item in ITEMS] == [len(said) // len(ITEMS)] * len(ITEMS)
    assert {row["place"] for row in rows if row["system"] == "ours"} == {"0", "1", "2"}

    # The CSV's raters have other names: the same people by what they said.
    by_name: dict[str, dict[tuple[str, str, str], int]] = {}
    for row in rows:
        key = (row["item"], row["system"], row["question"])
        assert by_name.setdefault(row["rater"], {}).setdefault(key, int(row["score"])) == int(row["score"])
    by_id: dict[str, dict[tuple[str, str, str], int]] = {}
    for (rater, *key), score in said.items():
        by_id.setdefault(rater, {})[key[0], key[1], key[2]] = score
    assert sorted(map(sorted, map(dict.items, by_name.values()))) == sorted(
        map(sorted, map(dict.items, by_id.values()))
    )

    printed = run("study", "table", ratings, "--json")
    assert printed.exit_code == 0, printed.output
    table = json.loads(printed.stdout)
    assert (table["simulated"], table["num_raters"], table["num_pages"]) == (True, RATERS, RATERS * PAGES)
    names = sorted(by_name)
    draws = np.random.default_rng(0).integers(0, RATERS, (RESAMPLES, RATERS))
    for question in QUESTIONS:
        for system in SYSTEMS:
            own = [[s for (_, y, q), s in by_name[name].items() if (y, q) == (system, question)] for name in names]
            totals, counts = np.array([sum(scores) for scores in own]), np.array([len(scores) for scores in own])
            line = table["scores"][system][question]
            assert line["value"] == pytest.approx(totals.sum() / counts.sum(), abs=1e-12)
            resampled = totals[draws].sum(1) / counts[draws].sum(1)
            assert [line["low"], line["high"]] == pytest.approx(np.percentile(resampled, [2.5, 97.5]), abs=1e-12)
        assert table["agreement"][question] == pytest.approx(alpha_by_pairs(said, question), abs=1e-12)
    text = run("study", "table", ratings).stdout
    assert text.startswith("SIMULATED RATERS")
    assert "32 simulated raters, 96 pages" in text


def alpha_by_pairs(said: Ledger, question: str) -> float:
    """Krippendorff's alpha as it is defined: mean squared differences of pairs within units, and of all pairs."""
    units: dict[tuple[str, str], list[int]] = {}
    for (_, item, system, asked), score in said.items():
        if asked == question:
            units.setdefault((item, system), []).append(score)
    values = np.array([value for unit in units.values() for value in unit])
    observed = sum(
        float(np.square(np.subtract.outer(unit, unit)).sum()) / (len(unit) - 1)
        for unit in map(np.array, units.values())
    )
    expected = float(np.square(np.subtract.outer(values, values)).sum()) / (len(values) - 1)
    return 1 - observed / expected
