"""The built-in model with the weights that ship: what `make demo` promises, and the examples."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fantasyid.checkpoints.builtin import MINI_FOLDER
from fantasyid.cli.main import app
from fantasyid.core.provenance import DETECTION_THRESHOLD, detect_mark
from fantasyid.core.video import read_video
from fantasyid.geometry.head_model import HeadModel

ROOT = Path(__file__).parents[2]
PROMPT = "A woman smiles and turns the head to the left, in front of a plain blue background."


@pytest.fixture(scope="module")
def video(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's generation, with fewer steps."""
    path = tmp_path_factory.mktemp("video") / "demo.mp4"
    arguments = ["generate", str(photo), "--prompt", PROMPT, "--out", str(path), "--seed", "0", "--steps", "8"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return path


def run_example(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


def test_the_built_in_model_makes_a_marked_video_of_17_frames(video: Path) -> None:
    frames, fps = read_video(video)
    assert frames.shape == (17, 128, 128, 3)
    assert fps == 8
    assert detect_mark(frames) >= DETECTION_THRESHOLD
    assert Image.open(video.with_suffix(".jpg")).width > 800
    assert json.loads(video.with_suffix(".json").read_text())["request"]["prompt"] == PROMPT


def test_the_judge_finds_the_face_in_the_video(photo: Path, video: Path) -> None:
    arguments = ["evaluate", "identity", "--reference", str(photo), "--video", str(video), "--json"]
    scores = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert scores["detection_rate"] >= 0.9
    assert scores["median_distance"] < 0.75  # two different people: 0.85
    assert scores["face_motion"] > 0


def test_the_background_asked_for_is_blue(video: Path) -> None:
    corners = read_video(video)[0][:, :12, [*range(12), *range(-12, 0)]].astype(float)
    red, green, blue = corners.mean(axis=(0, 1, 2))
    assert blue > red + 15
    assert blue > green + 5


def test_example_generate(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_example(monkeypatch, "generate.py", photo, PROMPT, tmp_path / "video.mp4", "--steps", "2")
    frames, _ = read_video(tmp_path / "video.mp4")
    assert frames.shape == (17, 128, 128, 3)
    assert detect_mark(frames) >= DETECTION_THRESHOLD


def test_example_shape_of_a_face(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example(monkeypatch, "shape_of_a_face.py", photo, tmp_path / "head.obj")
    lines = (tmp_path / "head.obj").read_text().splitlines()
    vertices = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    faces = np.array([line.split()[1:] for line in lines if line.startswith("f ")], int)
    head = HeadModel.load()
    assert vertices.shape == head.mean.shape
    assert np.array_equal(faces - 1, head.triangles.numpy())
    assert 0.05 < np.sqrt(((vertices - head.mean.numpy()) ** 2).sum(1).mean()) < 3  # a person, not the mean head
    assert "yaw" in capsys.readouterr().out


def test_doctor_finds_the_weights() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output


def test_weights_are_small_enough_to_ship() -> None:
    sizes = [path.stat().st_size for path in MINI_FOLDER.rglob("*") if path.is_file()]
    assert max(sizes) <= 16 * 2**20
    assert sum(sizes) <= 44 * 2**20
    reader = [path.stat().st_size for path in (MINI_FOLDER / "face_reader_model").iterdir()]
    assert sum(reader) <= 6e6
