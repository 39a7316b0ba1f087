"""What is refused: always with a status that blames the client, and one sentence."""

import io
import sqlite3
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from fantasyid.serving.store import VideoStore
from tests.unit.serving.conftest import KEY, Server


def ask(server: Server, fields: dict[str, Any], photo: bytes | None = None, field: str = "input_reference") -> Any:
    """Send a form; gives the answer."""
    files: dict[str, Any] = {name: (None, str(value)) for name, value in fields.items()}
    if photo is not None:
        files[field] = ("photo.png", photo)
    return httpx2.post(f"{server.url}/v1/videos", files=files)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no prompt": ({"seed": 1}, "The field prompt is missing."),
    "empty prompt": ({"prompt": " "}, "The prompt is empty"),
    "unknown field": ({"prompt": "x", "sead": 1}, "There is no field sead; there are prompt, model"),
    "word for number": ({"prompt": "x", "seed": "seven"}, "seed is 'seven'"),
    "seed out of bounds": ({"prompt": "x", "seed": 2**64}, "seed is 18446744073709551616; it must be at least 0"),
    "not a number": ({"prompt": "x", "guidance_scale": "nan"}, "guidance_scale is nan"),
    "no size": ({"prompt": "x", "size": "large"}, "size is 'large'"),
    "size out of bounds": ({"prompt": "x", "size": "99999x8"}, "size is 99999"),
    "two lengths": ({"prompt": "x", "seconds": 2, "num_frames": 17}, "seconds and num_frames"),
    "another model": ({"prompt": "x", "model": "sora-2"}, "There is no model 'sora-2' here; there is 'tiny'."),
    "edit without a photo": ({"prompt": "x", "edits[face-width]": 0.1}, "face_index and edits need a photo"),
    "a path for a photo": ({"prompt": "x", "input_reference": "/etc/passwd"}, "input_reference must be a file."),
    "a path in a field": ({"prompt": "x", "photos": "/etc/passwd"}, "There is no field photos"),
    "a path as character": ({"prompt": "x", "characters[][id]": "../../etc"}, "There is no character '../../etc'"),
    "a field in brackets": ({"prompt": "x", "edits[a][b]": 1}, "There is no field edits[a][b]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_fields(server: Server, name: str) -> None:
    fields, sentence = REFUSED[name]
    answer = ask(server, fields)
    assert answer.status_code in (400, 404), answer.text
    error = answer.json()["error"]
    assert error["message"].startswith(sentence), error
    assert error["type"] == "invalid_request_error"
    assert error["code"]


def test_an_unknown_edit(server: Server, photo: bytes) -> None:
    answer = ask(server, {"prompt": "x", "edits[nose]": 0.1}, photo)
    assert answer.status_code == 400
    assert "nose" in answer.json()["error"]["message"]


def test_a_field_given_twice(server: Server) -> None:
    answer = httpx2.post(f"{server.url}/v1/videos", files=[("prompt", (None, "x")), ("prompt", (None, "y"))])
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "prompt is given twice; give it once.")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "empty"), (b"GIF87a", "not a picture"), (b"<svg/>", "not a picture"), (b"\xff\xd8\xff\xe0", "damaged")],
)
def test_what_is_no_photo(server: Server, content: bytes, sentence: str) -> None:
    answer = ask(server, {"prompt": "x"}, content)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "unreadable_photo"
    assert sentence in answer.json()["error"]["message"]


