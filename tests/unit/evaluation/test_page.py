"""The page of a run: it needs nothing else, its numbers are the tables', and it says how to repeat the run."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fantasyid.core.video import read_video, write_video
from fantasyid.evaluation.run import RunItem
from fantasyid.evaluation.run_record import read_run_record, record_start
from fantasyid.evaluation.tables import RunTable
from tests.commands import refusal
from tests.commands import run as run_command
from tests.unit.evaluation.run_folder import FACE, NAMES, make_run

pytest.importorskip("matplotlib", reason="matplotlib is not installed; pip install 'fantasyid[report]'")


class Page(HTMLParser):
    """What a browser sees of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Note words."""
        self.words.append(data.strip())

    def videos(self) -> list[dict[str, str | None]]:
        """The videos' attributes."""
        return [attributes for tag, attributes in self.tags if tag == "video"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which one of eight videos failed."""
    return make_run(tmp_path_factory.mktemp("run"), missing=True)


@pytest.fixture(scope="module")
def text(finished: Path) -> str:
    result = run_command("evaluate", "report", finished, "--out", finished.parent / "report.html")
    assert result.exit_code == 0, result.output
    return (finished.parent / "report.html").read_text()


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def items(finished: Path) -> list[RunItem]:
    return [RunItem.model_validate_json(path.read_text()) for path in sorted(finished.rglob("items/*/*.json"))]


def test_the_page_needs_nothing_else(page: Page, text: str) -> None:
    addresses = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "data")
    ]
    assert len(addresses) > 10
    assert all(value is not None and value.startswith("data:") for value in addresses)
    assert {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "form"} == set()
    assert not re.search(r"url\((?!#)|@import", text)


def test_names_are_words_and_not_code(page: Page) -> None:
    assert {"b", "i"} & {tag for tag, _ in page.tags} == set()
    assert "<b>&$1$_" in page.words
    assert any("A person <i>smile</i>." in words for words in page.words)
    drawn = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawn) == 3


def test_ids_are_there_once(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 3
    used = [str(value)[1:] for _, attributes in page.tags for name, value in attributes.items() if name == "xlink:href"]
    assert used
    assert set(used) <= set(ids)


def test_the_plots_are_drawn_with_the_pages_ink(text: str) -> None:
    assert "currentColor" in text
    assert "#010203" not in text
    assert "prefers-color-scheme" in text or "light-dark(" in text


def test_the_numbers_are_the_tables(finished: Path, page: Page) -> None:
    table = RunTable.model_validate_json((finished / "table.json").read_text())
    for column in table.columns:
        assert any(words.startswith(column.title) for words in page.words), column.title
        for line in column.lines:
            if line.value is not None:
                assert f"{line.value:z.3f}" in page.words
                assert f"{line.low:z.3f} to {line.high:z.3f}" in page.words
    compared = [one for column in table.columns for one in column.comparisons if one is not None]
    for one in compared:
        if one.p is not None:
            assert any(words.startswith(f"{one.difference:z.3f}, p {one.p:.3f}") for words in page.words)
    assert table.made_of[:12] in page.words


def test_what_failed_is_told(page: Page) -> None:
    assert "1 videos failed, and are in no number" in page.words
    assert any(words.startswith("frozen, <b>&$1$__left_1: UnreadableVideoError") for words in page.words)


def test_a_number_that_cannot_be_had_is_told(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    path = tmp_path / "out" / "items" / "moving" / f"{NAMES[0]}_left_1.json"
    item = json.loads(path.read_text())
    item["measured"]["jitter"] |= {"value": None, "failure": "InvalidRequestError: It is too long."}
    path.write_text(json.dumps(item))
    report = tmp_path / "report.html"
    assert run_command("evaluate", "report", tmp_path / "out", "--out", report).exit_code == 0
    words = Page(report.read_text()).words
    assert "1 numbers of single videos could not be measured" in words
    assert f"moving, {NAMES[0]}_left_1, jitter, face widths per frame²: InvalidRequestError: It is too long." in words


def test_the_best_and_the_worst_videos_are_in_the_page(finished: Path, page: Page, tmp_path: Path) -> None:
    likeness = {
        (item.system, item.person, item.prompt_key): item.measured["reference_similarity"].value
        for item in items(finished)
        if item.failure is None
    }
    assert likeness["moving", NAMES[1], "left"] is None, "no face is worse than any"
    ranked = sorted((key for key in likeness if key[0] == "moving"), key=lambda key: -(likeness[key] or -1))
    videos = page.videos()
    assert len(videos) == len(likeness) == 7
    names = [f"{person}_{prompt}_1 by moving" for _, person, prompt in ranked]
    # Two of four are the best, and the others the worst, the very worst first.
    assert [video["aria-label"] for video in videos[:4]] == [*names[:2], names[3], names[2]]
    for video in videos:
        assert {"controls", "autoplay", "loop", "muted", "playsinline"} < set(video)
    kind, _, content = str(videos[0]["src"]).partition(";base64,")
    assert kind == "data:video/mp4"
    (tmp_path / "shown.mp4").write_bytes(base64.b64decode(content))
    assert read_video(tmp_path / "shown.mp4")[0].shape == (4, 128, 128, 3)


def test_all_that_is_needed_to_repeat_it_is_there(finished: Path, page: Page) -> None:
    record = json.loads((finished / "run.json").read_text())
    (start,) = record["starts"]
    assert start["code_sha256"] in page.words
    assert any(f"torch {start['versions']['torch']}, " in words for words in page.words)
    assert any(words.startswith("fantasyid ") for words in page.words)
    assert any('"compared_with": "moving"' in words for words in page.words)
    for item in items(finished):
        assert item.video_sha256 is None or item.video_sha256 in page.words
    photo = finished.parent / "photos" / f"{NAMES[1]}.png"
    assert hashlib.sha256(photo.read_bytes()).hexdigest() in page.words


def test_every_start_is_written_down(finished: Path, tmp_path: Path) -> None:
    shutil.copy(finished / "run.json", tmp_path)
    before = read_run_record(tmp_path)
    record_start(tmp_path, before.config, Path("elsewhere"), ["evaluate", "run", "again.yaml"])
    after = read_run_record(tmp_path)
    assert after.starts[:-1] == before.starts
    assert after.starts[-1].command == ("evaluate", "run", "again.yaml")
    assert after.base == Path.cwd() / "elsewhere"


def test_a_video_that_changed_since_is_not_shown(finished: Path, tmp_path: Path) -> None:
    video = finished.parent / "moving" / f"{NAMES[0]}_left_1.mp4"
    before = video.read_bytes()
    write_video(video, FACE[None], 8, overwrite=True)
    message = refusal("evaluate", "report", finished, "--out", tmp_path / "report.html")
    video.write_bytes(before)
    assert "is not the video that was judged; start `fantasyid evaluate run` again" in message
    assert not (tmp_path / "report.html").exists()


@pytest.mark.usefixtures("text")
def test_what_is_no_finished_run_is_one_sentence(finished: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert "There is no file" in refusal("evaluate", "report", tmp_path, "--out", page)
    (tmp_path / "run.json").write_text("{}")
    assert "is no record of a run that this version reads (config: " in refusal(
        "evaluate", "report", tmp_path, "--out", page
    )
    shutil.copy(finished / "run.json", tmp_path / "run.json")
    assert "8 of 8 videos" in refusal("evaluate", "report", tmp_path, "--out", page)
    assert "is there already" in refusal("evaluate", "report", finished, "--out", finished.parent / "report.html")
