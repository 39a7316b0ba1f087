"""The judge on videos whose answer is known."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut
from typer.testing import CliRunner

from fantasyid.cli.evaluate import evaluate_app
from fantasyid.core.errors import (
    FaceChoiceError,
    InvalidRequestError,
    MissingWeightsError,
    NoFaceError,
    UnreadableVideoError,
)
from fantasyid.core.provenance import add_mark
from fantasyid.core.video import read_video, write_video
from fantasyid.evaluation.identity import Judge
from tests.unit.evaluation.seen_videos import score
from tests.unit.face.onnx_models import save_arcface, save_scrfd

PHOTO = astronaut()
SMALL = cv2.resize(PHOTO[20:220, 130:330], (128, 128), interpolation=cv2.INTER_AREA)
"""A 128 px frame with a face of about 70 px, as mini makes them."""
NOISE = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), np.uint8)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.builtin()


@pytest.fixture(scope="module")
def reference(judge: Judge) -> np.ndarray:
    return judge.embed_reference(PHOTO)


def test_video_of_the_photo_itself(judge: Judge, reference: np.ndarray) -> None:
    scores = score(judge, reference, judge.track(np.stack([SMALL] * 3)))
    assert (scores["detection_rate"], scores["verification_rate"]) == (1.0, 1.0)
    assert scores["median_distance"] < 0.3
    assert scores["reference_similarity"] > 0.85
    assert scores["inter_frame_similarity"] == pytest.approx(1.0)


def test_video_of_noise(judge: Judge, reference: np.ndarray) -> None:
    scores = score(judge, reference, judge.track(NOISE))
    assert (scores["detection_rate"], scores["verification_rate"]) == (0.0, 0.0)
    assert scores["median_distance"] is scores["reference_similarity"] is scores["inter_frame_similarity"] is None
    assert scores["distances"] == (None,) * 4


def test_frames_without_a_face_count_as_not_verified(judge: Judge, reference: np.ndarray) -> None:
    frames = np.stack([SMALL, NOISE[0], SMALL, SMALL, NOISE[1]])
    scores = score(judge, reference, judge.track(frames))
    assert (scores["detection_rate"], scores["verification_rate"]) == (0.6, 0.6)
    assert [distance is None for distance in scores["distances"]] == [False, True, False, False, True]
    assert scores["inter_frame_similarity"] == pytest.approx(1.0), "only the third and fourth frame are a pair of faces"


def test_another_person_is_not_verified(judge: Judge, reference: np.ndarray) -> None:
    """A stranger: an embedding as far from the centre as the reference, in an unrelated direction."""
    direction = np.random.default_rng(1).standard_normal(128).astype(np.float32)
    length = np.linalg.norm(reference - judge.centre)
    stranger = judge.centre + length * direction / np.linalg.norm(direction)
    scores = score(judge, stranger, judge.track(SMALL[None]))
    assert scores["verification_rate"] == 0
    assert abs(scores["reference_similarity"]) < 0.3
    assert scores["inter_frame_similarity"] is None, "one frame has no neighbour"


def test_largest_face_counts(judge: Judge, reference: np.ndarray) -> None:
    """A second, smaller face beside the first, which here is another's because it is squeezed."""
    group = np.zeros((256, 400, 3), np.uint8)
    group[:, :256] = cv2.resize(SMALL, (256, 256))
    group[64:192, 264:392] = SMALL[:, ::-1]
    (face,) = judge.track(group[None]).faces
    assert face is not None
    assert face.box[2] < 256
    assert len(judge.detector.detect(group)) == 2


@pytest.mark.parametrize("quarters", range(4))
def test_reference_that_lies_on_its_side(judge: Judge, reference: np.ndarray, quarters: int) -> None:
    turned = judge.embed_reference(np.ascontiguousarray(np.rot90(PHOTO[:300, 80:380], quarters)))
    assert judge.recognizer.distance(turned, reference) < 0.3
    assert score(judge, turned, judge.track(SMALL[None]))["verification_rate"] == 1


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_video_that_lies_on_its_side(judge: Judge, reference: np.ndarray, quarters: int) -> None:
    larger = cv2.resize(PHOTO[:300, 80:380], (256, 256), interpolation=cv2.INTER_AREA)
    track = judge.track(np.ascontiguousarray(np.rot90(larger, quarters))[None])
    assert score(judge, reference, track)["verification_rate"] == 1


def test_another_face_of_the_reference_can_be_chosen(judge: Judge, reference: np.ndarray) -> None:
    group = np.zeros((300, 540, 3), np.uint8)
    group[:, :300] = PHOTO[:300, 80:380]
    group[:240, 300:] = cv2.resize(PHOTO[:300, 80:380], (240, 240))
    first, second = (judge.embed_reference(group, index) for index in (0, 1))
    assert np.array_equal(first, judge.embed_reference(group))
    assert not np.array_equal(first, second)
    with pytest.raises(FaceChoiceError, match=r"no face 2 .* there are 2 faces: choose 0 to 1"):
        judge.embed_reference(group, 2)


def test_photo_without_a_face(judge: Judge) -> None:
    with pytest.raises(NoFaceError):
        judge.embed_reference(NOISE[0])


