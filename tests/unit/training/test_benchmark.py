"""The benchmark of training runs the real trainer, and its table stands where the page has room for it."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import training, training_table

ROOT = Path(__file__).parents[3]
PRESETS = ROOT / "configs" / "train"


def test_presets_are_measured_and_told(tmp_path: Path) -> None:
    presets = [word for name in ("paper", "paper-lora") for word in ("--preset", str(PRESETS / f"{name}.yaml"))]
    given = ["--small", "--device", "cpu", "--steps", "2", "--out", str(tmp_path / "one.json")]
    training.main([*presets, *given, "--set", "optimiser.batch_size=2", "recompute=nothing"])
    content = json.loads((tmp_path / "one.json").read_text())
    ending = "on 1 (optimiser.batch_size=2, recompute=nothing)"
    assert set(content["rows"]) == {f"paper {ending}", f"paper-lora {ending}"}
    for row in content["rows"].values():
        assert (row["batch_size"], row["at_once"]) == (2, 1)
        assert len(row["seconds_all"]) == 2
        assert row["seconds"] == pytest.approx(sum(row["seconds_all"]) / 2)
        assert 0 < row["data_wait"] < 1
        assert len(set(row["losses"])) == 3
        assert row["teraflops"] == pytest.approx(2 * row["teraflop"] / row["seconds"])
    shutil.copy(ROOT / "docs" / "training.md", tmp_path)
    for _ in range(2):  # the second takes the place of the first
        training_table.main([str(tmp_path / "one.json"), "--page", str(tmp_path / "training.md")])
    before, after = (ROOT / "docs" / "training.md").read_text(), (tmp_path / "training.md").read_text()
    assert after.count("| `paper-lora`, `recompute=nothing` | 1 | 2 | 1 |") == 1
    assert after.split(training_table.BEGIN)[0] == before.split(training_table.BEGIN)[0]
    assert after.split(training_table.END)[1] == before.split(training_table.END)[1]


def test_speed_up_is_over_one_gpu_with_the_same_step() -> None:
    alone = {"preset": "paper", "changes": [], "batch_size": 8, "at_once": 4, "data_wait": 0.001, "plan_gib": 72.6}
    rows = {
        "one": {**alone, "gpus": 1, "seconds": 24.0, "share_of_peak": 0.46, "share_once": 0.35, "peak_gib": 70.0},
        "two": {**alone, "gpus": 2, "seconds": 12.5},
        "other": {**alone, "gpus": 2, "seconds": 9.0, "at_once": 2},
    }
    machine = {"hardware": "H100", "versions": {"torch": "2"}, "date": "today", "commit": "abc"}
    lines = training_table.table([{**machine, "rows": rows}]).splitlines()
    assert lines[2] == "| `paper` | 1 | 8 | 4 | 24.00 | 48.0 | 46% | 35% | 70.0 | 72.6 | 0.10% |  |"
    assert lines[3].endswith("| 12.50 | 25.0 |  |  |  | 72.6 | 0.10% | 1.92 |")
    assert lines[4].endswith("| 0.10% |  |")
    assert lines[-1] == "*Measured on* H100, torch 2, today, commit abc."
