"""Making the videos of a queue, one after the other."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fantasyid import __version__
from fantasyid.core.credentials import SigningKey
from fantasyid.core.errors import (
    ExtremeProfileError,
    FaceChoiceError,
    FaceTooSmallError,
    FantasyIDError,
    IncompleteFaceError,
    InvalidRequestError,
    NoFaceError,
    NotFiniteError,
    OutOfMemoryError,
)
from fantasyid.core.input_files import file_sha256
from fantasyid.face.types import FaceReading
from fantasyid.generation.output import save_generation
from fantasyid.generation.person import Person, PersonFiles
from fantasyid.generation.progress import SILENT, Progress
from fantasyid.generation.request import GenerationRequest, ModelRequest
from fantasyid.generation.studio import Studio
from fantasyid.serving.errors import NotFoundError, QueueLostError, error_code
from fantasyid.serving.service import VideoService
from fantasyid.serving.store import JobError, JobState, VideoFolder, VideoJob

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
"""A video that takes its worker down with it is not tried for ever."""
RESTORE_EVERY_S = 5.0
_PAUSE_S = 0.2
_HOLD_TIMEOUT_S = 10.0
"""Longer than `VideoService.restore` looks at one video."""
_MOST_PEOPLE = 4
_OF_THE_REQUEST = (
    *(InvalidRequestError, NotFiniteError, OutOfMemoryError, NoFaceError, FaceChoiceError, FaceTooSmallError),
    *(ExtremeProfileError, IncompleteFaceError),
)
"""Errors whose sentences are for clients; others name files of this machine, and are for its log."""


class DeletedError(Exception):
    """Nobody wants the video any more."""


class ServerFaultError(FantasyIDError):
    """What the server itself chose cannot be: its model, or the disk of its videos."""


class StoppedError(Exception):
    """The worker is to end."""


class Worker:
    """Makes what is queued until it is stopped.

    Args:
        service: Where videos come from.
        signing_key: Signs what is made; None leaves credentials out.
    """

    def __init__(self, service: VideoService, signing_key: SigningKey | None = None) -> None:
        self._service = service
        self._signing_key = signing_key
        self._studio: Studio | None = None
        self._asked: ModelRequest | None = None
        self._people: OrderedDict[tuple[Any, ...], Person] = OrderedDict()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.run, name="video worker")

    def studio(self, asked: ModelRequest, progress: Progress = SILENT) -> Studio:
        """A model made ready, kept until another is asked for.

        Args:
            asked: Which.
            progress: Told of loading.

        Raises:
            FantasyIDError: It cannot be had.
        """
        if self._studio is None or asked != self._asked:
            self._studio = None  # there may be no memory for two
            self._people.clear()
            self._studio, self._asked = Studio(asked, progress), asked
        return self._studio

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End after the step that is being computed; a video that was begun waits again."""
        self.tell_to_stop()
        self._thread.join()

    def tell_to_stop(self) -> None:
        """As `stop`, without waiting."""
        self._stop.set()

    def run(self) -> None:
        """Work until told to stop."""
        restored_at = -RESTORE_EVERY_S
        while not self._stop.is_set():
            try:
                if time.monotonic() >= restored_at + RESTORE_EVERY_S:
                    self._service.restore()
                    restored_at = time.monotonic()
                video_id = self._service.queue.take()
                if video_id is not None:
                    self.work(video_id)
                elif not self._service.queue.blocks:
                    self._stop.wait(_PAUSE_S)
            except (QueueLostError, OSError) as error:  # until the queue is back, or the disk has room
                logger.warning("%s", error)
                self._stop.wait(RESTORE_EVERY_S)

    def work(self, video_id: str) -> None:
        """Make one video, unless another worker is at it, it is there already, or nobody wants it.

        Args:
            video_id: From the queue.
        """
        try:
            folder = self._service.store.find(video_id)
        except NotFoundError:
            return
        with folder.hold(_HOLD_TIMEOUT_S) as held:
            if not held:
                return
            state = JobState() if folder.is_deleted else folder.state()
            if state.ended_at is None:
                start = time.monotonic()
                self._attempt(folder, state)
                ended = "deleted" if folder.is_deleted else folder.state().status
                logger.info("%s: %s after %.1f s", video_id, ended, time.monotonic() - start)
            if folder.is_deleted:
                folder.remove()

    def _attempt(self, folder: VideoFolder, state: JobState) -> None:
        """Make the video of a folder that this worker holds, and say in it how it ended."""
        begun = JobState(status="in_progress", attempts=state.attempts + 1)
        try:
            if folder.is_deleted:
                return
            if not folder.has_video():
                if state.attempts >= MOST_ATTEMPTS:
                    self._fail(folder, state, "worker_lost", f"The server died {MOST_ATTEMPTS} times while making it.")
                    return
                begun = self._make(folder, folder.set_state(begun))
            folder.set_state(begun.model_copy(update=_ended("completed", progress=100)))
        except DeletedError:
            return
        except StoppedError:
            folder.set_state(state.model_copy(update={"status": "queued", "progress": 0}))
        except _OF_THE_REQUEST as error:
            self._fail(folder, begun, error_code(error), str(error))
        except FantasyIDError as error:
            logger.error("%s: %s", folder.id, error)
            self._fail(folder, begun, error_code(error), "The server could not make the video; its log says why.")
        except Exception as error:  # whatever one video meets, the next is another
            logger.exception("%s", folder.id)
            said = f"Something went wrong inside fantasyid {__version__} ({type(error).__name__}); its log says more."
            self._fail(folder, begun, "internal", said)

    def _fail(self, folder: VideoFolder, state: JobState, code: str, message: str) -> None:
        error = JobError(code=code, message=message)
        folder.set_state(state.model_copy(update=_ended("failed", error=error)))

    def _make(self, folder: VideoFolder, state: JobState) -> JobState:
        job, progress = folder.job(), _FolderProgress(folder, state, self._stop)
        with _fault_of_the_server():
            studio = self.studio(job.request.model, progress)
        request = studio.complete(_with_length(job, studio))
        assert request.num_frames is not None
        assert request.height is not None
        assert request.width is not None
        with _fault_of_the_server():
            folder.outputs.check_room(request.num_frames, request.height, request.width)
        person = None if request.person is None else self._read(studio, request, progress)
        for reading in () if person is None else person.readings:
            if reading.num_faces > 1:  # told for each video, though it is read once
                progress.several_faces(reading)
        (video,) = studio.videos(request, progress=progress, person=person)
        progress.check()
        key = self._signing_key
        save_generation(folder.outputs, video.frames, video.portrait, video.record, signing_key=key)
        return progress.state

    def _read(self, studio: Studio, request: GenerationRequest, progress: Progress) -> Person:
        """The person of a request, read once for all videos of the last few people."""
        assert request.person is not None
        photos = tuple(file_sha256(photo) for photo in request.person.photos)
        key = (photos, request.person.model_dump_json(exclude={"photos"}), request.height, request.width)
        if key not in self._people:
            self._people[key] = studio.read(request, PersonFiles.read(request.person), progress)
        self._people.move_to_end(key)
        if len(self._people) > _MOST_PEOPLE:
            self._people.popitem(last=False)
        return self._people[key]


