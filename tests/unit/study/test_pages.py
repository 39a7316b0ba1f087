"""The pages of a study as browsers get them: blind, in random order, complete or not at all."""

import re
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import uvicorn

from fantasyid.study.plan import QUESTIONS, read_plan
from fantasyid.study.server import make_app
from fantasyid.study.store import RatingStore
from tests.commands import refusal, run
from tests.unit.study.browser import Browser
from tests.unit.study.conftest import ITEMS, SYSTEMS

SCORES = {f"{place}-{question}": 3 for place in range(3) for question in QUESTIONS}


@pytest.fixture
def store(videos: Path, tmp_path: Path) -> RatingStore:
    return RatingStore.begin(tmp_path / "ratings.db", read_plan(videos))


@pytest.fixture
def browser(store: RatingStore, videos: Path) -> Iterator[Browser]:
    server = uvicorn.Server(uvicorn.Config(make_app(store, videos), log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=server.run, args=([listening],))
        thread.start()
        yield Browser(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        server.should_exit = True
        thread.join()


def test_a_rater_sees_everything_once_and_nothing_says_what_made_it(browser: Browser) -> None:
    rater = browser.begin()
    seen, orders = [], set()
    while (page := browser.next_page(rater)) is not None:
        answer = browser.ask(page)
        text = answer.body.decode()
        assert not [
            word for word in (*SYSTEMS, *(f"{item}." for item in ITEMS)) if f"{word}/" in text or f"/{word}" in text
        ]
        assert "A &lt;b&gt;woman&lt;/b&gt; smiles" in text
        assert "simulated" not in text.lower()
        assert text.count('type="radio"') == text.count(" required>") == 3 * 4 * 11
        assert "script" not in text
        assert answer.headers["referrer-policy"] == "no-referrer"
        shown = browser.videos(page)
        (photo,) = re.findall(r'<img src="([^"]+)"', text)
        assert browser.ask(photo).body.decode() == f"photo {shown[0].split()[0]}"
        assert f"says {shown[0].split()[0]}." in text
        seen += shown
        orders.add(tuple(video.split()[1] for video in shown))
        assert browser.ask(page, SCORES).status == 303
    assert sorted(seen) == sorted(f"{item} {system}" for item in ITEMS for system in SYSTEMS)
    assert "Thank you" in browser.ask(f"/raters/{rater}").body.decode()


def test_orders_differ_from_rater_to_rater(store: RatingStore) -> None:
    for number in range(24):
        store.add_rater(f"{number}")
    drawn = [store.pages(f"{number}") or () for number in range(24)]
    assert len({tuple(page.item for page in pages) for pages in drawn}) > 6
    assert {page.systems.index("ours") for pages in drawn for page in pages} == {0, 1, 2}


def test_a_page_that_lacks_scores_comes_back_with_those_given(browser: Browser, store: RatingStore) -> None:
    rater = browser.begin()
    page = browser.next_page(rater)
    assert page is not None
    for wrong in ("", "11", "-1", "7.5", "seven", "07"):
        answer = browser.ask(page, {**SCORES, "1-FD": wrong})
        assert answer.status == 422
        text = answer.body.decode()
        assert "Some scores are missing" in text
        assert text.count(" checked>") == len(SCORES) - 1
    assert "Some scores are missing" in browser.ask(page, {}).body.decode()
    assert "Some scores are missing" not in browser.ask(page).body.decode()
    assert not store.answered(rater)
    assert browser.ask(page, {**SCORES, "x": "y" * 2**17}).status == 413


def test_the_first_answer_counts(browser: Browser, store: RatingStore) -> None:
    """Somebody goes back, changes the scores and sends the page again."""
    rater = browser.begin()
    page = browser.next_page(rater)
    assert page is not None
    for score in (3, 9):
        answer = browser.ask(page, dict.fromkeys(SCORES, score))
        assert (answer.status, answer.headers["location"]) == (303, f"/raters/{rater}")
    assert {rating.score for rating in store.ratings()} == {3}
    assert len(store.ratings()) == len(SCORES)
    assert browser.ask(page).headers["location"] == f"/raters/{rater}"


def test_videos_come_in_parts_as_phones_ask_for_them(browser: Browser) -> None:
    rater = browser.begin()
    answer = browser.ask(f"/raters/{rater}/0/0", Range="bytes=0-1")
    assert (answer.status, answer.body[:1], len(answer.body)) == (206, b"p", 2)


@pytest.mark.parametrize("path", ["/raters/unknown", "/raters/{}/9", "/raters/{}/0/9", "/raters/{}/x", "/nothing"])
def test_addresses_that_lead_nowhere_lead_to_the_start(browser: Browser, path: str) -> None:
    answer = browser.ask(path.format(browser.begin()))
    assert answer.status == 404
    assert '<a href="/">To the start</a>' in answer.body.decode()


def test_nobody_begins_without_the_start_page(browser: Browser, store: RatingStore) -> None:
    for form in ({}, {"rater": "me"}, {"rater": "G" * 32}):
        assert browser.ask("/raters", form).status == 400
    assert store.pages("me") is None


def test_commands_refuse_what_cannot_be(videos: Path, tmp_path: Path) -> None:
    ratings, serve = tmp_path / "r.db", ["study", "serve", videos, "--ratings", tmp_path / "r.db", "--port", "0"]
    assert "There is no folder" in refusal("study", "serve", tmp_path / "none")
    assert "--pages is 5, and there are 4 items" in refusal(*serve, "--pages", "5")
    for command in (("table", ratings), ("export", ratings, "--out", tmp_path / "r.csv")):
        assert f"There is no file {ratings}" in refusal("study", *command)
    RatingStore.begin(ratings, read_plan(videos))
    assert "Nobody has rated a page yet" in refusal("study", "table", ratings)
    assert "pages_per_rater, simulated differ" in refusal(*serve, "--pages", "2", "--simulated")
    assert "--port or --host" in refusal(*serve, "--host", "192.0.2.1")
    (videos / "ours" / "p1.mp4").write_bytes(b"another")
    assert "sha256 differ" in refusal(*serve)
    with sqlite3.connect(ratings) as database:
        database.execute("UPDATE study SET plan = '{}'")
    assert "holds no ratings (5 validation errors for StudyPlan)" in refusal("study", "table", ratings)
    ratings.write_text("no ratings")
    assert "holds no ratings" in refusal("study", "table", ratings)
    assert run("study", "serve", videos, "--port", "70000").exit_code == 2


def test_folders_that_are_no_study(videos: Path) -> None:
    def said() -> str:
        return refusal("study", "serve", videos, "--ratings", videos.parent / "r.db", "--port", "0")

    (videos / "ours" / "p2.mp4").rename(videos / "p2.mp4")
    assert "has 0 videos of the item p2, and every system needs one" in said()
    shutil.copy(videos / "p2.mp4", videos / "ours" / "p2.webm")
    shutil.move(videos / "p2.mp4", videos / "ours" / "p2.mp4")
    assert "has 2 videos of the item p2" in said()
    (videos / "ours" / "p2.webm").unlink()
    (videos / "photos" / "p3.jpg").unlink()
    assert "p3.jpg, which" in said()
    table = videos / "items.csv"
    rows = table.read_text()
    for content, message in (
        (rows.replace("prompt", "text", 1), "has no column 'prompt'"),
        (rows.replace("p2,", "p1,", 1), "4 items of 3 names"),
        (rows.replace("photos/p1.jpg", "photos/p1.heic"), "name a photo that browsers show"),
        (rows.replace("p1,", "../p1,", 1), "has an item named '../p1'"),
    ):
        table.write_text(content)
        assert message in said()
    table.write_bytes(b"\xff\xd8\xff")
    assert "is not a CSV" in said()
    shutil.rmtree(videos / "other")
    shutil.rmtree(videos / "third")
    table.write_text(rows)
    assert "has 1 folders with videos" in said()
    table.unlink()
    assert "There is no file" in said()
