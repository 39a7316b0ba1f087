"""The page in a real browser, with the built-in model: what a visitor sees and does, with nothing in the console."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fantasyid.core.video import read_video
from fantasyid.generation.record import read_record
from fantasyid.generation.request import ModelRequest

CHROMIUM = os.environ.get("FANTASYID_BROWSER")
if CHROMIUM is None:
    pytest.skip("make test-browser runs these, in a browser such as Debian's chromium", allow_module_level=True)
pytest.importorskip("gradio", reason="gradio is not installed; pip install 'fantasyid[ui]'")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install playwright")

from fantasyid.ui.page import build_page, page_options  # noqa: E402
from fantasyid.ui.settings import PageSettings  # noqa: E402

# 3D on the CPU; without a sandbox where tests run as root.
_ARGUMENTS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
# Gradio closes the streams of its events with a stub that says this.
_OF_GRADIO = "Method not implemented."
_PATIENCE_MS = 300_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Of a page with the built-in model."""
    page = build_page(PageSettings(folder, ModelRequest(device="cpu")))
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, share=False, **page_options())
    yield address
    page.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, opened; at the end nothing stands in its console, nothing failed, and nothing came from elsewhere."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(_PATIENCE_MS)
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("response", lambda answer: said.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None)
    own = (address, "data:", f"blob:{address}")
    page.on("request", lambda asked: None if asked.url.startswith(own) else said.append(f"elsewhere: {asked.url}"))
    page.goto(address)
    page.get_by_text("Model mini, on cpu").wait_for()
    yield page
    page.close()
    assert [text for text in said if _OF_GRADIO not in text] == []


def pixels(canvas: Any, path: Path) -> list[int]:
    canvas.screenshot(path=path)
    return list(Image.open(path).convert("L").tobytes())


def download(page: Any, what: str, to: Path) -> None:
    with page.expect_download() as download:
        page.locator(f"#download-{what}").click()
    download.value.save_as(to)


_TYPE_AT_ONCE = """() => {
  const type = () => {
    for (const box of document.querySelectorAll("#seed textarea, #seed input")) {
      if (box.offsetParent && !box.dataset.typed) {
        box.dataset.typed = "1";
        box.value = "7";
        box.dispatchEvent(new Event("input", { bubbles: true }));
      }
    }
  };
  new MutationObserver(type).observe(document.body, { subtree: true, childList: true, attributes: true });
}"""
"""Types a seed the moment that its box can be seen."""


def test_what_is_typed_as_soon_as_a_section_opens_stays(page: Any) -> None:
    page.evaluate(_TYPE_AT_ONCE)
    page.get_by_role("button", name="Settings").click()
    page.wait_for_timeout(2000)  # Gradio writes the first values of what it builds late a little later
    seed = page.locator("#seed").get_by_role("textbox")
    assert seed.get_attribute("data-typed") == "1"
    assert seed.input_value() == "7"


def test_a_visitor_makes_a_video_of_an_edited_head(page: Any, folder: Path, photo: Path, tmp_path: Path) -> None:
    page.locator("#photo input[type=file]").set_input_files(photo)
    page.get_by_text("A face of 109 pixels that looks straight at the camera.").wait_for()
    canvas = page.locator("#head canvas")
    before = pixels(canvas, tmp_path / "head.png")
    assert len(set(before)) > 20  # a shaded head

    page.get_by_role("button", name="2. The head: change its shape").click()
    slider = page.get_by_role("slider", name="Face width")
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.locator("#head.has-edits, #head .has-edits").wait_for()
    edited = pixels(canvas, tmp_path / "head.png")
    assert edited != before
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    assert pixels(canvas, tmp_path / "head.png") != edited

    page.get_by_role("button", name="Settings").click()
    page.get_by_placeholder("25", exact=True).wait_for()  # what the model itself would take
    page.get_by_role("textbox", name="Steps").fill("2")
    page.get_by_role("textbox", name="Seed").fill("7")
    page.get_by_role("textbox", name="Prompt", exact=True).fill("A woman smiles.")
    page.get_by_role("button", name="Make the video").click()
    page.get_by_role("img", name="Frame 1 of 4 as it looks so far").wait_for()
    page.locator("#video video").wait_for()
    page.get_by_text("of 17 frames for the person").wait_for()

    download(page, "video", tmp_path / "video.mp4")
    download(page, "record", tmp_path / "video.json")
    assert read_video(tmp_path / "video.mp4")[0].shape == (17, 128, 128, 3)
    asked = json.loads((tmp_path / "video.json").read_text())["request"]
    assert (asked["prompt"], asked["seed"], asked["num_inference_steps"]) == ("A woman smiles.", 7, 2)
    assert asked["person"]["edits"] == {"face-width": 0.5}
    (kept,) = folder.glob("*.json")
    assert read_record(kept).request.seed == 7

    page.reload()
    page.get_by_role("button", name="Thumbnail 1 of 1").focus()
    page.keyboard.press("Enter")
    page.get_by_text("seed 7").wait_for()
    page.locator("#video video").wait_for()


def test_a_visitor_cancels(page: Any, folder: Path, photo: Path) -> None:
    before = set(folder.glob("*.mp4"))
    page.get_by_role("button", name="Try it with an example portrait").click()
    page.get_by_text("A face of 109 pixels").wait_for()
    page.get_by_role("button", name="Make the video").click()
    page.get_by_text("step 2 of 25").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled.").wait_for()
    page.get_by_role("button", name="Make the video").wait_for()
    assert set(folder.glob("*.mp4")) == before
    assert not [thread for thread in threading.enumerate() if thread.name == "fantasyid-job"]


def test_a_photo_without_a_face_shows_one_sentence(page: Any, tmp_path: Path) -> None:
    Image.new("RGB", (320, 240), "grey").save(tmp_path / "grey.png")
    page.locator("#photo input[type=file]").set_input_files(tmp_path / "grey.png")
    alert = page.get_by_role("alert").filter(has_text="No face was found in the photo (320x240 pixels)")
    alert.wait_for()
    assert page.get_by_role("alert").filter(has_text="face").count() == 1


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_hangs_over_the_edge(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    for name in ("2. The head", "Words that the built-in model knows", "Settings", "More photos"):
        page.get_by_role("button", name=name).first.click()
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
