"""What the README shows works as it stands there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut
from typer.main import get_command

from fantasyid.checkpoints.builtin import load_builtin
from fantasyid.cli.main import app
from fantasyid.core.provenance import DETECTION_THRESHOLD, detect_mark
from fantasyid.core.video import read_video
from fantasyid.data.repose.backdrops import COLOURS
from fantasyid.data.repose.programs import PROGRAMS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


PAGE = (ROOT / "docs" / "page.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_python_makes_a_video_in_at_most_six_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 6
    Image.fromarray(astronaut()).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    few_steps = {**load_builtin(), "default_num_inference_steps": 2}
    monkeypatch.setattr("fantasyid.pipelines.fantasyid.load_builtin", lambda **_: few_steps)
    exec(compile(code, "README.md", "exec"), {})
    frames, fps = read_video(tmp_path / "smile.mp4")
    assert frames.shape == (17, 128, 128, 3)
    assert fps == 8
    assert detect_mark(frames) >= DETECTION_THRESHOLD


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (README, {"generate", "ui", "evaluate", "doctor", "face", "edit", "convert"}),
        (PAGE, {"generate", "ui"}),
    ],
    ids=["README", "page"],
)
def test_commands_and_their_options_exist(text: str, named: set[str]) -> None:
    lines = [shlex.split(line, comments=True) for block in blocks("bash", text) for line in block.splitlines()]
    commands = [words[1:] for words in lines if words[:1] == ["fantasyid"]]
    assert {words[0] for words in commands} == named
    for words in commands:
        command = get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        command.make_context("fantasyid", list(words)).close()


def test_targets_of_make_exist() -> None:
    rules = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert set(targets) == {"demo", "test"}
    assert all(re.search(rf"^{target}:", rules, re.MULTILINE) for target in targets)


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{link} in {page.name}"


def test_words_of_the_prompts_are_those_of_training() -> None:
    (_, after) = README.split("## What the built-in model understands")
    table = after.split("##")[0]
    assert all(colour in table for colour in COLOURS)
    for name in PROGRAMS:
        assert _words(name) in table, name


def _words(program: str) -> str:
    """What the README calls a program; pairs of directions share a phrase."""
    phrase = PROGRAMS[program][1](np.random.default_rng(0), 17).phrase
    return re.sub(r" (left|right|up|down)$", "", phrase)
