"""`fantasyid face inspect` and `fantasyid edit` as a user meets them, with the weights that ship."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut
from typer.testing import CliRunner, Result

from fantasyid.cli.face import FILES
from fantasyid.cli.main import app
from fantasyid.core.mesh_files import read_mesh, write_mesh
from fantasyid.face.reconstruct_deca import DecaFiles
from fantasyid.geometry.edit_table import EDITS
from fantasyid.geometry.head_model import HeadModel
from tests.flame_files import NUM_VERTICES, deca_state, write_deca, write_flame_2020


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def inspected(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspected") / "reading"
    result = run("face", "inspect", photo, "--out", folder)
    assert result.exit_code == 0, result.output
    assert "degrees, fit" in result.stdout
    return folder


def test_inspect_shows_the_face_in_five_files(inspected: Path) -> None:
    assert {path.name for path in inspected.iterdir()} == set(FILES)
    assert {path.name for path in inspected.parent.iterdir()} == {"reading"}
    record = json.loads((inspected / "reading.json").read_text())
    head = HeadModel.load()
    assert record["backend"] == "builtin"
    assert len(record["faces"]) == 1
    assert 0.5 < record["confidence"] <= 1
    assert abs(record["yaw_deg"]) < 15  # she faces the camera
    assert abs(record["roll_deg"]) < 10
    assert tuple(record["expression"]) == head.expression_names
    assert record["expression"]["mouthSmileLeft"] > 0.2  # and smiles
    assert record["topology_hash"] == head.topology.hash
    assert 0 < record["error_cm"] < 0.5
    with Image.open(inspected / "turntable.png") as turntable:
        assert turntable.width > 4 * turntable.height


def test_overlay_covers_the_face_and_leaves_the_rest(inspected: Path) -> None:
    with Image.open(inspected / "overlay.jpg") as picture:
        changed = np.abs(np.asarray(picture).astype(int) - astronaut()).max(axis=2) > 25
    assert changed[110:150, 195:255].mean() > 0.8  # her nose and cheeks
    assert changed[:, 400:].mean() < 0.02
    assert changed[300:].mean() < 0.02


def test_both_meshes_are_the_neutral_head(inspected: Path) -> None:
    head = HeadModel.load()
    from_ply, triangles = read_mesh(inspected / "head.ply")
    from_obj, _ = read_mesh(inspected / "head.obj")
    assert np.array_equal(triangles, head.triangles.numpy())
    assert np.allclose(from_ply, from_obj, rtol=0, atol=1e-15)
    assert 0.05 < np.sqrt(((from_ply - head.mean.numpy()) ** 2).sum(1).mean()) < 3  # a person, not the mean head


def test_inspect_replaces_only_when_told_to(photo: Path, tmp_path: Path) -> None:
    kept = tmp_path / "notes.txt"
    kept.write_text("mine")
    (tmp_path / "head.ply").write_text("old")
    refused = run("face", "inspect", photo, "--out", tmp_path)
    assert refused.exit_code == 2
    assert "head.ply is there already; choose another name or pass --overwrite" in refused.stderr
    assert (tmp_path / "head.ply").read_text() == "old"
    assert run("face", "inspect", photo, "--out", tmp_path, "--overwrite").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", *FILES}
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("backend", ["deca", "insightface"])
def test_backends_without_their_files_say_how_to_get_them(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = run("face", "inspect", photo, "--out", tmp_path / "out", "--backend", backend)
    assert result.exit_code == 2, result.output
    assert "http" in result.stderr
    assert not list(tmp_path.iterdir())


def test_decas_files_may_lie_in_any_folder(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    files = DecaFiles.in_folder(tmp_path / "deca")
    files.flame.parent.mkdir()
    write_flame_2020(files.flame)
    write_deca(files.deca, deca_state())
    face = tmp_path / "face.png"
    with Image.open(photo) as whole:
        whole.crop((150, 40, 300, 190)).save(face)
    inspect = ("face", "inspect", face, "--out", tmp_path / "reading", "--backend", "deca")
    assert run(*inspect).exit_code == 2
    result = run(*inspect, "--deca-folder", files.flame.parent)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "reading" / "reading.json").read_text())
    assert (record["backend"], record["num_vertices"]) == ("deca", NUM_VERTICES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--deca-folder", "."), "--deca-folder is for --backend deca; give that too"),
        (("--deca-folder", ".", "--backend", "insightface"), "--deca-folder is for --backend deca; give that too"),
        (("--deca-folder", "nowhere", "--backend", "deca"), "There is no folder nowhere"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "inspect"])
def test_decas_folder_goes_with_deca(
    photo: Path, tmp_path: Path, command: str, options: tuple[str, ...], message: str
) -> None:
    out = ("--out", tmp_path / "video.mp4")
    words = ("face", "inspect", photo, *out) if command == "inspect" else ("generate", photo, "--prompt", "a nod", *out)
    result = run(*words, *options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_heads_of_flame_are_not_edited(photo: Path, tmp_path: Path) -> None:
    """Said before anyone is sent to fetch DECA's files."""
    generate = ("generate", photo, "--prompt", "a nod", "--out", tmp_path / "video.mp4", "--edit", "face-width=1")
    edit = ("edit", photo, "--out", tmp_path / "head.ply", "--face-width", "1")
    for words in (generate, edit):
        result = run(*words, "--backend", "deca")
        assert result.exit_code == 2, result.output
        assert "Edits are made on the built-in head, and the backend deca makes FLAME's" in result.stderr


