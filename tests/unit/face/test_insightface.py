from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from fantasyid.core.errors import CorruptWeightsError, InvalidRequestError, MissingBackendError, MissingWeightsError
from fantasyid.face.insightface import (
    ARCFACE_TEMPLATE,
    PACKS,
    ArcFaceRecognizer,
    InsightFaceDetector,
    arcface_crop,
    decode_scrfd,
    model_file,
)
from fantasyid.face.types import DetectedFace
from tests.unit.face.faces import portrait
from tests.unit.face.onnx_models import EDGES, POINTS, save_arcface, save_scrfd

RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> InsightFaceDetector:
    return InsightFaceDetector(save_scrfd(tmp_path_factory.mktemp("scrfd") / "tiny.onnx"))


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> ArcFaceRecognizer:
    return ArcFaceRecognizer(save_arcface(tmp_path_factory.mktemp("arcface") / "tiny.onnx"))


def black(height: int, width: int) -> NDArray[np.uint8]:
    return np.zeros((height, width, 3), np.uint8)


def test_a_red_cell_is_found_where_it_is_in_the_photo(detector: InsightFaceDetector) -> None:
    # Twice the size at which 640 pixels are searched, so a cell of stride 8 covers 16 pixels.
    photo = black(960, 1280)
    photo[64:80, 160:176] = RED
    (face,) = detector.detect(photo)
    left, top, right, bottom = EDGES
    expected = (160 - 16 * left, 64 - 16 * top, 160 + 16 * right, 64 + 16 * bottom)
    assert face.box == pytest.approx(expected, abs=0.01)
    assert face.points is not None
    expected_points = np.array(POINTS).reshape(5, 2) * 16 + np.array([160, 64])
    np.testing.assert_allclose(np.array(face.points), expected_points, atol=0.01)
    eyes = expected_points[1] - expected_points[0]
    assert face.tilt_deg == pytest.approx(np.degrees(np.arctan2(-eyes[1], eyes[0])), abs=0.1)
    # The second guess of the cell is the surer one, and the first, which overlaps it, is dropped.
    assert face.score == pytest.approx(1 / (1 + np.exp(-(60 * 127.5 / 128 - 54))), abs=1e-3)


def test_colours_are_red_green_blue(detector: InsightFaceDetector) -> None:
    photo = black(640, 640)
    photo[64:72, 160:168] = RED[::-1]
    assert detector.detect(photo) == ()


def test_faces_come_largest_first(detector: InsightFaceDetector) -> None:
    photo = black(640, 640)
    photo[64:72, 160:168] = RED
    photo[320:352, 320:352] = RED
    first, *rest = detector.detect(photo)
    assert first.area == pytest.approx(32 * 2 * 32 * 3)
    assert [face.area for face in rest] == sorted((face.area for face in rest), reverse=True)
    assert any(face.box[0] == pytest.approx(160 - 4) for face in rest)


def test_a_face_that_fills_the_photo_is_found_in_the_small_picture(detector: InsightFaceDetector) -> None:
    # At 640 pixels a cell of stride 32 is a twentieth of the photo; only at 128 pixels a cell is as large as this.
    photo = np.full((400, 400, 3), 0, np.uint8)
    photo[100:200, 100:200] = RED
    largest = detector.detect(photo)[0]
    assert largest.box == pytest.approx((50, 0, 250, 300), abs=0.5)


def test_five_level_models_with_one_guess_per_cell(tmp_path: Path) -> None:
    detector = InsightFaceDetector(save_scrfd(tmp_path / "five.onnx", strides=(8, 16, 32, 64, 128), anchors=1))
    photo = black(640, 640)
    photo[256:384, 384:512] = RED
    assert detector.detect(photo)[0].box == pytest.approx((384 - 64, 256 - 128, 384 + 192, 256 + 256))


def test_decoding_one_cell_by_hand() -> None:
    scores, edges, points = np.zeros((8, 1)), np.zeros((8, 4)), np.zeros((8, 10))
    # The second guess of the cell in row 1, column 0 of a 2 x 2 grid with two guesses per cell.
    scores[5], edges[5], points[5] = 0.75, (1, 2, 3, 4), np.arange(10)
    (row,) = decode_scrfd(scores, edges, points, grid=2, stride=16, anchors=2)
    assert row[:5].tolist() == [-16, 16 - 32, 48, 16 + 64, 0.75]
    assert row[5:].tolist() == [16 * i + (16 if i % 2 else 0) for i in range(10)]


