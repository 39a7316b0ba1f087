"""Every command and every program in the documentation is run with a tiny model, or at least read by its own parser.

A command is run unless it costs much, waits for somebody, or names what only its reader has.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import _dlib_pybind11
import pytest
from PIL import Image
from skimage.data import astronaut
from typer.main import get_command

from fantasyid.cli.main import app
from tests.commands import run
from tests.documents import (
    LANGUAGES,
    PAGES,
    ROOT,
    Block,
    Command,
    blocks_of,
    check_python,
    commands_of,
    examples_of,
    parse,
)
from tests.tiny_photo_model import tiny_photo_pipeline
from tests.tiny_pipeline import tiny_pipeline_transformer

ELSEWHERE = {ROOT / "docs" / "serving.md": ROOT / "tests" / "unit" / "serving" / "test_documents.py"}
"""Pages whose programs need a server, and the tests that run them beside one."""
BLOCKS = [block for page in PAGES if page not in ELSEWHERE for block in blocks_of(page)]
COMMANDS = [command for block in BLOCKS if block.language == "bash" for command in commands_of(block)]
RUN = ("doctor", "edit", "evaluate identity", "evaluate provenance", "face inspect", "generate")
"""Commands that take a second with a tiny model."""
READ = ("convert", "data", "evaluate", "serve", "study", "train", "ui", "worker")
"""Commands that take many people, videos or gigabytes, or wait for visitors."""
FULL_SIZE = {"--model", "--lora", "--gpus", "--tune", "--arcface-folder"}
"""Options that need weights or devices which are not here."""

find_faces = cache(_dlib_pybind11.get_frontal_face_detector)
"""Half a second each time that it is made."""


@cache
def tiny_components() -> dict[str, Any]:
    """A model of the built-in one's size of video, which takes prompts as long as it does."""
    pipeline = tiny_photo_pipeline()
    transformer = tiny_pipeline_transformer(sample_width=16, sample_height=16, sample_frames=9, max_text_seq_length=48)
    settings = {"default_num_inference_steps": 2, "default_guidance_scale": 2.5, "guidance_drops_identity": True}
    return {**pipeline.components, "transformer": transformer, **settings}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a reader works in, with photos of the names that the documentation uses; mini is tiny."""
    photo = Image.fromarray(astronaut()).crop((70, 0, 370, 300))
    for name in ("photo.jpg", "photo.png", "front.jpg", "left.jpg"):
        photo.save(tmp_path / name)
    group = Image.new("RGB", (photo.width * 2, photo.height))
    group.paste(photo)
    group.paste(photo, (photo.width, 0))
    group.save(tmp_path / "group.jpg")
    (tmp_path / "videos").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_dlib_pybind11, "get_frontal_face_detector", find_faces)
    monkeypatch.setattr("fantasyid.pipelines.fantasyid.load_builtin", lambda **_: dict(tiny_components()))
    return tmp_path


def _is_run(command: Command) -> bool:
    if command.words[0] != "fantasyid":
        return False
    words = " ".join(command.words[1:])
    if not words.startswith(RUN):
        assert words.startswith(READ), f"{command}: add it to RUN or READ of {Path(__file__).name}"
        return False
    of_the_reader = re.search(r"[A-Z]{2,}", _file_names(command))
    return not of_the_reader and not FULL_SIZE & set(command.words)


def _file_names(command: Command) -> str:
    return " ".join(word for word in command.words if ("/" in word or "." in word) and " " not in word)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_says_what_it_is(block: Block) -> None:
    assert block.language in LANGUAGES, f"{block}: tests/documents.py cannot check {block.language}"
    if not block.language:
        assert not re.search(r"^(\$ |fantasyid |pip |python3? |make )", block.code, re.MULTILINE), f"{block}: say bash"


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_read_by_its_program(command: Command) -> None:
    parse(command.words)


@pytest.mark.parametrize("page", ELSEWHERE, ids=lambda page: page.name)
def test_a_page_that_needs_a_server_has_tests_of_its_own(page: Path) -> None:
    assert page.name in ELSEWHERE[page].read_text()


def test_examples_of_help_are_read_by_their_commands() -> None:
    examples = list(examples_of(get_command(app)))
    assert len(examples) > 20
    for example in examples:
        parse(example)


def test_each_command_that_can_be_run_stands_somewhere() -> None:
    done = [" ".join(command.words[1:]) for command in COMMANDS if _is_run(command)]
    assert all(any(words.startswith(name) for words in done) for name in RUN)


@pytest.mark.parametrize(
    "page", sorted({command.page for command in COMMANDS if _is_run(command)}), ids=lambda p: p.name
)
def test_the_commands_of_a_page_work_one_after_the_other(page: Path, desk: Path) -> None:
    for command in COMMANDS:
        if command.page == page and _is_run(command):
            result = run(*command.words[1:])
            assert result.exit_code == 0, f"{command}\n{result.output}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_a_program_works(block: Block, desk: Path) -> None:
    if re.search(r'"[A-Z]{2,}"', block.code):
        check_python(block.code)  # about a folder of the reader's
    else:
        exec(compile(block.code, str(block), "exec"), {})
