"""The commands, killed at steps spread over all their writing."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fantasyid.checkpoints.released.convert import MANIFEST, convert_release
from fantasyid.cli.main import app
from fantasyid.core.mesh_files import write_mesh
from fantasyid.core.output_files import tidy_up
from fantasyid.geometry.head_model import HeadModel
from tests.kills import contents, count_steps, kill_at
from tests.tiny_release import write_release


def run(*arguments: object) -> None:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def killed(folder: Path, fresh: Callable[[Path], Any], write: Callable[[Path], Any], number: int, times: int) -> list:
    """What is left in folders after kills at steps spread over a run, as the next run finds and leaves it."""
    fresh(folder / "count")
    steps = count_steps(lambda: write(folder / "count"))
    found = []
    for step in range(0, steps, max(1, steps // times)):
        place = folder / f"{step}"
        fresh(place)
        kill_at(step, number, lambda place=place: write(place))  # type: ignore[misc]
        if number == signal.SIGKILL:
            tidy_up(place)
        found.append(contents(place))
    return found


@pytest.mark.parametrize(("number", "times"), [(signal.SIGKILL, 6), (signal.SIGTERM, 3)])
def test_edit(tmp_path: Path, number: int, times: int) -> None:
    head = HeadModel.load()
    source = tmp_path / "source.ply"
    write_mesh(source, head.mean.numpy(), head.triangles.numpy())

    def fresh(place: Path) -> None:
        place.mkdir()
        (place / "head.ply").write_bytes(b"old")

    def write(place: Path) -> None:
        run("edit", source, "--face-width", "0.3", "--out", place / "head.ply", "--overwrite")

    fresh(tmp_path / "new")
    write(tmp_path / "new")
    new = contents(tmp_path / "new")
    found = killed(tmp_path, fresh, write, number, times)
    assert all(left in ({"head.ply": b"old"}, new) for left in found)
    assert {"head.ply": b"old"} in found


@pytest.mark.parametrize(("number", "times"), [(signal.SIGKILL, 4), (signal.SIGTERM, 2)])
def test_convert(tmp_path: Path, number: int, times: int) -> None:
    release = write_release(tmp_path / "release")
    whole = {f"model/{name}" for name in (*convert_release(release, tmp_path / "model").files, MANIFEST)}
    found = killed(
        tmp_path, lambda place: place.mkdir(), lambda place: convert_release(release, place / "model"), number, times
    )
    assert all(set(left) in (set(), whole) for left in found)
    assert {} in found


def test_the_next_conversion_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    release = write_release(tmp_path / "release")
    place = tmp_path / "models"
    place.mkdir()
    second_file = count_steps(lambda: convert_release(release, place / "count" / "model"), until="fsync", nth=3)
    shutil.rmtree(place / "count")
    kill_at(second_file, signal.SIGKILL, lambda: convert_release(release, place / "model"))
    (left,) = place.iterdir()
    assert any(path.suffix == ".safetensors" for path in left.rglob("*"))
    convert_release(release, place / "model")
    assert [path.name for path in place.iterdir()] == ["model"]
