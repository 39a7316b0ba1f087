"""A pool of two clips, drawn and read back."""

from pathlib import Path

import numpy as np
import pytest

from fantasyid.data.precompute import ClipPool, render_pool
from fantasyid.data.repose.rig import RigSet
from fantasyid.face.align import FACE_TEMPLATE, PORTRAIT_SIZE
from tests.kills import file_size_limit


@pytest.fixture(scope="module")
def pool(rigs_path: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipPool:
    folder = tmp_path_factory.mktemp("pool")
    render_pool(rigs_path, folder, clips=2, device="cpu", seed=0, frames=3)
    return ClipPool.open(folder)


def test_a_rendered_pool_is_read_back_whole(pool: ClipPool, rigs: RigSet) -> None:
    assert len(pool) == len(set(pool.captions)) == 2
    assert pool.clips.shape == (2, 3, 3, PORTRAIT_SIZE, PORTRAIT_SIZE)
    assert pool.reference.shape == (2, 3, PORTRAIT_SIZE, PORTRAIT_SIZE)
    assert pool.face.shape == pool.frame_face.shape == pool.neutral_face.shape == (2, 3, 96, 96)
    assert pool.identity.shape == (2, rigs.identity.shape[1])
    assert {array.dtype for array in (pool.clips, pool.reference, pool.face, pool.neutral_face)} == {np.dtype(np.uint8)}
    assert isinstance(pool.clips, np.memmap)
    for picture in (pool.clips, pool.reference, pool.face, pool.frame_face, pool.neutral_face):
        assert picture.std() > 20


def test_the_reference_is_no_frame_of_its_clip(pool: ClipPool) -> None:
    for k in range(2):
        assert np.abs(pool.reference[k].astype(int) - pool.clips[k, 0].astype(int)).mean() > 1


def test_faces_move_over_the_clip(pool: ClipPool) -> None:
    for clip in pool.clips.astype(int):
        assert np.abs(clip[-1] - clip[0]).mean() > 0.5


def test_faces_are_aligned(pool: ClipPool) -> None:
    """The nose is blue in these photos, and it lies where the template says."""
    template = np.array(FACE_TEMPLATE[2]) * 96
    for k in range(2):
        for picture in (pool.face[k], pool.frame_face[k], pool.neutral_face[k]):
            red, green, blue = picture.astype(float)
            middle = (slice(len(blue) // 4, -len(blue) // 4),) * 2
            amount = np.zeros_like(blue)
            amount[middle] = (blue - np.maximum(red, green)).clip(0)[middle]
            rows, columns = np.nonzero(amount > 0.6 * amount.max())
            assert np.abs([columns.mean() + 0.5, rows.mean() + 0.5] - template).max() < 6


def test_a_pool_that_is_rendered_over_another_is_not_read_before_its_end(rigs_path: Path, tmp_path: Path) -> None:
    """Nor is what was encoded of the other."""
    for name in ("captions.json", "latent_null_text.npy"):
        (tmp_path / name).write_bytes(b"of before")
    with file_size_limit(2**16), pytest.raises(OSError, match="File too large"):
        render_pool(rigs_path, tmp_path, clips=2, device="cpu", seed=0)
    assert not (tmp_path / "captions.json").exists()
    assert not (tmp_path / "latent_null_text.npy").exists()
