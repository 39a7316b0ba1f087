"""Which portraits the program that builds the head model learns from."""

from pathlib import Path

import numpy as np
import pytest

from fantasyid.geometry.build.head import _portraits
from tests.commands import run_module

ROWS = {
    "a1": "a,a1.jpg,train,female,-3",
    "b1": "b,b1.jpg,train,male,10",
    "a2": "a,a2.jpg,train,female,25",
    "b2": "b,b2.jpg,train,male,-26",
    "c1": "c,c1.jpg,train,male,0",
    "d1": "d,d1.jpg,train,male,0",
    "e1": "e,e1.jpg,val,female,0",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = ["id,person,file,split,sex,yaw_deg", *(f"{name},{rest}" for name, rest in ROWS.items())]
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    (tmp_path / "people.txt").write_text("d\n")
    points = np.arange(len(ROWS), dtype=np.float32)[:, None, None] + np.zeros((1, 478, 3), np.float32)
    np.savez(tmp_path / "landmarks.npz", ids=np.array(list(ROWS)), landmarks=points)
    return tmp_path


def test_people_of_the_train_split_who_look_ahead(folder: Path) -> None:
    """Not b2, which is turned too far, d, who is left out, nor e of the split val; one woman weighs as two men."""
    people, weight = _portraits(folder, folder / "people.txt")
    assert [photos[:, 0, 0].tolist() for photos in people] == [[0, 2], [1], [4]]
    assert weight.tolist() == [0.5, 0.25, 0.25]


def test_a_row_without_landmarks_is_told_before_anything_is_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(folder / "landmarks.npz", ids=np.array(["a1"]), landmarks=np.zeros((1, 478, 3), np.float32))
    arguments = ("--portraits", str(folder), "--out", str(folder / "head.npz"))
    assert run_module("fantasyid.geometry.build.head", monkeypatch, *arguments) == 2
    assert "has no landmarks of 4 photos, such as b1" in capsys.readouterr().err
