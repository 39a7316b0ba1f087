import subprocess
import sys

import cv2
import numpy as np
import pytest
from skimage.data import astronaut, chelsea

from fantasyid.face.detect import DlibFaceDetector
from tests.unit.face.faces import PORTRAIT_BOX, portrait, resized


@pytest.fixture(scope="module")
def detector() -> DlibFaceDetector:
    return DlibFaceDetector()


def test_box_is_in_pixels_of_the_photo(detector: DlibFaceDetector) -> None:
    (face,) = detector.detect(portrait())
    assert face.box == pytest.approx(PORTRAIT_BOX, abs=8)
    assert face.area == pytest.approx(90 * 90, rel=0.15)
    assert face.score > 0.5


@pytest.mark.parametrize("side", [150, 600, 1800])
def test_boxes_scale_with_the_photo(detector: DlibFaceDetector, side: int) -> None:
    (face,) = detector.detect(resized(portrait(), side))
    assert np.array(face.box) * 300 / side == pytest.approx(PORTRAIT_BOX, abs=14)


def test_photo_of_12_megapixels_is_searched_at_its_own_size(detector: DlibFaceDetector) -> None:
    photo = np.full((3000, 4000, 3), 120, np.uint8)
    photo[1000:1300, 2000:2300] = portrait()
    (face,) = detector.detect(photo)
    assert np.array(face.box) - [2000, 1000, 2000, 1000] == pytest.approx(PORTRAIT_BOX, abs=12)


def test_face_of_64_pixels_is_found(detector: DlibFaceDetector) -> None:
    # The box is about as wide as the face: 90 pixels at 300.
    assert len(detector.detect(resized(portrait(), 300 * 64 // 90))) == 1


def test_faces_come_largest_first(detector: DlibFaceDetector) -> None:
    small = np.full((300, 200, 3), 90, np.uint8)
    small[50:250] = resized(portrait(), 200)
    first, second = detector.detect(np.hstack([small, portrait()]))
    assert first.area > 1.5 * second.area
    assert first.box[0] > 200 > second.box[2]


def test_doubtful_face_does_not_stand_beside_a_sure_one(detector: DlibFaceDetector) -> None:
    # In the whole photo a patch of the suit scores 0.06, as large as the face.
    (face,) = detector.detect(astronaut())
    assert face.box[1] < 150


def test_no_face_is_an_empty_answer(detector: DlibFaceDetector) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert detector.detect(noise) == ()
    assert detector.detect(chelsea()) == ()
    assert detector.detect(np.zeros((1, 1, 3), np.uint8)) == ()
    assert detector.detect(np.zeros((3, 5000, 3), np.uint8)) == ()


def turned(photo: np.ndarray, tilt_deg: float) -> np.ndarray:
    """The photo turned counter-clockwise about its middle."""
    height, width = photo.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), tilt_deg, 1.0)
    return np.asarray(cv2.warpAffine(photo, turn, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


@pytest.mark.parametrize(("tilt_deg", "side"), [(52, 300), (-52, 300), (52, 1500)])
def test_tilted_face_is_found_where_it_is(detector: DlibFaceDetector, tilt_deg: float, side: int) -> None:
    (face,) = detector.detect(turned(resized(portrait(), side), tilt_deg))
    angle = np.radians(tilt_deg)
    box = np.array(PORTRAIT_BOX)
    x, y = (box[:2] + box[2:]) / 2 - 150
    # Counter-clockwise as seen, where y points down.
    middle = np.array([np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x]) + 150
    found = np.array(face.box) * 300 / side
    assert (found[:2] + found[2:]) / 2 == pytest.approx(middle, abs=10)
    assert found[2] - found[0] == pytest.approx(90, abs=15)
    assert face.score >= 0.5


@pytest.mark.parametrize(("quarters", "tilt_deg"), [(1, 90), (2, 180), (3, -90)])
def test_face_in_a_photo_that_lies_on_its_side_is_found(
    detector: DlibFaceDetector, quarters: int, tilt_deg: float
) -> None:
    wide = np.hstack([portrait(), np.full((300, 100, 3), 90, np.uint8)])
    (face,) = detector.detect(np.ascontiguousarray(np.rot90(wide, quarters)))
    x0, y0, x1, y1 = PORTRAIT_BOX
    expected = {1: (y0, 400 - x1, y1, 400 - x0), 2: (400 - x1, 300 - y1, 400 - x0, 300 - y0)}
    expected[3] = (300 - y1, x0, 300 - y0, x1)
    assert face.box == pytest.approx(expected[quarters], abs=12)
    assert face.tilt_deg == tilt_deg


def test_doubtful_face_gives_way_to_a_sure_one_in_the_turned_photo(detector: DlibFaceDetector) -> None:
    suit = np.ascontiguousarray(astronaut()[180:480, 80:380])
    assert [0 < face.score < 0.2 for face in detector.detect(suit)] == [True]
    (face,) = detector.detect(np.hstack([suit, portrait()[::-1, ::-1]]))
    assert face.tilt_deg == 180
    assert face.box[0] > 300


def test_face_in_the_dark_is_found(detector: DlibFaceDetector) -> None:
    (face,) = detector.detect((portrait() * 0.07).astype(np.uint8))
    assert face.box == pytest.approx(PORTRAIT_BOX, abs=12)


def test_photo_is_not_modified(detector: DlibFaceDetector) -> None:
    photo = portrait()
    photo.setflags(write=False)
    assert detector.detect(photo) == detector.detect(photo)


@pytest.mark.parametrize("shape", [(8, 30_000, 3), (30_000, 3, 3)])
def test_strips_are_not_blown_up_to_turn_them(detector: DlibFaceDetector, shape: tuple[int, int, int]) -> None:
    """Turned by 20 degrees, 30000x8 fill 28000x10000; a subprocess, because memory once used is counted for good."""
    script = (
        "import resource, sys, numpy as np\n"
        "from fantasyid.face.detect import DlibFaceDetector\n"
        "detector = DlibFaceDetector()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"assert detector.detect(np.random.default_rng(0).integers(0, 256, {shape}, np.uint8)) == ()\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400
