"""`fantasyid serve` and `fantasyid worker` as they are typed."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from typer.testing import Result

from fantasyid.core.credentials import SigningKey, known_certificates, read_credentials
from fantasyid.generation.record import read_record
from fantasyid.generation.request import ModelRequest
from fantasyid.serving.set_up import open_service
from tests.commands import refusal, run
from tests.unit.serving.conftest import SOON

MACHINE = ("--device", "cpu", "--dtype", "float32")


@pytest.fixture
def port() -> int:
    """One that is free."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def run_until(done: Callable[[], bool], *arguments: object) -> Result:
    """Run a command that ends when it is told to, and tell it when something is so."""

    def tell() -> None:
        while not done():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell).start()
    return run(*arguments)


def test_a_server_and_a_worker_make_a_video(
    tmp_path: Path, model: ModelRequest, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "videos"
    monkeypatch.chdir(Path(model.name).parent)
    url = f"http://127.0.0.1:{port}"

    def accepted() -> bool:
        with suppress(httpx2.TransportError):
            files = {name: (None, str(value)) for name, value in {**SOON, "prompt": "a man nods"}.items()}
            return httpx2.post(f"{url}/v1/videos", files=files, timeout=60).status_code == 200
        return False

    server = ("serve", "--outputs", place, "--port", port, "--model", "tiny", *MACHINE)
    assert run_until(accepted, *server, "--no-worker").exit_code == 128 + signal.SIGTERM
    (video,) = open_service(place, None).store.folders()
    assert video.state().status == "queued"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    ended = run_until(lambda: video.state().status == "completed", "worker", "--outputs", place, "--sign")
    assert ended.exit_code == 0, ended.output
    assert read_record(video.outputs.record).signing_key_sha256 == SigningKey.local().public_sha256
    assert read_credentials(video.outputs.video, known_certificates()).state == "valid"

    def listed() -> bool:
        with suppress(httpx2.TransportError):
            return bool(httpx2.get(f"{url}/v1/videos").json()["data"][0]["status"] == "completed")
        return False

    monkeypatch.chdir(Path(model.name).parent)
    said = run_until(listed, *server, "--no-page")
    assert said.exit_code == 128 + signal.SIGTERM
    assert f"Serving at {url}/v1 until" in said.stderr


def test_the_page_lies_at_the_root_behind_a_key(tmp_path: Path, model: ModelRequest, port: int) -> None:
    (tmp_path / "keys.txt").write_text("a key\nclé\n")
    url = f"http://127.0.0.1:{port}"
    seen: dict[str, httpx2.Response] = {}

    def looked() -> bool:
        with suppress(httpx2.TransportError), httpx2.Client(base_url=url, timeout=60) as client:
            seen["api"] = client.get("/v1/models")
            seen["elsewhere"] = client.get("/v1/elsewhere", headers={"Authorization": "Bearer a key"})
            seen["page"], seen["config"] = client.get("/"), client.get("/config")
            seen["wrong"] = client.post("/login", data={"username": "x", "password": "a-key"})
            seen["right"] = client.post("/login", data={"username": "x", "password": "clé"})
            seen["open"] = client.get("/config")
            seen["a file"] = client.get(f"/gradio_api/file={tmp_path / 'keys.txt'}")
            seen["large"] = client.post("/gradio_api/upload", files={"files": ("a.png", bytes(53_000_000))})
        return "large" in seen

    old = tmp_path / "videos" / "page" / f"photo-{'0' * 16}.png"
    old.parent.mkdir(parents=True)
    old.touch()
    os.utime(old, (0, 0))
    asked = ("serve", "--outputs", tmp_path / "videos", "--port", port, "--api-keys", tmp_path / "keys.txt")
    said = run_until(looked, *asked, "--model", model.name, *MACHINE, "--keep-hours", 1)
    assert said.exit_code == 128 + signal.SIGTERM, said.output
    assert f"the page at {url} until" in said.stderr
    assert {name: answer.status_code for name, answer in seen.items()} == {
        **{"api": 401, "elsewhere": 404, "page": 200, "config": 401, "wrong": 400, "right": 200, "open": 200},
        **{"a file": 403, "large": 413},
    }
    assert "API key" in seen["page"].text
    assert not old.exists()
    assert seen["elsewhere"].json()["error"]["message"].startswith("There is nothing at GET /v1/elsewhere")
    assert str(tmp_path) not in seen["open"].text


def test_who_makes_no_videos_cannot_sign_them(tmp_path: Path, port: int) -> None:
    said = refusal("serve", "--outputs", tmp_path / "videos", "--port", port, "--no-worker", "--sign")
    assert "give --sign to `fantasyid worker`" in said


@pytest.mark.parametrize("command", [("serve", "--outputs"), ("worker", "--outputs"), ("ui", "--folder")])
def test_a_key_that_cannot_sign_is_told_before_anything_is_served(
    command: tuple[str, str], tmp_path: Path, port: int
) -> None:
    (tmp_path / "key.pem").write_text("no key")
    name, folder = command
    place = () if name == "worker" else ("--port", port)
    said = refusal(name, folder, tmp_path / "videos", *place, "--sign-with", tmp_path / "key.pem")
    assert "key.pem holds no private key" in said


def test_a_page_that_cannot_be_shown(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("serve", "--outputs", tmp_path / "videos", "--port", port)
    assert "--page needs the model in this process" in refusal(*asked, "--page", "--no-worker")
    monkeypatch.setitem(sys.modules, "gradio", None)
    said = refusal(*asked)
    assert "--no-page leaves it out" in said
    assert "fantasyid[ui]" in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--max-queue", 0), "--max-queue is 0; it must be at least 1"),
        (("--keep-hours", 0), "--keep-hours is 0"),
        (("--max-megapixels", 1000), "--max-megapixels is 1000"),
        (("--queue", "http://host"), "--queue is 'http://host'"),
        (("--api-keys", "nowhere.txt"), "There is no file nowhere.txt; check the path of the key."),
        (("--model", "no/such"), "no/such"),
        (("--host", "256.0.0.1"), "The server cannot listen on 256.0.0.1"),
    ],
)
def test_what_cannot_be_is_told_before_it_serves(
    options: tuple[object, ...], sentence: str, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert sentence in refusal("serve", "--outputs", tmp_path / "videos", "--port", port, *options)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal("serve", "--outputs", tmp_path / "videos", "--port", port)
    assert f"cannot listen on 127.0.0.1:{port}" in said


def test_a_file_without_keys(tmp_path: Path, port: int) -> None:
    (tmp_path / "keys.txt").write_text("# none yet\n")
    assert "holds no key" in refusal("serve", "--port", port, "--api-keys", tmp_path / "keys.txt")
