"""What the containers of docker/ run, started here as processes: no container engine is needed."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from typer.main import get_command

from fantasyid.cli.main import app

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
KEY = {"Authorization": "Bearer a-key"}


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield process
        finally:
            process.terminate()


def of_dockerfile(instruction: str) -> list[str]:
    """The words of an instruction that is a list."""
    (words,) = re.findall(rf"^{instruction} (\[.+\])$", DOCKERFILE, re.MULTILINE)
    return [str(word) for word in json.loads(words)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def check_command(words: list[str]) -> None:
    """Whether `fantasyid` takes these arguments."""
    command = get_command(app).commands[words[0]]
    command.make_context("fantasyid", words[1:]).close()


def test_containers_run_commands_that_exist() -> None:
    for name in ("server", "worker"):
        check_command(COMPOSE["services"][name]["command"])
    assert COMPOSE["services"]["worker"]["deploy"]["replicas"] == 2
    check_command(of_dockerfile("CMD"))
    assert of_dockerfile("ENTRYPOINT") == ["fantasyid"]


def test_the_image_holds_what_its_commands_need() -> None:
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    taken = {line[1:] for line in ignored if line[0] == "!"}
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()}
    assert copied == taken
    assert all((DOCKER.parent / name).exists() for name in copied)
    assert ".[serve,ui]" in DOCKERFILE


def test_nothing_in_a_container_runs_as_root() -> None:
    after = DOCKERFILE[DOCKERFILE.index("\nUSER fantasyid\n") :]
    assert not re.findall(r"^(RUN|USER root)", after, re.MULTILINE)
    assert "\nENTRYPOINT" in after


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server on this machine")
def test_the_composition_makes_a_video(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a-key\n")
    port, redis_port = free_port(), free_port()
    places = {
        "redis://redis:6379/0": f"redis://127.0.0.1:{redis_port}/0",
        "/run/secrets": str(tmp_path),
        "/videos": str(tmp_path / "videos"),
        "0.0.0.0": "127.0.0.1",
        ":8000/": f":{port}/",
    }

    def here(words: list[str]) -> list[str]:
        """Words of a container with this machine's places."""
        for place, own in places.items():
            words = [word.replace(place, own) for word in words]
        return words

    def fantasyid(name: str) -> list[str]:
        return [sys.executable, "-m", "fantasyid", *here(COMPOSE["services"][name]["command"])]

    with ExitStack() as stack:
        redis = [*COMPOSE["services"]["redis"]["command"], "--port", str(redis_port)]
        stack.enter_context(running(redis, tmp_path / "redis.log"))
        server = stack.enter_context(running([*fantasyid("server"), "--port", str(port)], tmp_path / "server.log"))
        workers = [
            stack.enter_context(running(fantasyid("worker"), tmp_path / f"worker{number}.log"))
            for number in range(COMPOSE["services"]["worker"]["deploy"]["replicas"])
        ]
        health = [sys.executable, *here(of_dockerfile(" +CMD")[1:])]
        while subprocess.run(health, capture_output=True, check=False).returncode:
            assert server.poll() is None, (tmp_path / "server.log").read_text()
            time.sleep(0.2)
        url = f"http://127.0.0.1:{port}/v1/videos"
        fields = {"prompt": "A man nods.", "num_inference_steps": "2", "num_frames": "1"}
        assert httpx2.post(url, files={name: (None, text) for name, text in fields.items()}).status_code == 401
        asked = httpx2.post(url, files={name: (None, text) for name, text in fields.items()}, headers=KEY)
        video: dict[str, Any] = asked.json()
        while video["status"] in ("queued", "in_progress"):
            assert [worker.poll() for worker in workers] == [None, None]
            time.sleep(0.2)
            video = httpx2.get(f"{url}/{video['id']}", headers=KEY).json()
        assert (video["status"], video["error"]) == ("completed", None)
    assert [process.returncode for process in (server, *workers)] == [128 + signal.SIGTERM, 0, 0]
