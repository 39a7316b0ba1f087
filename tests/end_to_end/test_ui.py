"""The page without a browser: what each thing that a visitor does changes on it, with a tiny model."""

import base64
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from fantasyid.core.video import read_video
from fantasyid.generation.record import read_record
from fantasyid.generation.request import ModelRequest
from fantasyid.generation.studio import Studio
from fantasyid.geometry.head_model import HeadModel
from tests.commands import refusal
from tests.end_to_end.test_cli_generate import model

__all__ = ["model"]  # a fixture
gradio = pytest.importorskip("gradio", reason="gradio is not installed; pip install 'fantasyid[ui]'")

from fantasyid.ui.handlers import Handlers  # noqa: E402
from fantasyid.ui.page import build_page, page_options  # noqa: E402
from fantasyid.ui.parts import lay_out  # noqa: E402
from fantasyid.ui.settings import PageSettings  # noqa: E402
from fantasyid.ui.workshop import Workshop  # noqa: E402


class Visit:
    """A page and what a visitor has before them: values by the names of the parts."""

    def __init__(self, settings: PageSettings, studio: Studio | None = None) -> None:
        with gradio.Blocks(analytics_enabled=False):
            self.parts = lay_out(settings.guidance_interval, "here")
        self.handlers = Handlers(self.parts, Workshop(settings, studio))
        self.values = {name: part.value for name, part in self.parts.form.items()}
        self.mine: tuple[str, ...] = ()

    def fill_in(self, **values: Any) -> None:
        self.values.update(values)

    def seen(self, updates: Iterable[dict[Any, Any]]) -> dict[Any, Any]:
        """All changes, the last one of each part."""
        state: dict[Any, Any] = {}
        for update in updates:
            state |= update
        return state

    def read(self) -> dict[Any, Any]:
        return self.seen(self.handlers.read_new(*self.values.values()))

    def make(self, **values: Any) -> dict[Any, Any]:
        self.fill_in(**values)
        updates = self.handlers.make(threading.Event(), self.mine, *self.values.values())
        state = self.seen(updates)
        self.mine = state[self.parts.mine]
        return state

    @property
    def folder(self) -> Path:
        return self.handlers._workshop.shelf.folder


@pytest.fixture(scope="module")
def studio(model: Path) -> Studio:
    return Studio(ModelRequest(name=str(model), device="cpu", dtype="float32"))


@pytest.fixture
def visit(studio: Studio, photo: Path, tmp_path: Path) -> Visit:
    visit = Visit(PageSettings(tmp_path, studio.request), studio)
    visit.fill_in(photo=str(photo), prompt="a woman smiles", seed="3", num_inference_steps="2")
    return visit


def value(update: Any) -> Any:
    return update["value"] if isinstance(update, dict) else update


# The person


def test_a_photo_shows_what_was_read_of_it_at_once(visit: Visit) -> None:
    visit.fill_in(**{"face-width": 0.5})
    seen, person = visit.read(), visit.parts.person
    assert seen[person.overlay].shape == (512, 512, 3)
    assert not np.array_equal(seen[person.overlay], astronaut())
    assert "A face of" in seen[person.said]
    assert seen[person.face]["visible"] is False
    head, mean = seen[visit.parts.head.view], HeadModel.load()
    vertices = np.frombuffer(base64.b64decode(head["vertices"]), np.float32).reshape(-1, 3)
    assert vertices.shape == mean.mean.shape
    assert np.abs(vertices.min(axis=0) + vertices.max(axis=0)).max() < 1e-3
    assert len(head["moves"]) == 8
    move = np.frombuffer(base64.b64decode(head["moves"][0]), np.int16) / 20_000
    assert move.max() == pytest.approx(0.6, abs=0.05)  # face-width adds 1.2 cm, half of it on either side
    assert head["strengths"][0] == 0.5


