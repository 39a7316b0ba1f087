"""A run that was killed at any point ends with the same bytes when it is run again."""

import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fantasyid.cli.instruments import open_measurer
from fantasyid.core.video import write_video
from fantasyid.data.clips.config import MeasureConfig, PrepareConfig
from fantasyid.data.clips.prepare import Instruments, prepare
from fantasyid.data.engines.local import LocalEngine
from fantasyid.data.sources.formats import list_sources
from tests.kills import contents, count_steps, kill_at
from tests.unit.data.clips.films import LENGTH

CONFIG = PrepareConfig(measure=MeasureConfig(num_frames=9, height=64, width=64, text_frames=1, unit_size=1))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos in which nobody is seen, and a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    grey = np.full((LENGTH, 64, 64, 3), 100, np.uint8)
    write_video(folder / "a.mp4", grey, 8.0)
    write_video(folder / "b.mp4", grey[:9], 8.0)
    (folder / "c.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def instruments() -> Instruments:
    measurer = open_measurer(CONFIG.measure)
    return Instruments(lambda: measurer, {"text": "1"}, {"text": "CC0"})


def run(videos: Path, instruments: Instruments, out: Path) -> None:
    listing = list_sources(videos, "folder", "CC0", None)
    prepare(listing, "folder", videos, out, CONFIG, instruments, LocalEngine(), lambda done: None)


def test_every_kill_is_survived(videos: Path, instruments: Instruments, tmp_path: Path) -> None:
    run(videos, instruments, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    assert {"dataset.json", "clips.parquet", "measured/part-00002.parquet"} <= whole.keys()
    steps = count_steps(partial(run, videos, instruments, tmp_path / "counted"))
    assert contents(tmp_path / "counted") == whole
    assert steps > 100
    for index, step in enumerate(range(1, steps, steps // 14)):
        out = tmp_path / f"killed{step}"
        kill_at(step, signal.SIGKILL if index % 3 else signal.SIGTERM, partial(run, videos, instruments, out))
        run(videos, instruments, out)
        assert contents(out) == whole, step


def test_only_what_is_missing_is_measured_again(videos: Path, instruments: Instruments, tmp_path: Path) -> None:
    run(videos, instruments, tmp_path)
    whole = contents(tmp_path)
    for name in whole:
        if name.startswith("measured/part-00001"):
            (tmp_path / name).unlink()
    done: list[int] = []
    listing = list_sources(videos, "folder", "CC0", None)
    prepare(listing, "folder", videos, tmp_path, CONFIG, instruments, LocalEngine(), done.append)
    assert done == [3]
    assert contents(tmp_path) == whole
