"""`fantasyid data` as a user meets it: every command refuses in one sentence what cannot be."""

from pathlib import Path

import numpy as np
import pytest

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.face_views import FaceViews
from fantasyid.data.precompute import ClipPool
from fantasyid.geometry.head_model import HeadModel
from tests.commands import refusal, run


@pytest.fixture
def portraits(tmp_path: Path) -> Path:
    """A folder whose files are there and hold nobody."""
    (tmp_path / "manifest.csv").write_text("id,person,file,sex,age_decade,tier,source,split,yaw_deg\n")
    np.savez(tmp_path / "landmarks.npz", ids=np.zeros(0, "U1"), landmarks=np.zeros((0, 478, 3), np.float32))
    return tmp_path


def test_the_old_name_of_rigs_tells_the_new_one(portraits: Path) -> None:
    said = refusal("data", "prepare", "--portraits", portraits, "--out", portraits / "rigs.npz", "--split", "val")
    assert "is called `fantasyid data rigs --portraits` now" in said


def test_rigs(portraits: Path) -> None:
    given = ["data", "rigs", "--portraits", portraits, "--out", portraits / "rigs.npz"]
    assert "There is no file" in refusal("data", "rigs", "--portraits", portraits / "none", "--out", "rigs.npz")
    assert "list of people" in refusal(*given, "--leave-out", portraits / "none.txt")
    assert "list of people" in refusal(*given, "--only", portraits / "none.txt")
    assert "does not exist" in refusal(*given[:-1], portraits / "none" / "rigs.npz")
    assert "manifest.csv has no photo of the split train" in refusal(*given)
    with (portraits / "manifest.csv").open("a") as manifest:
        manifest.write("a1,a,a1.jpg,female,40,1,here,train,3\n")
    assert "landmarks.npz has no landmarks of 1 photos, such as a1" in refusal(*given)
    (portraits / "landmarks.npz").write_bytes(b"PK")
    assert "landmarks.npz is damaged" in refusal(*given)
    assert run(*given, "--limit", "0").exit_code == 2
    assert run(*given, "--split", "test").exit_code == 2


@pytest.mark.parametrize("given", [("render", "--pool", "--clips"), ("views", "--out", "--people")])
def test_render_and_views(tmp_path: Path, given: tuple[str, str, str]) -> None:
    command, out, count = given
    rigs = tmp_path / "rigs.npz"
    arguments = ["data", command, "--rigs", rigs, out, tmp_path / "out", "--device", "cpu", count]
    assert f"There is no file {rigs}" in refusal(*arguments, "1")
    rigs.write_bytes(b"no rigs")
    assert f"{rigs} cannot be read" in refusal(*arguments, "1")
    np.savez(rigs, head=np.array("other"))
    assert "another head model" in refusal(*arguments, "1")
    np.savez(rigs, head=np.array(HeadModel.load().coefficients_hash))
    assert f"{rigs} lacks alpha, alpha_end, backdrop" in refusal(*arguments, "1")
    assert run(*arguments, "0").exit_code == 2
    assert run(*arguments, "1", "--seed", "-1").exit_code == 2
    assert not (tmp_path / "out").exists()


def test_more_frames_than_a_clip_has_are_refused(tmp_path: Path) -> None:
    arguments = ["data", "render", "--rigs", tmp_path, "--pool", tmp_path, "--clips", "1"]
    assert run(*arguments, "--frames", "26").exit_code == 2


def test_prepare(tmp_path: Path) -> None:
    assert "Give the folder of videos" in refusal("data", "prepare", "--out", tmp_path)
    given = ["data", "prepare", tmp_path / "videos", "--out", tmp_path / "out"]
    assert "There is no folder" in refusal(*given, "--licence", "CC0")
    (tmp_path / "videos").mkdir()
    assert "The licence of the videos is not given" in refusal(*given)
    assert "There is no video in" in refusal(*given, "--licence", "CC0")
    assert "There is no file" in refusal(*given, "--licence", "CC0", "--config", tmp_path / "none.yaml")
    assert run(*given, "--format", "other").exit_code == 2
    assert run(*given, "--workers", "0").exit_code == 2
    assert not (tmp_path / "out").exists()


def test_encode_and_check(tmp_path: Path) -> None:
    said = refusal("data", "encode", "--pool", tmp_path, "--vae", tmp_path)
    assert "is called `fantasyid data encode-pool --pool` now" in said
    assert "Give the folder of the dataset" in refusal("data", "encode", tmp_path)
    assert "is no finished dataset" in refusal("data", "encode", tmp_path, "--videos", tmp_path)
    assert "is no finished dataset" in refusal("data", "check", tmp_path)


def test_encode_pool(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    given = ["data", "encode-pool", "--pool", pool, "--vae", tmp_path / "vae", "--vision", tmp_path / "vision"]
    assert f"There is no folder {pool}" in refusal(*given)
    pool.mkdir()
    assert str(tmp_path / "vae") in refusal(*given)
    assert run(*given, "--device", "tpu").exit_code == 2


def test_folders_that_are_not_finished_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"There is no .*; check the path, or run `fantasyid data render`"):
        ClipPool.open(tmp_path)
    with pytest.raises(InvalidRequestError, match=r"There is no .*; check the path, or run `fantasyid data views`"):
        FaceViews.open(tmp_path, "cpu")
