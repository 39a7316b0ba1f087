"""What there is beside videos: people, models, health, numbers, and room for a page."""

import io
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import openai
import pytest
from PIL import Image
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from fantasyid.generation.record import read_record
from fantasyid.generation.request import ModelRequest
from fantasyid.generation.studio import Studio
from fantasyid.serving import api
from fantasyid.serving.api import create_app
from fantasyid.serving.set_up import open_service, set_up
from tests.unit.serving.conftest import Server, served


def test_a_character_serves_many_videos(server: Server, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = server.client.videos
    read, readings = Studio.read, []
    monkeypatch.setattr(Studio, "read", lambda *given: readings.append(given) or read(*given))
    person = videos.create_character(name="Ann", video=("ann.png", photo))
    assert (person.name, person.num_faces) == ("Ann", 1)
    assert videos.get_character(person.id).to_dict() == person.to_dict()
    made = [server.create(characters=[{"id": person.id}], seed=seed) for seed in (1, 2)]
    assert httpx2.delete(f"{server.url}/v1/videos/characters/{person.id}").json()["deleted"] is True
    records = [read_record(server.service.store.find(server.wait(video).id).outputs.record) for video in made]
    assert all(record.request.person is not None for record in records)
    assert records[0].photo_sha256 == records[1].photo_sha256
    assert len(readings) == 1
    with pytest.raises(openai.NotFoundError):
        videos.get_character(person.id)
    with pytest.raises(openai.NotFoundError, match="There is no character"):
        server.create(characters=[{"id": person.id}])


def test_a_character_expires_so_long_after_its_last_video(
    serve: Callable[..., Server], photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_CLEAN_UP_EVERY_S", 0.02)
    server = serve(keep_hours=2, worker=False)
    folder = server.service.store.folder / "characters"
    used, unused = (server.client.videos.create_character(name=name, video=("a.png", photo)) for name in ("A", "B"))
    assert used.expires_at - used.created_at in (7200, 7201)
    for person in (used, unused):
        os.utime(folder / person.id / "character.json", (used.created_at - 7000,) * 2)
    server.create(characters=[{"id": used.id}])
    assert server.client.videos.get_character(used.id).expires_at >= used.expires_at
    os.utime(folder / unused.id / "character.json", (used.created_at - 7201,) * 2)
    with pytest.raises(openai.NotFoundError, match="may have been deleted or have expired"):
        server.create(characters=[{"id": unused.id}])
    while (folder / unused.id).exists():
        time.sleep(0.01)
    assert server.client.videos.get_character(used.id).name == "A"


def test_what_lies_beside_is_cleaned_up(tmp_path: Path, model: ModelRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_CLEAN_UP_EVERY_S", 0.02)
    twice = threading.Semaphore(0)

    def clean_up() -> None:
        twice.release()
        raise OSError("the disk is away for a while")

    with served(create_app(set_up(open_service(tmp_path, None), model, with_worker=False), clean_up)):
        assert all(twice.acquire(timeout=20) for _ in range(2))


def test_a_photo_without_a_face_is_no_character(server: Server, photo: bytes) -> None:
    grey = io.BytesIO()
    Image.new("RGB", (300, 300), "grey").save(grey, "PNG")
    with pytest.raises(openai.BadRequestError) as refused:
        server.client.videos.create_character(name="x", video=("x.png", grey.getvalue()))
    assert refused.value.code == "no_face"
    answer = httpx2.post(f"{server.url}/v1/videos/characters", files={"name": (None, "x")})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "video")
    with pytest.raises(openai.BadRequestError, match="name"):
        server.client.videos.create_character(name="", video=("x.png", photo))


def test_a_person_is_a_photo_or_a_character(server: Server, photo: bytes) -> None:
    with pytest.raises(openai.BadRequestError, match="give one of them"):
        server.create(photo=photo, characters=[{"id": "char_" + "0" * 32}])


def test_models(server: Server) -> None:
    (model,) = server.client.models.list()
    assert (model.id, model.object) == ("tiny", "model")


def test_health(server: Server) -> None:
    answer = httpx2.get(f"{server.url}/health").json()
    assert answer["status"] == "ok"
    assert answer["waiting"] == 0


def test_metrics(server: Server) -> None:
    server.wait(server.create())
    httpx2.get(f"{server.url}/nowhere/at/all")
    lines = httpx2.get(f"{server.url}/metrics").text.splitlines()
    numbers = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(numbers['fantasyid_videos{status="completed"}']) >= 1
    assert float(numbers["fantasyid_queue_length"]) == 0
    assert float(numbers['fantasyid_requests_total{method="POST",route="/v1/videos",status="200"}']) >= 1
    assert not any("nowhere" in name for name in numbers)


def test_a_page_can_be_mounted_beside_it(tmp_path: Path, model: ModelRequest) -> None:
    app = create_app(set_up(open_service(tmp_path, None), model, with_worker=False))

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await PlainTextResponse(f"{len(body)} bytes")(scope, receive, send)

    app.mount("/", page)
    with served(app) as url:
        assert httpx2.get(f"{url}/").text == "0 bytes"
        assert httpx2.post(f"{url}/upload", content=bytes(30_000_000)).text == "30000000 bytes"
        assert httpx2.get(f"{url}/v1/models").json()["data"][0]["id"] == "tiny"
        assert httpx2.get(f"{url}/health").json()["status"] == "ok"


def test_the_description_names_every_field(server: Server) -> None:
    described = httpx2.get(f"{server.url}/openapi.json").json()
    body = described["paths"]["/v1/videos"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"prompt", "input_reference", "seed", "edits", "characters"} <= set(body["properties"])


def test_methods_that_clients_make_up_are_not_counted_apart(server: Server) -> None:
    for number in range(5):
        httpx2.request(f"MADEUP{number}", f"{server.url}/health")
    numbers = httpx2.get(f"{server.url}/metrics").text
    assert 'method="other"' in numbers
    assert "MADEUP" not in numbers


def test_a_disk_that_comes_back(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "RESTORE_EVERY_S", 0.02)
    server = serve(worker=False)
    accepted = server.create()
    place = server.service.store.folder
    away = place.rename(place.with_name("away"))
    place.touch()
    time.sleep(0.2)
    place.unlink()
    away.rename(place)
    server.service.queue.replace([])
    while server.service.queue.waiting() != [accepted.id]:
        assert httpx2.get(f"{server.url}/health").json()["status"] == "ok"
