"""The measures of the face reader on photos and renders whose answers are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.repose.prepare import _save
from fantasyid.evaluation.reader.measures import ShapeSignature, face_vertices, shape_distance
from fantasyid.evaluation.reader.renders import YAWS_DEG, KnownRenders, make_renders
from fantasyid.evaluation.reader.run import HeldOut, run_step
from fantasyid.evaluation.reader.steps import (
    MEASURES,
    ShapeReport,
    calibrate,
    measure_false_faces,
    measure_pairs,
    measure_renders,
)
from fantasyid.face.detect import DlibFaceDetector
from fantasyid.face.reader import FaceReader
from fantasyid.geometry.head_model import HeadModel
from tests.commands import refusal, run
from tests.unit.data.conftest import _photo
from tests.unit.face.faces import portrait

NOISE = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
SHIFTED = np.roll(portrait(), 6, axis=1)
MIRRORED = np.ascontiguousarray(portrait()[:, ::-1])
"""Another person, as far as shape can tell: the face is not symmetric and turned the other way."""
PHOTOS = {"a1": portrait(), "a2": SHIFTED, "b1": MIRRORED, "b2": NOISE, "c1": MIRRORED, "c2": portrait()}
SPLITS = {"a": "val", "b": "train", "c": "train"}


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return FaceReader(load_component(MINI_FOLDER, "face_reader_model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of three people: one of the split val, one listed, one neither."""
    folder = tmp_path_factory.mktemp("portraits")
    lines = ["id,person,file,sex,split,face_x0,face_y0,face_x1,face_y1"]
    for name, photo in PHOTOS.items():
        Image.fromarray(photo).save(folder / f"{name}.png")
        x0, x1 = (300 - 187, 300 - 97) if photo is MIRRORED else (97, 187)
        lines.append(f"{name},{name[0]},{name}.png,female,{SPLITS[name[0]]},{x0},77,{x1},180")
    (folder / "manifest.csv").write_text("\n".join(lines))
    (folder / "people.txt").write_text("# held out too\nb\n")
    return folder


def plain_signature(head: HeadModel) -> ShapeSignature:
    return ShapeSignature(np.zeros(len(head.identity_basis)), np.eye(len(head.identity_basis)))


def values(report: ShapeReport) -> dict[str, float | None]:
    return {line.name: line.value for line in report.lines}


def test_people_held_out_and_others(folder: Path) -> None:
    held_out, others = HeldOut(folder, folder / "people.txt").read()
    assert [portrait.id for portrait in held_out] == ["a1", "a2", "b1", "b2"]
    assert [portrait.id for portrait in others] == ["c1", "c2"]
    first, _ = HeldOut(folder, folder / "people.txt", first=1).read()
    assert [portrait.id for portrait in first] == ["a1", "a2"]


def test_one_person_is_nearer_than_two(folder: Path, reader: FaceReader, head: HeadModel) -> None:
    held_out, _ = HeldOut(folder, folder / "people.txt").read()
    report = measure_pairs(held_out, folder, reader, head, plain_signature(head))
    assert report.sample == "3 of 4 photos, 2 people, 1 of them with two photos"
    measured = values(report)
    # A shift of the picture hardly moves a head; another face does.
    for name in ("coefficients", "signature", "distance in cm"):
        assert measured[f"AUC, {name}"] == 1.0
        assert measured[f"rank 1, {name}"] == 1.0
    assert [line.name for line in report.lines if line.bar == 0.94] == ["AUC, coefficients"]
    one, two = measured["distance of one person, cm, median"], measured["distance of two people, cm, median"]
    assert one is not None
    assert two is not None
    assert one < two / 2


def test_signature_comes_from_the_photos_that_can_be_read(folder: Path, reader: FaceReader, head: HeadModel) -> None:
    held_out, others = HeldOut(folder, folder / "people.txt").read()
    signature = calibrate(others, folder, reader, head)
    assert np.isfinite(signature.whitening).all()
    with pytest.raises(InvalidRequestError, match="No face was read in 1 photos"):
        calibrate(held_out[3:], folder, reader, head)


def test_known_renders(reader: FaceReader, head: HeadModel) -> None:
    """Two people, whose truth is what the reader says, off by known amounts."""
    photos = [portrait(), portrait(), SHIFTED, SHIFTED, MIRRORED, MIRRORED]
    frames = np.stack([*photos, NOISE])
    readings = [reader.read(photo).head for photo in (portrait(), SHIFTED, MIRRORED)]
    angles = np.repeat([(r.pose.yaw_deg, r.pose.pitch_deg, r.pose.roll_deg) for r in readings], 2, 0)
    offset = np.array([[3.0, -5.0, 1.0]])
    truth = torch.stack([readings[0].vertices, readings[2].vertices])
    renders = KnownRenders(
        frames=frames,
        person=np.array([0, 0, 0, 0, 1, 1, 1]),
        expression=np.array(["open", "none", "open", "none", "open", "none", "own"]),
        plain=np.array([False, True, True, True, False, True, False]),
        angles_deg=np.concatenate([angles + offset, [[0, 0, 0]]]).astype(np.float32),
        vertices=(truth + torch.tensor([0.0, 0.03, 0.04])).numpy(),
        names=np.array(["p", "q"]),
        head=np.array("unused"),
    )
    report = measure_renders(renders, reader, head, plain_signature(head))
    measured = values(report)
    assert measured["renders read"] == pytest.approx(6 / 7)
    assert list(report.remarks) == ["q, own, yaw 0"]
    assert measured["vertex error, cm"] == pytest.approx(0.05, abs=1e-5)
    for name, error in (("yaw", 3), ("pitch", 5), ("roll", 1)):
        assert measured[f"{name} error, degrees, median"] == pytest.approx(error, abs=1e-4)
    met = {line.name.split()[0]: line.met for line in report.lines if line.name.endswith("degrees, median")}
    assert met == {"yaw": True, "pitch": False, "roll": True}
    # Of one person's three plain renders two are the same picture, once called open and once closed.
    region = face_vertices(head)
    straight, shifted, mirrored = (reading.vertices[region][None] for reading in readings)
    share = float(shape_distance(straight, shifted) / shape_distance(shifted, mirrored))
    assert share > 1e-3
    assert measured["movement / distance of people"] == pytest.approx(share, rel=1e-3)
    assert measured["the same, by the mouth alone"] == pytest.approx(share / 2, rel=1e-3)
    assert measured["the same, by yaw alone"] is None


