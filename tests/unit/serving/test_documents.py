"""What docs/serving.md says works as it stands there."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from fantasyid.cli.main import app
from tests.unit.serving.conftest import Server

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "serving.md").read_text()
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def check_command(words: list[str]) -> None:
    """Whether `fantasyid` takes these arguments."""
    command = get_command(app).commands[words[0]]
    command.make_context("fantasyid", words[1:]).close()


def test_commands_and_their_options_exist() -> None:
    lines = [shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines()]
    commands = [words[1:] for words in lines if words[:1] == ["fantasyid"]]
    assert {words[0] for words in commands} == {"serve", "worker"}
    for words in commands:
        check_command(words)


def test_the_python_of_clients(server: Server, photo: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.jpg").write_bytes(photo)
    monkeypatch.chdir(tmp_path)
    clients = [block for block in blocks("python") if "client" in block]
    names: dict[str, object] = {}
    for block in clients:
        exec(compile(block.replace(ADDRESS, server.url), "serving.md", "exec"), names)
    assert len(clients) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"photo.jpg", "smile.mp4", "smile.jpg"}
    assert server.wait(names["video"]).status == "completed"


def test_the_python_of_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in blocks("python") if "create_app" in block)
    names: dict[str, object] = {}
    exec(compile(block, "serving.md", "exec"), names)
    assert "app" in names


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_the_lines_of_curl(server: Server, photo: bytes, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(photo)
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("curl ")]
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line.replace(ADDRESS, server.url))
        answer = subprocess.run([*words, "--fail", "--silent"], cwd=tmp_path, capture_output=True, check=True)
        assert b'"prompt":"A woman smiles."' in answer.stdout
