"""Finding the mark where a video was cut, mirrored, turned or shown within something else."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut, chelsea, coffee

from fantasyid.core.mark_search import MIN_KEPT, THRESHOLDS, cropped_score, part_score, search_mark
from fantasyid.core.provenance import add_mark, mean_luma

CROPPED, PART = THRESHOLDS["cropped or turned"], THRESHOLDS["part of the picture"]


@pytest.fixture(scope="module", params=[(128, 128), (240, 360)], ids=["square", "wide"])
def plain(request: pytest.FixtureRequest) -> np.ndarray:
    """17 frames: the camera passes over a face."""
    height, width = request.param
    picture = cv2.resize(astronaut()[:300, 70:470], (width + 34, height + 8), interpolation=cv2.INTER_AREA)
    return np.stack([picture[4 : 4 + height, 2 * step : 2 * step + width] for step in range(17)])


@pytest.fixture(scope="module")
def marked(plain: np.ndarray) -> np.ndarray:
    return add_mark(plain)


def cut(frames: np.ndarray, top: float, bottom: float, left: float, right: float) -> np.ndarray:
    height, width = frames.shape[1:3]
    rows = slice(round(top * height), round((1 - bottom) * height))
    return frames[:, rows, round(left * width) : round((1 - right) * width)]


@pytest.mark.parametrize(
    "edges", [(0.05, 0, 0, 0.05), (0.1, 0.05, 0.05, 0.1), (0.0, 0.25, 0.25, 0.0), (0.15, 0.15, 0.1, 0.1)]
)
def test_crops_are_found(marked: np.ndarray, edges: tuple[float, ...]) -> None:
    finding = search_mark(cut(marked, *edges))
    assert finding.found
    assert finding.place == "cropped or turned"
    assert finding.score > CROPPED + 1


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_mirror_images_and_quarter_turns_are_found(marked: np.ndarray, turns: int, mirrored: bool) -> None:
    frames = np.rot90(marked[:, :, ::-1] if mirrored else marked, turns, axes=(1, 2))
    assert cropped_score(mean_luma(frames)) > CROPPED + 3


def test_more_than_is_searched_for_is_not_found(marked: np.ndarray) -> None:
    share = (1 - MIN_KEPT) / 2 + 0.1
    assert not search_mark(cut(marked, share, share, share, share)).found


@pytest.mark.parametrize("width", [128, 192])
def test_a_frame_on_a_screenshot_is_found(width: int) -> None:
    frame = add_mark(cv2.resize(chelsea(), (width, 128), interpolation=cv2.INTER_AREA)[None])[0]
    frame = cv2.resize(frame, (200 * width // 128, 200))
    screen = cv2.resize(coffee(), (450, 280))
    assert part_score(mean_luma(screen[None])) < PART
    screen[60:260, 110 : 110 + frame.shape[1]] = frame
    finding = search_mark(screen[None])
    assert finding.place == "part of the picture"
    assert finding.found


def test_unmarked_videos_are_not_accused(plain: np.ndarray) -> None:
    finding = search_mark(plain)
    assert not finding.found
    assert finding.score < finding.threshold - 0.5


def test_flat_and_tiny_pictures_have_no_mark() -> None:
    assert search_mark(np.full((1, 200, 300, 3), 127, np.uint8)).score == 0
    assert not search_mark(np.random.default_rng(0).integers(0, 256, (1, 5, 3, 3), np.uint8)).found
