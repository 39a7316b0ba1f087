"""Videos on disk."""

import shutil
from pathlib import Path

import pytest

from fantasyid.generation.request import GenerationRequest
from fantasyid.serving.errors import NotFoundError, StorageError
from fantasyid.serving.store import VideoJob, VideoStore

JOB = VideoJob(created_at=1, model="tiny", request=GenerationRequest(prompt="x", seed=1))


def test_a_disk_that_fails_is_not_described_to_clients(tmp_path: Path) -> None:
    store = VideoStore(tmp_path / "videos")
    shutil.rmtree(store.folder)
    with pytest.raises(StorageError) as refused:
        store.add(JOB, b"photo")
    assert str(tmp_path) not in str(refused.value)


def test_what_another_version_kept_is_told(tmp_path: Path) -> None:
    folder = VideoStore(tmp_path).add(JOB, None)
    (folder.path / "state.json").write_text('{"status": "dreaming"}')
    state = folder.state()
    assert (state.status, state.ended_at is not None) == ("failed", True)
    (folder.path / "job.json").write_text('{"prompt": "x"}')
    with pytest.raises(NotFoundError, match="another version"):
        folder.job()


def test_ids_are_in_order_of_acceptance(tmp_path: Path) -> None:
    store = VideoStore(tmp_path)
    added = [store.add(JOB, None) for _ in range(5)]
    (tmp_path / "video_other").mkdir()
    assert store.folders() == added