def test_arcface_crop_brings_the_points_onto_the_template() -> None:
    angle, template = np.deg2rad(25), np.array(ARCFACE_TEMPLATE)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = 2.5 * template @ turn.T + (150, 40)
    photo = black(500, 500)
    for index, (x, y) in enumerate(points.round().astype(int)):
        photo[y - 6 : y + 7, x - 6 : x + 7] = 50 * (index + 1)
    crop = arcface_crop(photo, points)
    assert crop.shape == (112, 112, 3)
    at_template = [int(crop[round(y), round(x), 0]) for x, y in template]
    assert at_template == pytest.approx([50, 100, 150, 200, 250], abs=2)


def test_one_face_in_two_photos_is_nearer_than_another(recognizer: ArcFaceRecognizer) -> None:
    photo, points = portrait(), ((118.0, 108.0), (158.0, 104.0), (140.0, 130.0), (124.0, 148.0), (156.0, 145.0))
    moved = np.pad(photo, ((60, 0), (90, 0), (0, 0)))
    face = DetectedFace((97, 77, 187, 167), 0.9, points)
    there = DetectedFace((187, 137, 277, 227), 0.9, tuple((x + 90, y + 60) for x, y in points))
    here = recognizer.embed(photo, face)
    assert here.shape == (512,)
    assert np.linalg.norm(here) == pytest.approx(1, abs=1e-5)
    assert recognizer.distance(here, recognizer.embed(moved, there)) == pytest.approx(0, abs=1e-4)
    assert recognizer.distance(here, recognizer.embed(255 - photo, face)) > 1


def test_recogniser_wants_points(recognizer: ArcFaceRecognizer) -> None:
    with pytest.raises(InvalidRequestError, match="InsightFaceDetector"):
        recognizer.embed(portrait(), DetectedFace((97, 77, 187, 167), 1.0))


def test_packs_are_found_also_one_folder_too_deep(tmp_path: Path) -> None:
    save_scrfd(tmp_path / "antelopev2" / "antelopev2" / PACKS["antelopev2"].detector)
    save_arcface(tmp_path / "antelopev2" / "antelopev2" / PACKS["antelopev2"].recognizer)
    assert InsightFaceDetector("antelopev2", root=tmp_path).detect(black(64, 64)) == ()
    ArcFaceRecognizer("antelopev2", root=tmp_path)
    flat = save_scrfd(tmp_path / "buffalo_l" / PACKS["buffalo_l"].detector)
    assert model_file("buffalo_l", "detector", tmp_path) == flat


def test_missing_files_say_what_to_get_and_on_which_terms(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"glintr100\.onnx is missing.*361 MB.*non-commercial"):
        ArcFaceRecognizer("antelopev2", root=tmp_path)
    with pytest.raises(MissingWeightsError, match="antelopev2, buffalo_l"):
        InsightFaceDetector("antelope", root=tmp_path)
    with pytest.raises(MissingWeightsError, match=r"no file .*detector\.onnx"):
        InsightFaceDetector(tmp_path / "detector.onnx")


def test_damaged_and_wrong_models_are_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(save_arcface(tmp_path / "whole.onnx").read_bytes()[:5000])
    with pytest.raises(CorruptWeightsError, match=r"damaged\.onnx"):
        InsightFaceDetector(damaged)
    with pytest.raises(CorruptWeightsError, match="6 outputs"):
        InsightFaceDetector(save_scrfd(tmp_path / "boxes.onnx", with_points=False))


def test_providers_are_reported(detector: InsightFaceDetector, recognizer: ArcFaceRecognizer) -> None:
    assert detector.providers == recognizer.providers == ("CPUExecutionProvider",)


def test_cuda_is_refused_where_the_package_lacks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_scrfd(tmp_path / "tiny.onnx")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(MissingBackendError, match="install onnxruntime-gpu"):
        InsightFaceDetector(path, processor="cuda")


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA may really work")
def test_cuda_that_turns_out_not_to_work_is_no_reason_to_take_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a GPU build without CUDA's libraries does: it names the provider, then makes a session without it.
    path = save_scrfd(tmp_path / "tiny.onnx")
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    with pytest.raises(MissingBackendError, match="asked for CUDAExecutionProvider and took CPUExecutionProvider"):
        InsightFaceDetector(path, processor="cuda")