@contextmanager
def _fault_of_the_server() -> Iterator[None]:
    """Around what no client chose."""
    try:
        yield
    except InvalidRequestError as error:
        raise ServerFaultError(str(error)) from error


def _ended(status: str, **more: Any) -> dict[str, Any]:
    return {"status": status, "ended_at": time.time(), **more}


def _with_length(job: VideoJob, studio: Studio) -> GenerationRequest:
    """The request with as many frames as the seconds asked for take: one more than rate times seconds, as models count
    that make the first frame alone."""
    if job.seconds is None:
        return job.request
    fps = job.request.fps or studio.pipeline.config.fps
    return job.request.model_copy(update={"num_frames": round(job.seconds * fps) + 1})


class _FolderProgress(Progress):
    """Writes progress into the folder, and ends a generation that is not wanted any more."""

    def __init__(self, folder: VideoFolder, state: JobState, stop: threading.Event) -> None:
        self._folder = folder
        self.state = state
        """As it was written last."""
        self._stop = stop

    def check(self) -> None:
        """Raise what ends the generation, if something should."""
        if self._folder.is_deleted:
            raise DeletedError
        if self._stop.is_set():
            raise StoppedError

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """See `Progress.stage`."""
        self.check()
        yield

    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """See `Progress.steps`."""

        def tell(done: int) -> None:
            self.check()
            percent = 99 * done // total  # the frames are still to be decoded and written
            if percent != self.state.progress:
                self._write(progress=percent)

        yield tell

    def several_faces(self, reading: FaceReading) -> None:
        """See `Progress.several_faces`."""
        self._write(note=f"{reading.choice_note} Choose with face_index.")

    def _write(self, **changes: Any) -> None:
        self.state = self._folder.set_state(self.state.model_copy(update=changes))
