"""Accepting, listing, deleting and expiring videos, and putting back in the queue what a death took out of it."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from filelock import FileLock

from fantasyid.core.bounds import Bounds, check_integer
from fantasyid.serving.errors import NotFoundError, QueueFullError, QueueLostError
from fantasyid.serving.queue import VideoQueue
from fantasyid.serving.store import JobState, Status, VideoFolder, VideoJob, VideoStore

_USUAL_RETRY_S = 10


@dataclass(frozen=True)
class Limits:
    """What a server takes and keeps.

    Attributes:
        max_queue: Videos that may wait.
        max_upload_mb: Megabytes of one upload.
        max_megapixels: Of a photo.
        keep_hours: How long a video is kept after it ended, and a person after the last video asked for; None is until
            they are deleted.

    Raises:
        InvalidRequestError: One is out of its bounds.
    """

    max_queue: int = 50
    max_upload_mb: int = 20
    max_megapixels: int = 50
    keep_hours: int | None = None

    def __post_init__(self) -> None:
        check_integer("--max-queue", self.max_queue, Bounds(1, 100_000))
        check_integer("--max-upload-mb", self.max_upload_mb, Bounds(1, 1000))
        check_integer("--max-megapixels", self.max_megapixels, Bounds(1, 178))
        if self.keep_hours is not None:
            check_integer("--keep-hours", self.keep_hours, Bounds(1, 100_000))


class VideoService:
    """Videos from the moment they are accepted to the moment they are deleted.

    Any number of processes may serve the same folder and queue.

    Args:
        store: Where they are kept.
        queue: In which they wait.
        limits: How many and how long.
    """

    def __init__(self, store: VideoStore, queue: VideoQueue, limits: Limits) -> None:
        self.store = store
        self.queue = queue
        self.limits = limits
        self._ended: dict[str, JobState] = {}
        self._threads = threading.Lock()

    def check_room(self) -> None:
        """Refuse a video while as many wait as may.

        Raises:
            QueueFullError: It says when to try again.
        """
        if len(self.queue) >= self.limits.max_queue:
            raise QueueFullError(
                f"{self.limits.max_queue} videos wait already, the most that this server lets wait; try again later.",
                retry_after_s=self._seconds_per_video(),
            )

    def accept(self, job: VideoJob, photo: bytes | None) -> VideoFolder:
        """Keep a video and queue it: once this returns it will end, whatever dies in between.

        Args:
            job: What was asked.
            photo: The uploaded file, if its request has a person.

        Raises:
            QueueFullError: Too many wait.
            StorageError: The disk does not take it.
            QueueLostError: The queue does not.
        """
        with self._alone():
            self.check_room()
            folder = self.store.add(job, photo)
            try:
                self.queue.put(folder.id)
            except QueueLostError:
                folder.remove()  # who is refused asks again, and wants one video
                raise
        return folder

    def delete(self, video_id: str) -> None:
        """Delete a video; one that is being made stops after its step.

        Raises:
            NotFoundError: There is none.
        """
        folder = self.store.find(video_id)
        folder.mark_deleted()
        with self._alone():
            waiting = self.queue.waiting()
            if video_id in waiting:
                self.queue.replace([other for other in waiting if other != video_id])
        with folder.hold() as held:
            if held:
                folder.remove()

    def page(self, after: str | None, limit: int, newest_first: bool) -> tuple[list[VideoFolder], bool]:
        """Some of the videos, in order of acceptance.

        Args:
            after: Id of the last one of the page before.
            limit: How many at most.
            newest_first: The order.

        Returns:
            The videos, and whether there are more.

        Raises:
            NotFoundError: There is no video `after`.
        """
        folders = self.store.folders()
        if newest_first:
            folders.reverse()
        if after is not None:
            names = [folder.id for folder in folders]
            if after not in names:
                raise NotFoundError(f"There is no video {after!r} to list from; leave `after` out.", "after")
            folders = folders[names.index(after) + 1 :]
        there = (folder for folder in folders if not folder.is_deleted)
        page = [folder for folder, _ in zip(there, range(limit + 1), strict=False)]
        return page[:limit], len(page) > limit

    def expires_at(self, state: JobState) -> float | None:
        """When a video will be deleted, in Unix seconds."""
        if state.ended_at is None or self.limits.keep_hours is None:
            return None
        return state.ended_at + 3600 * self.limits.keep_hours

    def restore(self) -> None:
        """Set right what deaths left: the queue holds, in order, all that is neither being made nor ended.

        Expired videos are deleted, and the remains of deleted ones.
        """
        with self._alone():
            folders = self.store.folders()
            waiting = [folder.id for folder in folders if self._waits(folder)]
            if not set(waiting) <= set(self.queue.waiting()):
                self.queue.replace(waiting)
        there = {folder.id for folder in folders}
        self._ended = {video_id: state for video_id, state in self._ended.items() if video_id in there}

    def count(self) -> Counter[Status]:
        """How many videos there are of each status."""
        return Counter(self._state(folder).status for folder in self.store.folders() if not folder.is_deleted)

    def _waits(self, folder: VideoFolder) -> bool:
        """Whether a worker should take it; what nobody will take is removed."""
        if folder.id in self._ended and not self._is_over(folder):
            return False
        with folder.hold() as held:
            if not held:
                return False
            if self._is_over(folder):
                folder.mark_deleted()
                folder.remove()
                return False
            state = self._state(folder)
            if state.status == "in_progress":  # and nobody holds it: its worker died
                folder.set_state(state.model_copy(update={"status": "queued", "progress": 0}))
            return state.ended_at is None

    def _is_over(self, folder: VideoFolder) -> bool:
        """Whether it was deleted, or has expired."""
        if folder.is_deleted:
            return True
        expires_at = self.expires_at(self._state(folder))
        return expires_at is not None and time.time() >= expires_at

    def _state(self, folder: VideoFolder) -> JobState:
        """Its state, read once after it ended: it changes no more."""
        state = self._ended.get(folder.id) or folder.state()
        if state.ended_at is not None:
            self._ended[folder.id] = state
        return state

    def _seconds_per_video(self) -> int:
        """How long the last one took, roughly when there will be room."""
        ended = sorted(state.ended_at for state in list(self._ended.values()) if state.ended_at is not None)
        return _USUAL_RETRY_S if len(ended) < 2 else max(1, round(ended[-1] - ended[-2]))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else changes the queue, except that workers take from it."""
        with self._threads, FileLock(self.store.folder / ".queue.lock"):
            yield
