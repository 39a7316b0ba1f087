"""What belongs together stays together, and the reference never comes from the clip.

Every person has a red and a blue photo, and men have less green than women: so a picture tells which photo it was made
from, and of whom.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fantasyid.conditioning.latents import encode_video, reference_latents
from fantasyid.conditioning.text import encode_text, load_text_encoder
from fantasyid.data.precompute import TEXT_LENGTH, ClipPool, LatentPool, encode_pool, render_pool
from fantasyid.data.repose.prepare import _save
from fantasyid.data.repose.rig import HeadLayers
from tests.tiny import tiny_face_vision
from tests.tiny_pipeline import tiny_vae
from tests.unit.data.conftest import _photo

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
    render_pool(folder / "rigs.npz", folder / "pool", clips=CLIPS, device="cpu", seed=SEED)
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
    assert (clip != reference).any(), "6 in 10 references are the person's other photo; another SEED may draw one"
    assert (is_blue(pool.face) == reference).all()
    for frame in range(pool.clips.shape[1]):
        assert (is_blue(pool.clips[:, frame]) == clip).all()
    assert (is_blue(pool.still) == clip).all()
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
    assert [caption.startswith("A woman") for caption in pool.captions] == woman.tolist()
    assert (np.sign(pool.identity[:, 0].astype(float)) == np.where(woman, 1, -1)).all()


@pytest.fixture(scope="module")
def networks(pool: ClipPool) -> tuple[Any, Any]:
    vision = tiny_face_vision(image_size=pool.face.shape[-1], num_layers=1)
    return tiny_vae(), vision


@pytest.fixture(scope="module")
def latents(folder: Path, networks: tuple[Any, Any]) -> LatentPool:
    vae, vision = networks
    encode_pool(folder, vae, vision, "cpu", seed=0)
    return LatentPool.open(folder, "cpu")


def signed(pictures: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.array(pictures)).float() / 127.5 - 1


def nearest_row(found: torch.Tensor, expected: torch.Tensor) -> list[int]:
    """For every row of `found` the row of `expected` it is nearest to."""
    nearest: list[int] = torch.cdist(found.flatten(1).float(), expected.flatten(1).float()).argmin(1).tolist()
    return nearest


def test_latents_are_those_of_the_rendered_row(pool: ClipPool, latents: LatentPool, networks: tuple[Any, Any]) -> None:
    vae, vision = networks
    expected = {
        "clips": encode_video(vae, signed(pool.clips).transpose(1, 2)).transpose(1, 2),
        "reference": reference_latents(vae, signed(pool.reference)).transpose(1, 2),
        "face_tokens": vision(signed(pool.face)).tokens.detach(),
    }
    for name, value in expected.items():
        found = getattr(latents, name)
        torch.testing.assert_close(found.float(), value.float(), atol=0.02, rtol=0.02)
        assert nearest_row(found, value) == list(range(CLIPS))
    assert torch.equal(latents.identity, torch.from_numpy(np.array(pool.identity)))


def test_stills_are_frames_of_their_own_clip(pool: ClipPool, latents: LatentPool, networks: tuple[Any, Any]) -> None:
    """Each encoded alone, as a single picture."""
    vae, _ = networks
    frames = [reference_latents(vae, signed(clip))[:, :, 0].float() for clip in pool.clips]
    for row in range(CLIPS):
        for still in latents.stills[row].float():
            distances = [float((clip - still).flatten(1).abs().mean(1).min()) for clip in frames]
            assert distances[row] < 2e-3
            assert distances[row] == min(distances)


def test_text_is_of_the_rows_own_caption(pool: ClipPool, latents: LatentPool) -> None:
    expected = encode_text(*load_text_encoder(), [*pool.captions, ""], TEXT_LENGTH)
    torch.testing.assert_close(latents.text.float(), expected[:-1], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(latents.null_text.float(), expected[-1:], atol=2e-3, rtol=1e-3)
    assert len({tuple(states.flatten().tolist()) for states in latents.text}) == CLIPS
