"""Putting a server or a worker together from a folder, a queue and limits."""

from pathlib import Path

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.credentials import SigningKey
from fantasyid.core.output_files import make_folder
from fantasyid.face.reader import FaceReader
from fantasyid.generation.progress import SILENT, Progress
from fantasyid.generation.request import ModelRequest
from fantasyid.serving.api import Served
from fantasyid.serving.characters import CharacterStore
from fantasyid.serving.queue import VideoQueue
from fantasyid.serving.service import Limits, VideoService
from fantasyid.serving.store import VideoStore
from fantasyid.serving.worker import Worker


def open_service(outputs: Path, queue_url: str | None, limits: Limits | None = None) -> VideoService:
    """The videos of a folder and a queue.

    Args:
        outputs: Made if it is not there.
        queue_url: Of a Redis; None is a file in the folder.
        limits: How many and how long; the usual ones if not given.

    Raises:
        FantasyIDError: The folder cannot be made, or the queue not be reached.
    """
    make_folder(outputs)
    return VideoService(VideoStore(outputs), VideoQueue(queue_url, outputs), limits or Limits())


def set_up(
    service: VideoService,
    model: ModelRequest,
    *,
    keys: frozenset[str] = frozenset(),
    with_worker: bool = True,
    signing_key: SigningKey | None = None,
    progress: Progress = SILENT,
) -> Served:
    """All that a server needs.

    Args:
        service: Its videos.
        model: What makes them.
        keys: Who has one may ask; none needs none.
        with_worker: Make them in this process; then the model is loaded now.
        signing_key: With which that worker signs; None leaves credentials out.
        progress: Told of loading.

    Raises:
        FantasyIDError: The model cannot be had.
    """
    characters = CharacterStore(service.store.folder / "characters", service.limits.keep_hours)
    if not with_worker:
        # The networks may not fit on this machine; to see whether there is a face takes the small reader alone.
        reader = FaceReader(load_component(MINI_FOLDER, "face_reader_model"))
        return Served(model, reader.read, service, characters, keys)
    worker = Worker(service, signing_key)
    reader = worker.studio(model, progress).pipeline.face_reader
    return Served(model, reader.read, service, characters, keys, worker)
