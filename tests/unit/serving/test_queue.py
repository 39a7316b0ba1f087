"""The queue, in a file and in a Redis."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fantasyid.core.errors import InvalidRequestError
from fantasyid.serving.errors import QueueLostError
from fantasyid.serving.queue import VideoQueue


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of its own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server on this machine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    server = subprocess.Popen([program, "--port", str(port), "--dir", str(folder)], stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    for _ in range(100):
        try:
            VideoQueue(url, folder)
            break
        except QueueLostError:
            time.sleep(0.05)
    yield url
    server.kill()
    server.wait()


@pytest.fixture(params=["file", "redis"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> VideoQueue:
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    queue = VideoQueue(url, tmp_path)
    queue.replace([])
    return queue


def test_first_in_first_out(queue: VideoQueue) -> None:
    for video_id in ("a", "b", "c"):
        queue.put(video_id)
    assert queue.waiting() == ["a", "b", "c"]
    assert len(queue) == 3
    assert [queue.take() for _ in range(4)] == ["a", "b", "c", None]


def test_it_can_be_made_anew(queue: VideoQueue) -> None:
    queue.put("a")
    queue.replace(["c", "b"])
    assert [queue.take(), queue.take()] == ["c", "b"]


def test_what_others_put_there_is_no_harm(queue: VideoQueue) -> None:
    queue._ids.enqueue(b"\xff\x80\x04")
    assert queue.take() == "\ufffd\ufffd\x04"


@pytest.mark.parametrize("url", ["", "redis://", "http://host", "/var/queue", "unix:///socket"])
def test_other_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="must be the address of a Redis"):
        VideoQueue(url, tmp_path)


def test_a_redis_that_does_not_answer_is_told_without_its_password(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(QueueLostError, match=r"redis://127\.0\.0\.1") as refused:
        VideoQueue(f"redis://:secret@127.0.0.1:{port}/0", tmp_path)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_no_queue_is_told(tmp_path: Path) -> None:
    (tmp_path / "queue.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(QueueLostError, match=r"queue\.sqlite"):
        VideoQueue(None, tmp_path)
