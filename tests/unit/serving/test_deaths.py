"""Whatever dies at whatever moment: what was accepted ends once, and with one result."""

import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fantasyid.core.video import read_video
from fantasyid.generation.request import GenerationRequest, ModelRequest
from fantasyid.serving.errors import QueueLostError
from fantasyid.serving.service import VideoService
from fantasyid.serving.set_up import open_service
from fantasyid.serving.store import JobState, VideoFolder, VideoJob
from fantasyid.serving.worker import MOST_ATTEMPTS, Worker
from tests.kills import count_steps, kill_at

KILLS = 6


def job(model: ModelRequest, steps: int = 2) -> VideoJob:
    """A video that is soon made, but for the number of steps."""
    request = GenerationRequest(prompt="a man nods", seed=5, num_inference_steps=steps, num_frames=1, model=model)
    return VideoJob(created_at=int(time.time()), model="tiny", request=request)


def spread(steps: int) -> Iterator[int]:
    """Some of the steps, the first and the last among them."""
    return (step * (steps - 1) // (KILLS - 1) for step in range(KILLS))


def restart(service: VideoService, worker: Worker) -> list[str]:
    """What the next process does first: set right what is wrong, and make what waits; gives its ids."""
    service.restore()
    made = []
    while (video_id := service.queue.take()) is not None:
        worker.work(video_id)
        made.append(video_id)
    return made


@pytest.fixture
def service(tmp_path: Path) -> VideoService:
    return open_service(tmp_path / "videos", None)


def test_a_worker_killed_at_any_step(tmp_path: Path, service: VideoService, model: ModelRequest) -> None:
    worker = Worker(service)
    worker.studio(model)

    def accepted() -> VideoFolder:
        folder = service.accept(job(model), None)
        assert service.queue.take() == folder.id  # as a worker does before it is killed
        return folder

    folder = accepted()
    steps = count_steps(lambda: worker.work(folder.id))
    whole = read_video(folder.outputs.video)[0]
    for step in spread(steps):
        folder = accepted()
        kill_at(step, signal.SIGKILL, lambda folder=folder: worker.work(folder.id))  # type: ignore[misc]
        made_before = folder.outputs.record.read_bytes() if folder.state().status == "completed" else None
        assert restart(service, worker) == ([] if made_before else [folder.id])
        assert folder.state().status == "completed"
        assert (read_video(folder.outputs.video)[0] == whole).all()
        assert made_before in (None, folder.outputs.record.read_bytes())
        names = {path.name for path in folder.path.iterdir()} - {"lock"}
        assert names == {"job.json", "state.json", "video.mp4", "video.json", "video.jpg"}


def test_a_server_killed_while_it_accepts(tmp_path: Path, model: ModelRequest) -> None:
    place = tmp_path / "videos"
    service = open_service(place, None)

    def accept() -> None:
        open_service(place, None).accept(job(model), b"a photo")

    for step in spread(count_steps(accept)):
        kill_at(step, signal.SIGKILL, accept)
        service.restore()
        there = [folder.id for folder in service.store.folders()]
        assert service.queue.waiting() == there
        assert all(folder.job().request.seed == 5 for folder in service.store.folders())
    service.accept(job(model), None)
    names = {path.name for path in place.iterdir() if path.name.startswith(".fantasyid")}
    assert not names


def test_what_was_made_but_not_said_is_not_made_again(service: VideoService, model: ModelRequest) -> None:
    worker = Worker(service)
    folder = service.accept(job(model), None)
    worker.work(folder.id)
    record = folder.outputs.record.read_bytes()
    folder.set_state(JobState(status="in_progress", attempts=1))
    restart(service, worker)
    assert folder.state().status == "completed"
    assert folder.outputs.record.read_bytes() == record


def test_it_is_made_once_however_often_it_is_queued(service: VideoService, model: ModelRequest) -> None:
    worker = Worker(service)
    folder = service.accept(job(model), None)
    service.queue.put(folder.id)
    service.queue.put("video_" + "0" * 32)
    service.queue.put("../elsewhere")
    worker.work(str(service.queue.take()))
    record = folder.outputs.record.read_bytes()
    restart(service, worker)
    assert folder.outputs.record.read_bytes() == record


def test_what_kills_every_worker_is_given_up(service: VideoService, model: ModelRequest) -> None:
    worker = Worker(service)
    folder = service.accept(job(model), None)
    folder.set_state(JobState(status="in_progress", attempts=MOST_ATTEMPTS - 1))
    worker.work(folder.id)
    assert folder.state().status == "completed"
    folder = service.accept(job(model), None)
    folder.set_state(JobState(status="in_progress", attempts=MOST_ATTEMPTS))
    worker.work(folder.id)
    state = folder.state()
    assert state.error is not None
    assert state.error.code == "worker_lost"
    worker.work(folder.id)
    assert folder.state() == state


def test_a_stopped_worker_leaves_its_video_to_the_next(service: VideoService, model: ModelRequest) -> None:
    first, second = service.accept(job(model, steps=500), None), service.accept(job(model), None)
    worker = Worker(service)
    worker.start()
    while first.state().progress < 1:
        assert first.state().ended_at is None
    worker.stop()
    assert first.state() == JobState()
    service.restore()
    assert service.queue.waiting() == [first.id, second.id]


def test_order_is_kept_over_deaths(service: VideoService, model: ModelRequest) -> None:
    folders = [service.accept(job(model), None) for _ in range(4)]
    service.queue.take()
    service.queue.take()
    folders[0].set_state(JobState(status="in_progress", attempts=1))
    with folders[1].hold() as held:  # another process is at it
        assert held
        service.restore()
    assert service.queue.waiting() == [folders[index].id for index in (0, 2, 3)]
    assert folders[0].state() == JobState(attempts=1)


def test_what_the_queue_does_not_take_is_not_kept(service: VideoService, model: ModelRequest) -> None:
    with sqlite3.connect(service.store.folder / "queue.sqlite") as queue:
        queue.execute("create trigger full before insert on task begin select raise(abort, 'full'); end")
    with pytest.raises(QueueLostError, match="full"):
        service.accept(job(model), None)
    assert service.store.folders() == []


def test_a_deletion_cut_short_is_finished(service: VideoService, model: ModelRequest) -> None:
    folder = service.accept(job(model), None)
    folder.mark_deleted()
    service.restore()
    assert not folder.path.exists()
    Worker(service).work(folder.id)
    assert service.store.folders() == []


@pytest.mark.parametrize("fault", [{"name": "/somewhere/gone"}, {"memory_plan": "low"}])
def test_what_is_wrong_with_the_server_is_for_its_log(
    service: VideoService, model: ModelRequest, fault: dict[str, object]
) -> None:
    folder = service.accept(job(model.model_copy(update=fault)), None)
    Worker(service).work(folder.id)
    error = folder.state().error
    assert error is not None
    assert error.message == "The server could not make the video; its log says why."