def test_false_faces_are_counted_and_named(reader: FaceReader) -> None:
    pictures = [("noise", NOISE), ("not so faceless", np.hstack([portrait(), MIRRORED]))]
    report = measure_false_faces(pictures, DlibFaceDetector(), reader)
    assert values(report) == {"false faces": 2, "pictures read as a face": 1}
    assert list(report.remarks) == ["not so faceless"]
    assert report.sample == "2 pictures without people"


def nose_from_middle(frame: np.ndarray) -> float:
    """How many pixels the blue nose tip is to the right of the middle of the head at its height."""
    blue = (frame[..., 2].astype(int) > 110) & (frame[..., :2] < 60).all(axis=-1)
    rows, columns = np.nonzero(blue)
    row = frame[round(rows.mean())].astype(int)
    (head,) = np.nonzero(np.abs(row - row[0]).max(axis=-1) > 20)
    return float(columns.mean() - (head[0] + head[-1]) / 2)


def test_renders_show_the_known_pose(tmp_path: Path, head: HeadModel) -> None:
    """A photo drawn from the head model, turned by 8 degrees, with a blue nose tip to follow."""
    _save(tmp_path / "rigs.npz", [_photo(head, 1)], head)
    made = make_renders([tmp_path / "rigs.npz"], ["missing", "drawn1"])
    made.save(tmp_path / "renders.npz")
    renders = KnownRenders.load(tmp_path / "renders.npz", head)
    assert renders.names.tolist() == ["drawn1"]
    assert renders.person.tolist() == [0] * 10
    assert renders.plain.tolist() == [False] * 6 + [True] * 4
    assert renders.angles_deg[:6, 0].tolist() == list(YAWS_DEG)
    assert sorted(renders.expression[:6]) == ["frown", "none", "open", "own", "pucker", "smile"]
    identity = torch.zeros(1, len(head.identity_basis))
    identity[0, :2] = torch.tensor([0.8, -0.6])
    own = head.shape(identity, torch.zeros(1, len(head.expression_names)))[0]
    np.testing.assert_allclose(renders.vertices[0], own.numpy(), atol=1e-4)
    left, _, right, _ = (nose_from_middle(frame) for frame in renders.frames[6:])
    assert right > 10, "the nose moves to the right of the picture as yaw grows"
    assert left == pytest.approx(-right, abs=10), "the photo's own turn does not count"
    with pytest.raises(InvalidRequestError, match="None of the 1 people has a rig"):
        make_renders([tmp_path / "rigs.npz"], ["missing"])
    with pytest.raises(InvalidRequestError, match="made with another head model"):
        KnownRenders.load(tmp_path / "renders.npz", replace(head, mean=head.mean + 0.1))
    with pytest.raises(InvalidRequestError, match="does not hold renders"):
        KnownRenders.load(tmp_path / "rigs.npz", head)


def test_commands(folder: Path, tmp_path: Path) -> None:
    people = ["--portraits", folder, "--leave-out", folder / "people.txt"]
    assert run("evaluate", "reader", "found", "--out", tmp_path, *people).exit_code == 0
    report = ShapeReport.model_validate_json((tmp_path / "found.json").read_bytes())
    assert values(report) == {"found and read": 0.75}
    assert list(report.remarks) == ["b2"]
    assert report.remarks["b2"].startswith("NoFaceError: ")
    printed = run("evaluate", "reader", "report", "--out", tmp_path)
    assert printed.exit_code == 1
    assert printed.output.count("not run") == len(MEASURES) - 1
    assert "0.750" in printed.output
    assert "run the step calibrate first" in refusal("evaluate", "reader", "pairs", "--out", tmp_path, *people)


def test_a_face_beside_the_persons_own_is_a_miss(folder: Path, tmp_path: Path) -> None:
    text = (
        (folder / "manifest.csv").read_text().replace("a1.png,female,val,97,77,187,180", "a1.png,female,val,0,0,50,50")
    )
    for picture in folder.glob("*.png"):
        (tmp_path / picture.name).symlink_to(picture)
    (tmp_path / "manifest.csv").write_text(text)
    assert not run_step("found", tmp_path, HeldOut(tmp_path, folder / "people.txt", first=1))
    report = ShapeReport.model_validate_json((tmp_path / "found.json").read_bytes())
    assert report.remarks == {"a1": "What was read is not the person's face."}
