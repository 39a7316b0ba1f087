"""Requests to a server that are wrong in one way each; each gives the status of the answer."""

import random
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

FIELDS = {"num_inference_steps": "2", "num_frames": "1", "prompt": "a man nods"}
"""Of a request with nothing wrong."""

_PATHS = ("../../etc/passwd", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "video_0", "%00", "C:\\x", "a" * 3000, "\u202e")
_TYPES = ("seven", "1e999", "NaN", "-1", "", "[]", "{}", "null", "9" * 500, "\x00", "0x10")
_NUMBERS = ("seed", "num_frames", "num_inference_steps", "guidance_scale", "identity_scale", "fps", "seconds", "size")
_STARTS = (
    *(b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF....WEBPVP8 ", b"BM", b"\0\0\0 ftypheic", b""),
    *(b"II*\0", b"P6\n900 900\n255\n", b"\0\0\0 ftypavif", b"<svg ", b"\0\0\0 ftypisom"),
)
_HEADS = (b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\0\x01" * 9, b"GET /v1/videos HTTP/1.1\r\nX: " + b"x" * 200_000)
_MEDIA = (
    "application/json",
    "text/plain",
    "video/mp4",
    "multipart/mixed; boundary=x",
    "application/x-www-form-urlencoded",
)
_FORM = {"Content-Type": "multipart/form-data; boundary=x"}


def _post(url: str, files: Any = None, **more: Any) -> int:
    return httpx2.post(f"{url}/v1/videos", files=files, timeout=120, **more).status_code


def _fields(**fields: str) -> dict[str, Any]:
    return {name: (None, value) for name, value in {**FIELDS, **fields}.items()}


def _with_photo(photo: bytes, name: str = "a") -> dict[str, Any]:
    return {**_fields(), "input_reference": (name, photo)}


def _bytes(draw: random.Random) -> bytes:
    return draw.randbytes(draw.randrange(1, 100_000))


def _ask(method: str, url: str, path: str) -> int:
    return httpx2.request(method, url + path).status_code


def _path(draw: random.Random) -> str:
    return quote(draw.choice(_PATHS), safe="%")


def _raw(url: str, content: bytes) -> int:
    """What is not HTTP, or hardly."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=60) as connection:
        connection.sendall(content)
        return int(connection.recv(100).split()[1])


WRONG: tuple[Callable[[str, random.Random], int], ...] = (
    # wrong types
    lambda url, draw: _post(url, _fields(**{draw.choice(_NUMBERS): draw.choice(_TYPES)})),
    lambda url, draw: _post(url, _fields(**{f"edits[{draw.choice(_TYPES)}]": draw.choice(_TYPES)})),
    lambda url, draw: _ask("GET", url, f"/v1/videos?limit={quote(draw.choice(_TYPES))}"),
    # path tricks
    lambda url, draw: _post(url, _fields(**{draw.choice(_PATHS)[:50]: "1"})),
    lambda url, draw: _post(url, _fields(input_reference=draw.choice(_PATHS))),
    lambda url, draw: _post(url, _fields(model=draw.choice(_PATHS))),
    lambda url, draw: _post(url, {**_fields(), "characters[][id]": (None, draw.choice(_PATHS))}),
    lambda url, draw: _post(url, _with_photo(b"x", draw.choice(_PATHS))),
    lambda url, draw: _ask("GET", url, f"/v1/videos/{_path(draw)}/content"),
    lambda url, draw: _ask("DELETE", url, f"/v1/videos/{_path(draw)}"),
    lambda url, draw: _ask("GET", url, f"/v1/videos/characters/{_path(draw)}"),
    lambda url, draw: _ask("GET", url, f"/v1/videos?after={_path(draw)}"),
    lambda url, draw: _ask("GET", url, f"/{_path(draw)}"),
    # wrong media
    lambda url, draw: _post(url, _with_photo(draw.choice(_STARTS) + _bytes(draw))),
    lambda url, draw: _post(url, content=_bytes(draw), headers={"Content-Type": draw.choice(_MEDIA)}),
    lambda url, draw: _post(url, content=_bytes(draw), headers=_FORM),
    lambda url, draw: httpx2.put(f"{url}/v1/videos", content=_bytes(draw)).status_code,
    lambda url, draw: _raw(url, draw.choice(_HEADS)),
    # huge
    lambda url, draw: _post(url, _with_photo(bytes(draw.choice((20, 22, 40)) * 1_050_000))),
    lambda url, draw: _post(url, _fields(prompt="x" * 100_000)),
    lambda url, draw: _post(url, [(f"field{number}", (None, "x")) for number in range(draw.randrange(2, 200))]),
)