def test_half_a_photo(server: Server, photo: bytes) -> None:
    assert ask(server, {"prompt": "x"}, photo[: len(photo) // 2]).status_code == 400


def test_a_photo_under_another_name(server: Server, photo: bytes) -> None:
    answer = ask(server, {"prompt": "x"}, photo, field="prompt2")
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "prompt2 must be text.")


def test_too_many_pixels(server: Server) -> None:
    content = io.BytesIO()
    Image.new("1", (10_000, 6_000)).save(content, "PNG")
    answer = ask(server, {"prompt": "x"}, content.getvalue())
    assert answer.status_code == 413
    assert "10000x6000" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("size_mb", "sentence"), [(20.5, "The photo has more than 20 MB"), (23, "The request has more than 21 MB")]
)
def test_too_many_bytes(server: Server, size_mb: float, sentence: str) -> None:
    answer = ask(server, {"prompt": "x"}, bytes(int(size_mb * 1e6)))
    assert answer.status_code == 413
    assert answer.json()["error"]["message"].startswith(sentence)


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "text/plain", ""])
def test_another_body(server: Server, kind: str) -> None:
    answer = httpx2.post(f"{server.url}/v1/videos", content=b'{"prompt": "x"}', headers={"Content-Type": kind})
    assert answer.status_code in (400, 415)
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["..%2f..%2fetc%2fpasswd", "video_" + "0" * 32, "characters", "%00", "queue.sqlite"])
def test_ids(server: Server, path: str) -> None:
    for answer in (
        httpx2.get(f"{server.url}/v1/videos/{path}"),
        httpx2.delete(f"{server.url}/v1/videos/{path}"),
        httpx2.get(f"{server.url}/v1/videos/{path}/content"),
        httpx2.get(f"{server.url}/v1/videos/characters/{path}"),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize("query", ["limit=0", "limit=1000", "order=up", "limit=x", "after=video_x"])
def test_lists(server: Server, query: str) -> None:
    answer = httpx2.get(f"{server.url}/v1/videos?{query}")
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] in query


def test_nothing_refused_is_kept(server: Server) -> None:
    before = len(server.service.store.folders())
    ask(server, {"prompt": "x", "seed": -1})
    ask(server, {"prompt": "x"}, b"no photo")
    assert len(server.service.store.folders()) == before


def test_keys(serve: Any) -> None:
    server = serve(worker=False, keys=("other", KEY))
    server.create()
    for wrong in ("", "Bearer", "Bearer x", f"Basic {KEY}", f"Bearer {KEY}x"):
        for path in ("videos", "models", "videos/characters/x"):
            answer = httpx2.get(f"{server.url}/v1/{path}", headers={"Authorization": wrong})
            assert answer.status_code == 401
            assert KEY not in answer.text
    with pytest.raises(openai.AuthenticationError):
        server.client.with_options(api_key="x").videos.list()
    assert httpx2.get(f"{server.url}/health").status_code == 200


def test_ids_cannot_leave_the_folder(tmp_path: Any) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "job.json").write_text("{}")
    store = VideoStore(tmp_path / "videos")
    with pytest.raises(Exception, match="There is no video"):
        store.find("../secret")


def test_a_field_and_its_parts(server: Server) -> None:
    for name, part in (("edits", "edits[face-width]"), ("characters", "characters[][id]")):
        for order in ((name, part), (part, name)):
            answer = ask(server, {"prompt": "x", **dict.fromkeys(order, "1")})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_an_answer_comes_though_the_body_was_not_wanted(serve: Any) -> None:
    server = serve(worker=False, keys=(KEY,))
    for _ in range(5):
        assert ask(server, {"prompt": "x"}, bytes(15_000_000)).status_code == 401


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites(server: Server, site: str) -> None:
    before = len(server.service.store.folders())
    files = {"prompt": (None, "x")}
    refused = httpx2.post(f"{server.url}/v1/videos", files=files, headers={"Sec-Fetch-Site": site})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "other_site")
    assert len(server.service.store.folders()) == before
    for own in ("same-origin", "none"):
        assert httpx2.get(f"{server.url}/v1/videos", headers={"Sec-Fetch-Site": own}).status_code == 200


def test_a_key_that_is_not_ascii(serve: Any) -> None:
    server = serve(worker=False, keys=("clé",))
    answers = [
        httpx2.get(f"{server.url}/v1/videos", headers={"Authorization": b"Bearer " + key.encode()})
        for key in ("clé", "cle")
    ]
    assert [answer.status_code for answer in answers] == [200, 401]


def test_where_the_queue_lies_is_not_told(serve: Any) -> None:
    server = serve(worker=False)
    place = server.service.store.folder
    with sqlite3.connect(place / "queue.sqlite") as queue:
        queue.execute("drop table task")
    answer = ask(server, {"prompt": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_lost")
    assert int(answer.headers["Retry-After"]) >= 1
    assert str(place) not in answer.text
