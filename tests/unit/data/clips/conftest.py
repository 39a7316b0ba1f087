"""One dataset, prepared once from small films by the command itself."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fantasyid.core.video import write_video
from fantasyid.data.dataset.layout import DatasetFolder
from fantasyid.data.repose.rig import RigSet
from tests.commands import run
from tests.unit.data.clips.films import made_films, packaged_film, portrait_rig

PRESET = """
measure: {num_frames: 9, height: 128, width: 128, text_frames: 2, detect_every: 8, views: 3, unit_size: 4}
keep: {min_side: 128, face_height: 44, held_out: 0.5}
"""


@dataclass(frozen=True)
class Films:
    """A folder of videos.

    Attributes:
        folder: Where they lie, with captions beside all but one.
        expected: What becomes of the shots of each, by its name: the first reason, `""` if kept.
    """

    folder: Path
    expected: Mapping[str, tuple[str, ...]]


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> RigSet:
    return portrait_rig(tmp_path_factory.mktemp("rig"))


@pytest.fixture(scope="session")
def films(rig: RigSet, tmp_path_factory: pytest.TempPathFactory) -> Films:
    folder = tmp_path_factory.mktemp("films")
    made = made_films(rig)
    for name, (frames, fps, _) in made.items():
        write_video(folder / name, frames, fps)
    expected = {name: reasons for name, (_, _, reasons) in made.items()}
    shutil.copy(packaged_film("carphone_pristine"), folder / "car.mp4")
    whole = (folder / "turn.mp4").read_bytes()
    (folder / "cut-off.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.mp4").write_text("no film")
    # The same film again, smaller and compressed anew; the clips' ids decide which of the two stays.
    (folder / "other-place").mkdir()
    again = np.ascontiguousarray(made["turn.mp4"][0][:, 4:-4, 4:-4])
    write_video(folder / "other-place" / "turn.mp4", again, 8.0)
    for path in folder.rglob("*.mp4"):
        if path.name != "silent.mp4":
            path.with_suffix(".txt").write_text(f"Somebody in {path.stem}.\n")
    more = {"car.mp4": ("", "", ""), "cut-off.mp4": ("unreadable",), "notes.mp4": ("unreadable",)}
    return Films(folder, expected | more)


@pytest.fixture(scope="session")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preset") / "tiny.yaml"
    path.write_text(PRESET)
    return path


@pytest.fixture(scope="session")
def dataset(films: Films, preset: Path, tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    out = tmp_path_factory.mktemp("dataset") / "clips"
    result = run("data", "prepare", films.folder, "--out", out, "--config", preset, "--licence", "public domain")
    assert result.exit_code == 0, result.output
    return DatasetFolder(out)