def test_a_photo_without_a_face_shows_one_sentence(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.new("RGB", (320, 240), "grey").save(path)
    visit.fill_in(photo=str(path))
    seen, person = visit.read(), visit.parts.person
    assert seen[person.said].startswith('<p class="fid-notice fid-error" role="alert">No face was found')
    assert seen[person.said].count("<p") == 1
    assert seen[person.overlay] is None
    assert seen[visit.parts.head.view] is None
    failed = visit.make()
    assert 'role="alert">No face was found' in failed[visit.parts.result.said]
    assert visit.parts.shown not in failed


def test_one_of_several_faces_is_chosen(visit: Visit, tmp_path: Path) -> None:
    path, person = tmp_path / "two.png", visit.parts.person
    Image.fromarray(np.concatenate([astronaut(), astronaut()[:, ::-1]], axis=1)).save(path)
    visit.fill_in(photo=str(path), face=1)  # the choice of an earlier photo does not count
    seen = visit.read()
    assert seen[person.face]["choices"] == ["Face 1 (the largest)", "Face 2"]
    assert seen[person.face]["value"] == "Face 1 (the largest)"
    other = visit.seen(visit.handlers.read_face(*visit.values.values()))
    assert other[person.face]["value"] == "Face 2"
    assert not np.array_equal(other[person.overlay], seen[person.overlay])
    made = visit.make(seed="1")
    assert read_record(visit.folder / f"{made[visit.parts.shown]}.json").face_index == 1
    assert "2 faces found; using face 2. Choose another one under the photo." in made[visit.parts.result.said]


def test_a_photo_that_ends_at_the_face_is_warned_of(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "close.png"
    Image.fromarray(astronaut()[40:190, 150:300]).save(path)
    visit.fill_in(photo=str(path))
    assert "fid-warning" in visit.read()[visit.parts.person.said]


# Making videos


def test_a_video_is_made_as_the_form_says_and_shown(visit: Visit) -> None:
    result = visit.parts.result
    visit.handlers._workshop._studio = None  # it is loaded when it is needed
    updates = list(visit.handlers.make(threading.Event(), (), *visit.values.values()))
    said = " ".join(str(update.get(result.progress, "")) for update in updates)
    assert [part in said for part in ("Loading the model", "Reading the photo", "step 1 of 2")] == [True] * 3
    assert any(str(update.get(result.preview, "")).count("<img") == 3 for update in updates)
    last = visit.seen(updates)
    name = last[visit.parts.shown]
    record = read_record(visit.folder / f"{name}.json")
    assert (record.request.prompt, record.request.seed, record.request.num_inference_steps) == ("a woman smiles", 3, 2)
    assert {path.suffix for path in visit.folder.glob(f"{name}.*")} == {".mp4", ".json", ".jpg"}
    assert last[visit.parts.mine] == (name,)
    assert last[visit.parts.listed] == (name,)
    assert value(last[result.reference]).shape == (512, 512, 3)
    for shown in (value(last[result.video]), *(value(last[button]) for button in result.downloads)):
        assert Path(shown).is_file()
        assert Path(shown).parent != visit.folder
    assert "seed 3" in last[result.facts]
    assert last[visit.parts.prompt.go]["visible"] is True
    assert last[visit.parts.prompt.stop]["visible"] is False
    assert "of 9 frames" in visit.handlers.likeness(name)


def test_a_cancelled_job_leaves_nothing(visit: Visit) -> None:
    cancel, result = threading.Event(), visit.parts.result
    seen: dict[Any, Any] = {}
    for update in visit.handlers.make(cancel, (), *visit.values.values()):
        seen |= update
        if "step 1 of 2" in str(update.get(result.progress, "")):
            visit.handlers.stop(cancel)
    assert "Cancelled." in seen[result.said]
    assert seen[visit.parts.prompt.go]["visible"] is True
    assert not list(visit.folder.glob("*.mp4"))


def test_a_job_cancelled_while_it_waits_does_not_begin(visit: Visit) -> None:
    cancel = visit.handlers.start()[visit.parts.cancel]
    visit.handlers.stop(cancel)
    (update,) = visit.handlers.make(cancel, (), *visit.values.values())
    assert "Cancelled." in update[visit.parts.result.said]


def test_again_gives_the_same_frames_and_vary_others(visit: Visit) -> None:
    shown = visit.make()[visit.parts.shown]
    again = visit.seen(visit.handlers.again(threading.Event(), (), shown))[visit.parts.shown]
    vary = visit.seen(visit.handlers.vary(threading.Event(), (), shown))[visit.parts.shown]
    first, same, other = (read_video(visit.folder / f"{name}.mp4")[0] for name in (shown, again, vary))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert read_record(visit.folder / f"{vary}.json").request.seed != 3


def test_an_earlier_video_is_shown_changed_and_deleted(visit: Visit) -> None:
    shown = visit.make(**{"nose-length": 0.3, "num_videos": 2})[visit.parts.shown]
    listed = tuple(video.name for video in visit.handlers._workshop.shelf.videos())
    assert len(listed) == 2
    choice = gradio.SelectData(None, {"index": listed.index(shown), "value": None})
    assert visit.handlers.select(listed, choice)[visit.parts.shown] == shown
    fresh = Visit(visit.handlers._workshop.settings)
    filled = fresh.handlers.change(shown)
    values = {name: value(filled[part]) for name, part in fresh.parts.form.items() if part in filled}
    assert (values["seed"], values["nose-length"], values["prompt"]) == ("4", 0.3, "a woman smiles")
    assert Path(values["photo"]).read_bytes() == next(visit.folder.glob("photo-*")).read_bytes()
    assert visit.handlers.ask_to_delete()[visit.parts.result.really]["visible"] is True
    gone = visit.handlers.delete(shown, visit.mine)
    assert gone[visit.parts.listed] == tuple(name for name in listed if name != shown)
    assert "There is no file" in visit.handlers.delete(shown, ())[visit.parts.result.said]


def test_visitors_of_an_open_page_see_their_own_videos_alone(visit: Visit) -> None:
    mine = visit.make()[visit.parts.shown]
    settings, studio = visit.handlers._workshop.settings, visit.handlers._workshop.studio()
    other = Visit(PageSettings(settings.folder, settings.model, shows_all=False), studio)
    assert visit.seen(other.handlers.open(()))[other.parts.listed] == ()
    assert visit.seen(other.handlers.open((mine,)))[other.parts.listed] == (mine,)


@pytest.mark.parametrize(
    ("filled_in", "sentence"),
    [
        ({"prompt": ""}, "The prompt is empty"),
        ({"photo": None}, "There is no photo"),
        ({"num_inference_steps": "0"}, "Steps is 0"),
        ({"num_frames": "4"}, "4"),
        ({"head_file": __file__}, "A mesh"),
        ({"face_backend": "deca"}, "generic_model.pkl"),
    ],
)
def test_every_refusal_is_one_sentence_on_the_page(visit: Visit, filled_in: dict[str, Any], sentence: str) -> None:
    said = visit.make(**filled_in)[visit.parts.result.said]
    assert said.startswith('<p class="fid-notice fid-error" role="alert">')
    assert said.count("<p") == 1
    assert sentence in said
    assert "Traceback" not in said
    assert not list(visit.folder.glob("*.mp4"))


def test_a_model_that_cannot_be_loaded_is_told_of(tmp_path: Path) -> None:
    visit = Visit(PageSettings(tmp_path, ModelRequest(name=str(tmp_path))))
    seen = visit.seen(visit.handlers.open(()))
    assert 'role="alert"' in seen[visit.parts.result.said]


def test_a_doubtful_prompt_is_told_of_before_anything_is_made(visit: Visit) -> None:
    assert "looks like German" in visit.handlers.doubt_about_prompt("eine Frau lacht und nickt")
    assert visit.handlers.doubt_about_prompt("a woman smiles") == ""


def test_the_model_fills_in_what_it_would_take(visit: Visit) -> None:
    seen = visit.seen(visit.handlers.open(()))
    settings = visit.parts.settings
    own = {name: seen[settings[name]]["placeholder"] for name in ("num_inference_steps", "width", "num_frames")}
    assert own == {"num_inference_steps": "2", "width": "128", "num_frames": "9"}
    assert "never measured" in seen[visit.parts.head.doubt]


# The page as a whole


def test_everything_that_can_be_used_has_a_name(tmp_path: Path) -> None:
    page = build_page(PageSettings(tmp_path, ModelRequest()))
    used = ("button", "textbox", "slider", "dropdown", "checkbox", "radio", "image", "video", "file", "gallery")
    for part in page.config["components"]:
        if part["type"] in (*used, "downloadbutton"):
            props = part["props"]
            assert props.get("label") or props.get("value"), props


def test_a_server_mounts_the_page_which_serves_neither_the_folder_nor_an_api(tmp_path: Path) -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    kept = tmp_path / "kept.mp4"
    kept.write_bytes(b"private")
    page = build_page(PageSettings(tmp_path, ModelRequest()))
    with TestClient(gradio.mount_gradio_app(FastAPI(), page, path="/", **page_options())) as client:
        assert "FantasyID" in client.get("/").text
        assert client.get(f"/gradio_api/file={kept}").status_code == 403
        assert client.get("/gradio_api/info").json()["named_endpoints"] == {}


def test_the_command_says_in_one_sentence_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "cannot be made" in refusal("ui", "--folder", file, "--port", port)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'fantasyid[ui]'" in refusal("ui", "--folder", tmp_path, "--port", port)


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        said = refusal("ui", "--folder", tmp_path / "videos", "--port", port)
    assert f"The page cannot listen on 127.0.0.1:{port}" in said
    assert not list(tmp_path.iterdir())