@pytest.mark.parametrize(
    ("command", "out", "message"),
    [
        ("inspect", "nowhere/reading", "nowhere does not exist"),
        ("inspect", "wall.png", "wall.png is a file"),
        ("inspect", "reading", "No face was found"),
        ("edit", "head.ply", "No face was found"),
        ("edit", "head.stl", "must end in .ply or .obj, not 'head.stl'"),
        ("edit", "nowhere/head.ply", "nowhere does not exist"),
    ],
)
def test_bad_input_leaves_nothing(tmp_path: Path, command: str, out: str, message: str) -> None:
    wall = tmp_path / "wall.png"
    Image.new("RGB", (120, 120), "grey").save(wall)
    words = ["face", "inspect"] if command == "inspect" else ["edit"]
    result = run(*words, wall, "--out", tmp_path / out)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == [wall]


def test_edit_widens_the_face_of_a_photo_and_of_its_file_alike(photo: Path, inspected: Path, tmp_path: Path) -> None:
    from_photo, from_file = tmp_path / "photo.ply", tmp_path / "file.obj"
    preview = tmp_path / "preview.png"
    options = ("--face-width", "+0.5", "--nose-length", "-0.2")
    result = run("edit", photo, *options, "--out", from_photo, "--preview", preview)
    assert result.exit_code == 0, result.output
    assert "face-width +0.5: width between the cheekbones" in result.stdout
    assert "nose-length -0.2: bridge to tip of the nose" in result.stdout
    assert "chin-length" not in result.stdout
    assert run("edit", inspected / "head.ply", *options, "--out", from_file).exit_code == 0
    edited, triangles = read_mesh(from_photo)
    assert np.allclose(edited, read_mesh(from_file)[0], atol=1e-5)
    head = HeadModel.load()
    assert np.array_equal(triangles, head.triangles.numpy())
    before = read_mesh(inspected / "head.ply")[0]
    left, right = (head.landmarks478[mark].item() for mark in EDITS[0].measure[:2])
    wider = (edited - before)[left, 0] - (edited - before)[right, 0]
    assert wider == pytest.approx(0.6, abs=1e-3)
    with Image.open(preview) as picture:
        assert picture.height == 640


def test_edit_refuses_what_it_cannot_do(inspected: Path, tmp_path: Path) -> None:
    head, out = inspected / "head.ply", tmp_path / "out.ply"
    other = tmp_path / "other.ply"
    write_mesh(other, np.eye(3, dtype=np.float32), np.array([[0, 1, 2]]))
    for arguments, message in (
        ((head, "--out", out, "--face-width", "1.5"), "face-width is 1.5; its strength must lie between -1 and 1"),
        ((head, "--out", out, "--face", "1"), "--face and --backend are for photos"),
        ((head, "--out", out, "--preview", tmp_path / "preview.gif"), "must end in .png, not 'preview.gif'"),
        ((other, "--out", out), "edits are made on the built-in head"),
        ((head, "--out", other), "other.ply is there already; choose another name or pass --overwrite"),
        ((tmp_path / "absent.ply", "--out", out), "There is no file"),
    ):
        result = run("edit", *arguments)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
    assert list(tmp_path.iterdir()) == [other]
    assert run("edit", head, "--out", other, "--overwrite").exit_code == 0
    assert np.array_equal(read_mesh(other)[0], read_mesh(head)[0])


def test_the_sheet_of_edits_shows_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sheet_of_edits.py", str(tmp_path / "edits.png"), "--height", "40"])
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "sheet_of_edits.py"), run_name="__main__")
    with Image.open(tmp_path / "edits.png") as sheet:
        pixels = np.asarray(sheet)
    rows = pixels.reshape(4, -1, pixels.shape[1])
    assert len({row.tobytes() for row in rows}) == 4


def test_help_names_every_edit() -> None:
    shown = run("edit", "--help").stdout
    assert all(f"--{edit.name}" in shown for edit in EDITS)
    assert "--overwrite" in run("face", "inspect", "--help").stdout
    for words in (("face", "inspect"), ("generate",)):
        assert "deca_model.tar" in run(*words, "--help").stdout
