"""What belongs together stays together, and the reference never comes from the clip.

Every person has a red and a blue photo, and men have less green than women: so a picture tells which photo it was made
from, and of whom.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fantasyid.data.precompute import ClipPool, render_pool
from fantasyid.data.repose.prepare import _save
from fantasyid.data.repose.rig import HeadLayers
from tests.unit.data.conftest import _photo
from tests.unit.data.sentences import sex_of

CLIPS, SEED = 2, 15
RED, BLUE = (1.0, 0.7, 0.45), (0.5, 0.7, 1.0)
GREEN = {"female": 1.0, "male": 0.3}


def _tinted(layers: HeadLayers, place: int, number: int, other: int, tint: tuple[float, float, float]) -> Any:
    photo: dict[str, Any] = _photo(layers.head, place)
    colour = np.array(tint) * [1, GREEN[photo["row"]["sex"]], 1]
    photo["image"] = (photo["image"] * colour).round().astype(np.uint8)
    return {**photo, "other": other, "row": {**photo["row"], "id": f"tinted{number}"}}


@pytest.fixture(scope="module")
def folder(layers: HeadLayers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered pool of two women and two men."""
    folder = tmp_path_factory.mktemp("tinted")
    places = (0, 2, 3, 4)
    photos = [
        _tinted(layers, place, 2 * person + side, 2 * person + 1 - side, tint)
        for person, place in enumerate(places)
        for side, tint in enumerate((RED, BLUE))
    ]
    _save(folder / "rigs.npz", photos, layers.head)
    render_pool(folder / "rigs.npz", folder / "pool", clips=CLIPS, device="cpu", seed=SEED, frames=2)
    return folder / "pool"


@pytest.fixture(scope="module")
def pool(folder: Path) -> ClipPool:
    return ClipPool.open(folder)


def face_colours(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean red, green and blue (N, 3) of the middle of pictures (N, 3, H, W), where the face is."""
    height, width = pictures.shape[-2:]
    rows, columns = (slice(round(0.4 * side), round(0.65 * side)) for side in (height, width))
    return pictures[..., rows, columns].astype(float).mean((-2, -1))


def is_blue(pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
    red, _, blue = face_colours(pictures).T
    return np.asarray(blue > red)


def is_woman(pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
    red, green, blue = face_colours(pictures).T
    return np.asarray(green > 0.45 * np.maximum(red, blue))


def test_the_reference_and_its_face_come_from_another_photo_where_there_is_one(pool: ClipPool) -> None:
    clip, reference = is_blue(pool.clips[:, 0]), is_blue(pool.reference)
    assert (clip != reference).all(), "6 in 10 references are the person's other photo; another SEED may draw two"
    assert (is_blue(pool.face) == reference).all()
    for frame in range(pool.clips.shape[1]):
        assert (is_blue(pool.clips[:, frame]) == clip).all()
    assert (is_blue(pool.frame_face) == clip).all()


def test_the_reference_is_no_frame_of_the_clip(pool: ClipPool) -> None:
    """Not even where it was made from the same photo: it has another pose, light, frame or background."""
    for clip, reference in zip(pool.clips.astype(int), pool.reference.astype(int), strict=True):
        assert np.abs(clip - reference).mean((1, 2, 3)).min() > 3


def test_clip_reference_caption_and_shape_of_a_row_are_of_one_person(pool: ClipPool) -> None:
    """The first shape coefficient is 0.8 of women and -0.8 of men, mixed or not."""
    woman = is_woman(pool.clips[:, 0])
    assert set(woman) == {True, False}, "both are needed to tell rows apart; another SEED may draw both"
    assert (is_woman(pool.reference) == woman).all()
    assert (is_woman(pool.face) == woman).all()
    assert (is_woman(pool.neutral_face) == woman).all()
    assert [sex_of(caption) == 1 for caption in pool.captions] == woman.tolist()
    assert (np.sign(pool.identity[:, 0].astype(float)) == np.where(woman, 1, -1)).all()