def test_the_provenance_mark_does_not_change_who_it_is(judge: Judge, reference: np.ndarray) -> None:
    frames = np.stack([SMALL])
    plain, marked = (score(judge, reference, judge.track(video)) for video in (frames, add_mark(frames)))
    assert marked["median_distance"] == pytest.approx(plain["median_distance"], abs=0.05)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The astronaut, and a video of which two frames of four show her."""
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    write_video(tmp_path / "video.mp4", add_mark(np.stack([SMALL, SMALL, NOISE[0], NOISE[1]])), 8)
    return tmp_path / "photo.png", tmp_path / "video.mp4"


def test_command_prints_one_json_object(files: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(
        evaluate_app, ["identity", "--reference", str(files[0]), "--video", str(files[1]), "--json"]
    )
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert (content["detection_rate"], content["verification_rate"], content["num_frames"]) == (0.5, 0.5, 4)
    assert content["inter_frame_similarity"] > 0.9
    assert content["face_motion"] >= 0
    assert content["fps"] == 8


def test_command_prints_a_table(files: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(evaluate_app, ["identity", "--reference", str(files[0]), "--video", str(files[1])])
    assert result.exit_code == 0, result.output
    for word in ("face found", "0.500", "2 of 4 frames", "verified", "RS", "IFS", "FM"):
        assert word in result.stdout


def test_command_takes_the_face_and_the_judge_asked_for(files: tuple[Path, Path], tmp_path: Path) -> None:
    command = ["identity", "--reference", str(files[0]), "--video", str(files[1])]
    assert isinstance(CliRunner().invoke(evaluate_app, [*command, "--face", "1"]).exception, FaceChoiceError)
    arcface = [*command, "--recognizer", "arcface", "--arcface-folder", str(tmp_path)]
    missing = CliRunner().invoke(evaluate_app, arcface).exception
    assert isinstance(missing, MissingWeightsError)
    assert "scrfd_10g_bnkps.onnx with glintr100.onnx or det_10g.onnx with w600k_r50.onnx" in str(missing)
    useless = CliRunner().invoke(evaluate_app, [*command, "--arcface-folder", str(tmp_path)]).exception
    assert isinstance(useless, InvalidRequestError)


def test_arcface_judges_when_its_models_are_there(tmp_path: Path) -> None:
    """With models of the same form that take what is red for a face and embed its mean colours."""
    save_scrfd(tmp_path / "pack" / "pack" / "det_10g.onnx")
    save_arcface(tmp_path / "pack" / "pack" / "w600k_r50.onnx")
    frame = np.zeros((128, 128, 3), np.uint8)
    frame[32:96, 32:96] = (255, 0, 0)
    Image.fromarray(frame).save(tmp_path / "photo.png")
    write_video(tmp_path / "video.mp4", np.stack([frame, frame, frame * 0]), 8)
    command = ["identity", "--reference", str(tmp_path / "photo.png"), "--video", str(tmp_path / "video.mp4"), "--json"]
    arcface = ["--recognizer", "arcface", "--arcface-folder", str(tmp_path / "pack")]
    result = CliRunner().invoke(evaluate_app, [*command, *arcface])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["recognizer"] == "arcface"
    assert content["frames_without_face"] == 1
    assert content["reference_similarity"] == pytest.approx(1, abs=0.05)
    assert content["verification_rate"] == pytest.approx(2 / 3)

    result = CliRunner().invoke(evaluate_app, [*command, *arcface, "--protocol", "opens2v-compat"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["protocol"] == "opens2v-compat"
    assert content["facesim_arc"] == pytest.approx(1, abs=0.05), "theirs leaves the frame without a face out"
    assert content["motion_fb"] >= 0
    result = CliRunner().invoke(evaluate_app, [*command[:-1], *arcface, "--protocol", "consisid-compat"])
    assert result.stdout.startswith("consisid-compat (arcface w600k_r50): facesim_arc ")
    for options in (["--recognizer", "dlib"], [*arcface, "--face", "0"]):
        refused = CliRunner().invoke(evaluate_app, [*command, *options, "--protocol", "consisid-compat"]).exception
        assert isinstance(refused, InvalidRequestError)
        assert "takes ArcFace and the largest face" in str(refused)


def test_command_refuses_what_is_not_a_video(files: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(evaluate_app, ["identity", "--reference", str(files[0]), "--video", str(files[0])])
    assert isinstance(result.exception, UnreadableVideoError)
    assert result.stdout == ""


def test_command_finds_the_mark(files: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(evaluate_app, ["provenance", "--video", str(files[1]), "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert (content["marked"], content["place"], content["declared"]) == (True, "whole", False)
    write_video(files[1], np.stack([SMALL, SMALL]), 8, overwrite=True)
    result = CliRunner().invoke(evaluate_app, ["provenance", "--video", str(files[1])])
    assert result.stdout.startswith("No mark found")


def test_command_finds_the_mark_in_a_picture(files: tuple[Path, Path]) -> None:
    Image.fromarray(read_video(files[1])[0][1]).save(files[0])
    result = CliRunner().invoke(evaluate_app, ["provenance", "--video", str(files[0]), "--json"])
    assert json.loads(result.stdout)["marked"] is True
    files[0].write_bytes(b"neither")
    result = CliRunner().invoke(evaluate_app, ["provenance", "--video", str(files[0])])
    assert isinstance(result.exception, UnreadableVideoError)
    assert "not a picture" in str(result.exception)
