"""The page of a run in a real browser: videos play, phones and the dark are fit for it, and its console is empty."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run as run_command
from tests.unit.evaluation.run_folder import make_run

CHROMIUM = os.environ.get("FANTASYID_BROWSER")
if CHROMIUM is None:
    pytest.skip("make test-browser runs these, in a browser such as Debian's chromium", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install playwright")

_PATIENCE_MS = 300_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=("--no-sandbox",))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run in which a video failed, away from all that it was made of."""
    folder = tmp_path_factory.mktemp("run")
    path = tmp_path_factory.mktemp("page") / "report.html"
    result = run_command("evaluate", "report", make_run(folder, missing=True), "--out", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(params=["light-1280", "dark-390"])
def page(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Any]:
    """The page, opened; at the end nothing stands in its console, and nothing was asked for but the page."""
    scheme, _, width = request.param.partition("-")
    page = browser.new_page(viewport={"width": int(width), "height": 844}, color_scheme=scheme)
    page.set_default_timeout(_PATIENCE_MS)
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    own = (report.as_uri(), "data:")
    page.on("request", lambda asked: None if asked.url.startswith(own) else said.append(f"elsewhere: {asked.url}"))
    page.goto(report.as_uri())
    yield page
    page.close()
    assert said == []


def test_every_video_plays_and_every_picture_is_seen(page: Any) -> None:
    videos = page.locator("video").all()
    assert len(videos) == 7
    for video in videos:  # Browsers play by themselves what is in sight.
        video.scroll_into_view_if_needed()
        video.evaluate("video => new Promise(done => video.addEventListener('timeupdate', done, {once: true}))")
    sizes = page.evaluate("[...document.querySelectorAll('img')].map(image => image.naturalWidth)")
    assert sizes == [128] * 7


def test_nothing_hangs_over_the_edge(page: Any) -> None:
    for summary in page.locator("summary").all():
        summary.click()
    assert page.locator("details[open]").count() == page.locator("details").count() >= 4
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".plot svg").first.bounding_box()["height"] > 200


def test_the_ink_of_page_and_plots_is_the_schemes(page: Any) -> None:
    ink = "getComputedStyle(document.querySelector({!r})).{}"
    paper, words = (page.evaluate(ink.format("body", of)) for of in ("backgroundColor", "color"))
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (paper == "rgb(23, 24, 26)") == dark
    assert page.evaluate(ink.format(".plot svg text", "fill")) == words
