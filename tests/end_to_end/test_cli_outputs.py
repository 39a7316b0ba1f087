"""What the commands write, say on the way, and refuse before they start."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fantasyid.cli.main import app
from fantasyid.cli.progress import ConsoleProgress
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.video import read_video
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.end_to_end.test_cli_generate import generate, model
from tests.kills import contents

__all__ = ["model"]  # a fixture
COMMAND = [sys.executable, "-c", "from fantasyid.cli.main import app; app()"]


def test_nobodys_video_is_replaced_unless_told_to(photo: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "holiday.mp4"
    out.write_bytes(b"mine")
    refused = generate(photo, out, model, "--steps", "1")
    assert refused.exit_code == 2
    assert "holiday.mp4 is there already; choose another name or pass --overwrite." in refused.stderr.replace("\n", " ")
    assert contents(tmp_path) == {"holiday.mp4": b"mine"}
    assert generate(photo, out, model, "--steps", "1", "--overwrite").exit_code == 0
    assert set(contents(tmp_path)) == {"holiday.mp4", "holiday.json", "holiday.jpg"}


def test_names_may_hold_any_bytes_and_the_photo_may_go_away(
    photo: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(shutil.copy(photo, tmp_path / os.fsdecode(b"caf\xe9.png")))
    out = tmp_path / os.fsdecode(b"a:\xff.webm")
    load = FantasyIDPipeline.from_pretrained

    def load_after_the_photo_is_gone(*arguments: Any, **options: Any) -> Any:
        own.unlink()
        return load(*arguments, **options)

    monkeypatch.setattr(FantasyIDPipeline, "from_pretrained", load_after_the_photo_is_gone)
    monkeypatch.setattr(sys, "argv", ["fantasyid", "generate", str(own)])
    result = generate(own, out, model, "--steps", "1")
    assert result.exit_code == 0, result.output
    assert "a:\\udcff.webm" in result.stdout
    assert json.loads(out.with_suffix(".json").read_text())["command"][1].endswith("caf\\xe9.png")
    assert read_video(out)[0].shape == (9, 128, 128, 3)


def test_where_stderr_is_no_terminal_it_says_in_lines_what_goes_on(photo: Path, model: Path, tmp_path: Path) -> None:
    result = generate(photo, tmp_path / "a.gif", model, "--steps", "2")
    assert result.stderr.splitlines() == [
        "Starting",
        "Loading the model",
        "Reading the photo",
        "Generating: 2 steps",
        "Generating: 1 of 2",
        "Generating: 2 of 2",
    ]


def test_long_work_is_told_in_ten_lines_or_on_a_terminal_in_one() -> None:
    lines, screen = StringIO(), StringIO()
    for out, is_terminal in ((lines, False), (screen, True)):
        console = Console(file=out, force_terminal=is_terminal, width=200)
        progress = ConsoleProgress(console)
        with progress.stage("Looking"):
            pass
        with progress.steps("Working", 50) as tell:
            for done in range(50):
                tell(done + 1)
    expected = ["Looking", "Working: 50 steps", *(f"Working: {done} of 50" for done in range(5, 51, 5))]
    assert lines.getvalue().splitlines() == expected
    assert "Looking" in screen.getvalue()
    assert "50/50" in screen.getvalue()


def test_what_can_be_known_is_refused_before_slow_imports(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "there.mp4").write_bytes(b"mine")
    (tmp_path / "there.ply").write_bytes(b"mine")
    prompt = ["--prompt", "a woman smiles"]
    refused = [
        (["generate", photo, *prompt, "--out", tmp_path / "a.avi"], "must end in .mp4, .webm or .gif"),
        (["generate", photo, *prompt, "--out", tmp_path / "there.mp4"], "there.mp4 is there already"),
        (["generate", photo, *prompt, "--out", tmp_path / "nowhere/a.mp4"], "nowhere does not exist"),
        (["generate", photo, *prompt, "--out", tmp_path / ("x" * 300 + ".mp4")], "File name too long"),
        (["generate", tmp_path / "absent.jpg", *prompt, "--out", tmp_path / "a.mp4"], "There is no file"),
        (
            ["generate", "https://a.org/b.jpg", *prompt, "--out", tmp_path / "a.mp4"],
            "is an address, not a file; download",
        ),
        (["generate", photo, "--prompt", b"caf\xe9", "--out", tmp_path / "a.mp4"], r"not UTF-8 ('caf\\xe9')"),
        (["edit", photo, "--out", tmp_path / "there.ply"], "there.ply is there already"),
        (["edit", tmp_path / "absent.jpg", "--out", tmp_path / "a.ply"], "There is no file"),
        (["face", "inspect", photo, "--out", tmp_path / "there.ply"], "there.ply is a file"),
        (["evaluate", "identity", "--reference", photo, "--video", tmp_path / "b.mp4"], "check the path of the video"),
    ]
    code = (
        "import sys\nfrom fantasyid.cli.main import app\n"
        "for line in sys.argv[1].split(chr(10)):\n"
        "    try: app(line.split(chr(9)))\n"
        "    except SystemExit as end: assert end.code == 2, (line, end.code)\n"
        "    assert not {'torch', 'diffusers', 'transformers', 'cv2'} & sys.modules.keys(), line\n"
    )
    lines = b"\n".join(b"\t".join(os.fsencode(argument) for argument in arguments) for arguments, _ in refused)
    result = subprocess.run([sys.executable, "-c", code, lines], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    errors = result.stderr.splitlines()
    assert len(errors) == len(refused), result.stderr
    for error, (_, says) in zip(errors, refused, strict=True):
        assert says in error
    assert set(contents(tmp_path)) == {"there.mp4", "there.ply"}


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["--version"]])
def test_a_reader_that_leaves_is_no_fault(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run([*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, b"")


def test_the_example_refuses_too(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = Path(__file__).parents[2] / "examples" / "generate.py"
    for name in ("a.mp4", "b.json"):
        (tmp_path / name).write_bytes(b"mine")
    for out in ("a.mp4", "b.mp4"):
        monkeypatch.setattr(sys, "argv", ["generate.py", str(photo), "A woman smiles.", str(tmp_path / out)])
        with pytest.raises(InvalidRequestError, match="is there already"):
            runpy.run_path(str(example), run_name="__main__")
    assert contents(tmp_path) == {"a.mp4": b"mine", "b.json": b"mine"}


def test_help_names_the_rule() -> None:
    for command in (["generate"], ["edit"], ["face", "inspect"]):
        assert "--overwrite" in CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).output
