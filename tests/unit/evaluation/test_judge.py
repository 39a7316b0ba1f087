"""Judging a folder: two people, one shown perfectly and one not at all."""

import hashlib
import json
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

FACE = cv2.resize(astronaut()[20:220, 130:330], (128, 128), interpolation=cv2.INTER_AREA)
NOISE = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
PEOPLE = (Person("p1", "p1.png", "A woman", "female"), Person("p2", "p2.png", "A woman", "female"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos, frames of the full mode, and a face reader."""
    for person, photo in zip(PEOPLE, (FACE, FACE[:, ::-1]), strict=True):
        Image.fromarray(photo).save(tmp_path / person.photo)
    for row in evaluation_rows(PEOPLE, (FULL,)):
        frame = FACE if row.person.name == "p1" else NOISE
        save_frames(tmp_path / "frames" / row.file, np.stack([frame, frame]), 8.0)
    torch.manual_seed(0)
    network = FaceReaderModel(channels=(8, 8, 8, 8), landmark_width=8, head_channels=8, head_width=8)
    save_packed(
        network.state_dict(),
        tmp_path / "model",
        "face_reader_model",
        "float16",
        model_class="FaceReaderModel",
        config=network.config,
        exact={"mean_landmarks"},
    )
    return tmp_path


def judge(folder: Path) -> EvaluationReport:
    return judge_folder(PEOPLE, folder, folder / "frames", folder / "out", folder / "model")


def test_report_and_resuming(folder: Path) -> None:
    report = judge(folder)
    values = {line.name: line.value for line in report.lines}
    assert (report.num_people, report.num_videos, report.num_frames, report.frames_without_face) == (2, 16, 32, 16)
    assert values["full: face found"] == 0.5
    assert values["full: verified"] == 0.5
    assert values["full: FM, face widths per frame"] == pytest.approx(0, abs=1e-6)
    assert EvaluationReport.model_validate_json((folder / "out" / "report.json").read_text()) == report
    assert "| full: verified | 0.500 |" in (folder / "out" / "report.md").read_text()

    kept = folder / "out" / "judged" / "full" / "p1_nod.json"
    first = VideoJudgement.model_validate_json(kept.read_text())
    assert first.shuffled_person == "p2"
    assert first.identity.median_distance == pytest.approx(0, abs=1e-6), "her own photo"
    assert first.shuffled.median_distance is not None
    assert first.shuffled.median_distance > 0.05, "the other's photo"
    assert first.frames_sha256 == hashlib.sha256((folder / "frames/full/p1_nod.npz").read_bytes()).hexdigest()

    marked = first.model_copy(update={"face_motion": 7.0})
    kept.write_text(marked.model_dump_json())
    assert {line.name: line.value for line in judge(folder).lines}["full: FM, face widths per frame"] == pytest.approx(
        7 / 5
    ), "what was judged before is not judged again"

    save_frames(folder / "frames" / "full" / "p1_nod.npz", np.stack([NOISE, NOISE, NOISE]), 8.0)
    assert judge(folder).frames_without_face == 19, "a video made anew is judged anew"


def test_judgements_of_another_version_are_refused_in_one_sentence(folder: Path) -> None:
    judge(folder)
    kept = folder / "out" / "judged" / "full" / "p1_nod.json"
    content = json.loads(kept.read_text())
    others = {
        json.dumps({name: value for name, value in content.items() if name != "made_by"}): "by an earlier version, not",
        json.dumps(content | {"made_by": "arcface"}): "by arcface, not by dlib-resnet",
        json.dumps(content | {"identity": {}}): "is damaged and holds no judgement",
        kept.read_text()[:40]: "is damaged and holds no judgement",
    }
    for text, message in others.items():
        kept.write_text(text)
        with pytest.raises(InvalidRequestError, match=rf"p1_nod\.json .*{message}.*; remove .*judged to judge again"):
            judge(folder)


def test_missing_videos_are_not_left_out_silently(folder: Path) -> None:
    (folder / "frames" / "full" / "p2_talk.npz").unlink()
    with pytest.raises(InvalidRequestError, match="1 of 16 videos are missing"):
        judge(folder)
    with pytest.raises(InvalidRequestError, match="none of the folders full"):
        judge_folder(PEOPLE, folder, folder, folder / "out", folder / "model")
