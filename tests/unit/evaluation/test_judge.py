"""Judging a folder: two people, one shown perfectly and one not at all."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from fantasyid.core.checkpoint import save_packed
from fantasyid.core.errors import InvalidRequestError
from fantasyid.evaluation.judge import judge_folder
from fantasyid.evaluation.protocol import FULL, Person, evaluation_rows, save_frames
from fantasyid.evaluation.report import EvaluationReport, VideoJudgement
from fantasyid.models.face_reader import FaceReaderModel
from tests.tiny import tiny_face_vision

FACE = cv2.resize(astronaut()[20:220, 130:330], (128, 128), interpolation=cv2.INTER_AREA)
NOISE = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
PEOPLE = (Person("p1", "p1.png", "A woman", "female"), Person("p2", "p2.png", "A woman", "female"))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, frames of the full mode, a face reader, and what the judge said."""
    tmp_path = tmp_path_factory.mktemp("judged")
    for person, photo in zip(PEOPLE, (FACE, FACE[:, ::-1]), strict=True):
        Image.fromarray(photo).save(tmp_path / person.photo)
    for row in evaluation_rows(PEOPLE, (FULL,)):
        frame = FACE if row.person.name == "p1" else NOISE
        save_frames(tmp_path / "frames" / row.file, np.stack([frame, frame]), 8.0)
    torch.manual_seed(0)
    reader = FaceReaderModel(channels=(8, 8, 8, 8), landmark_width=8, head_channels=8, head_width=8)
    for name, network in (("face_reader_model", reader), ("face_vision", tiny_face_vision(image_size=96))):
        save_packed(
            network.state_dict(),
            tmp_path / "model",
            name,
            "float16",
            model_class=type(network).__name__,
            config=network.config,
            exact={"mean_landmarks"},
        )
    judge(tmp_path)
    return tmp_path


@pytest.fixture
def folder(judged: Path, tmp_path: Path) -> Path:
    """The same, to change something in it."""
    return shutil.copytree(judged, tmp_path / "judged")


def judge(folder: Path) -> EvaluationReport:
    return judge_folder(PEOPLE, folder, folder / "frames", folder / "out", folder / "model")


def test_report(folder: Path) -> None:
    report = judge(folder)
    values = {line.name: line.value for line in report.lines}
    assert (report.num_people, report.num_videos, report.num_frames, report.frames_without_face) == (2, 16, 32, 16)
    assert values["full: face found"] == 0.5
    assert values["full: verified"] == 0.5
    assert values["full: FM, face widths per frame"] == pytest.approx(0, abs=1e-6)
    assert EvaluationReport.model_validate_json((folder / "out" / "report.json").read_text()) == report
    assert "| full: verified | 0.500 |" in (folder / "out" / "report.md").read_text()


def kept(folder: Path) -> Path:
    return folder / "out" / "judged" / "full" / "p1_nod.json"


def motion(report: EvaluationReport) -> float | None:
    return next(line.value for line in report.lines if line.name == "full: FM, face widths per frame")


def test_each_video_is_judged_against_its_person_and_another(folder: Path) -> None:
    first = VideoJudgement.model_validate_json(kept(folder).read_text())
    assert first.shuffled_person == "p2"
    assert first.measured["median_distance"].value == pytest.approx((0, 0), abs=1e-6), "her own photo"
    assert first.measured["verification_rate"].value == 1
    other = VideoJudgement.model_validate_json((kept(folder).with_name("p2_nod.json")).read_text())
    assert first.shuffled["verification_rate"].made_of != other.measured["verification_rate"].made_of


def spoil(folder: Path) -> None:
    """Change what was kept as measured, to see it again where it is used again."""
    content = json.loads(kept(folder).read_text())
    content["measured"]["face_motion"]["value"] = 7.0
    kept(folder).write_text(json.dumps(content))


def test_what_was_judged_before_is_not_judged_again(folder: Path) -> None:
    spoil(folder)
    assert motion(judge(folder)) == pytest.approx(7 / 5)


def test_a_video_made_anew_is_judged_anew(folder: Path) -> None:
    spoil(folder)
    save_frames(folder / "frames" / "full" / "p1_nod.npz", np.stack([NOISE, NOISE, NOISE]), 8.0)
    report = judge(folder)
    assert report.frames_without_face == 19
    assert motion(report) == pytest.approx(0, abs=1e-6)


def test_what_is_no_judgement_is_made_anew(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = {"nod": '{"made_by": "dlib-resnet, judgement 2"}', "talk": kept(folder).read_text()[:40], "smile": ""}
    for prompt, text in texts.items():
        kept(folder).with_name(f"p1_{prompt}.json").write_text(text)
    before = EvaluationReport.model_validate_json((folder / "out" / "report.json").read_text())
    assert judge(folder) == before
    for prompt in texts:
        assert f"p1_{prompt}.json holds nothing that this version kept" in caplog.text


def test_missing_videos_are_not_left_out_silently(folder: Path) -> None:
    (folder / "frames" / "full" / "p2_talk.npz").unlink()
    with pytest.raises(InvalidRequestError, match="1 of 16 videos are missing"):
        judge(folder)
    with pytest.raises(InvalidRequestError, match="none of the folders full"):
        judge_folder(PEOPLE, folder, folder, folder / "out", folder / "model")
