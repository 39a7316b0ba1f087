"""Videos on disk: each is a folder with what was asked, how far it is, and what came of it.

The folders are the truth: all else, such as the queue, can be made again from them. Whoever works at a video holds its
lock, which the system takes back when the process dies; only the holder writes a state or removes the folder.
"""

import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from fantasyid.core.errors import FantasyIDError
from fantasyid.core.output_files import make_folder, tidy_up, write_together
from fantasyid.generation.output_paths import GenerationPaths
from fantasyid.generation.request import GenerationRequest
from fantasyid.serving.errors import NotFoundError, StorageError

logger = logging.getLogger(__name__)

_ID = re.compile(r"video_[0-9a-f]{32}")
_JOB, _STATE, _PHOTO, _DELETED, _LOCK = "job.json", "state.json", "photo", "deleted", "lock"

Status = Literal["queued", "in_progress", "completed", "failed"]


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VideoJob(_Kept):
    """What was accepted; it never changes."""

    created_at: int
    """Unix seconds."""
    model: str
    """What clients call the model."""
    seconds: int | None = None
    """Length asked for in place of a number of frames."""
    request: GenerationRequest
    """What to make, with a seed; its photo is named as it is in the folder."""


class JobError(_Kept):
    """Why there is no video."""

    code: str
    message: str


class JobState(_Kept):
    """How far a video is."""

    status: Status = "queued"
    progress: int = 0
    """Percent."""
    attempts: int = 0
    """How often a worker began."""
    ended_at: float | None = None
    """Unix seconds; None before."""
    note: str | None = None
    """What its client should know."""
    error: JobError | None = None


@dataclass(frozen=True)
class VideoFolder:
    """One video.

    Attributes:
        path: The folder; its name is the video's id.
    """

    path: Path

    @property
    def id(self) -> str:
        """Of the video."""
        return self.path.name

    @property
    def outputs(self) -> GenerationPaths:
        """Video, record and contact sheet: all three or none are there."""
        return GenerationPaths.beside(self.path / "video.mp4")

    @property
    def is_deleted(self) -> bool:
        """Whether nobody wants it any more, be there files still or not."""
        return (self.path / _DELETED).exists() or not (self.path / _JOB).exists()

    def job(self) -> VideoJob:
        """What was accepted, its photo as a path.

        Raises:
            NotFoundError: The folder is gone, or another version's.
        """
        try:
            job = VideoJob.model_validate_json((self.path / _JOB).read_bytes())
        except FileNotFoundError as error:
            raise NotFoundError(f"There is no video {self.id!r}; it may have been deleted or have expired.") from error
        except ValidationError as error:
            raise NotFoundError(f"The video {self.id!r} is of another version of fantasyid; ask again.") from error
        person = job.request.person
        if person is not None:
            person = person.model_copy(update={"photos": (self.path / _PHOTO,)})
        return job.model_copy(update={"request": job.request.model_copy(update={"person": person})})

    def state(self) -> JobState:
        """How far it is."""
        try:
            return JobState.model_validate_json((self.path / _STATE).read_bytes())
        except FileNotFoundError:
            return JobState()
        except ValidationError:
            error = JobError(code="other_version", message="It was made by another version of fantasyid.")
            return JobState(status="failed", ended_at=(self.path / _STATE).stat().st_mtime, error=error)

    def set_state(self, state: JobState) -> JobState:
        """Write how far it is; for the holder of the lock."""
        part = self.path / f"{_STATE}.part"
        with part.open("w", encoding="utf-8") as file:
            file.write(state.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path / _STATE)
        return state

    def mark_deleted(self) -> None:
        """Say that nobody wants it; who works at it looks after every step."""
        with suppress(FileNotFoundError):  # it is gone
            (self.path / _DELETED).touch()

    def has_video(self) -> bool:
        """Whether the video was made, after what a killed process began to move is moved; for the holder."""
        tidy_up(self.path)
        return self.outputs.record.exists()

    @contextmanager
    def hold(self, timeout_s: float = 0) -> Iterator[bool]:
        """Be the only one that works at it.

        Args:
            timeout_s: How long to wait for another holder.

        Yields:
            Whether this thread is the holder; no if another is, or the folder is gone.
        """
        if not self.path.is_dir():
            yield False
            return
        lock = FileLock(self.path / _LOCK, timeout=timeout_s)
        try:
            lock.acquire()
        except (Timeout, FileNotFoundError):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def remove(self) -> None:
        """Delete all of it; for the holder."""
        shutil.rmtree(self.path, ignore_errors=True)


def keep_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder with files in it, whole or not at all.

    Args:
        folder: A new name.
        files: Their contents by name.

    Raises:
        StorageError: The disk does not take it; where and why is for the log alone.
    """
    try:
        with write_together([folder], overwrite=False) as (made,):
            made.mkdir()
            for name, content in files.items():
                (made / name).write_bytes(content)
    except FantasyIDError as error:
        logger.error("%s", error)
        raise StorageError("The server could not keep what was sent; its log says why.") from error


class VideoStore:
    """The folder of all videos.

    Args:
        folder: Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.folder = folder

    def add(self, job: VideoJob, photo: bytes | None) -> VideoFolder:
        """Keep a new video, whole or not at all.

        Args:
            job: What was asked.
            photo: The uploaded file, if its request has a person.

        Raises:
            StorageError: The disk does not take it.
        """
        # Sixteen digits of time, so that names in order are videos in order; and as many that nobody guesses.
        folder = VideoFolder(self.folder / f"video_{time.time_ns():016x}{secrets.token_hex(8)}")
        files = {_JOB: job.model_dump_json().encode(), **({} if photo is None else {_PHOTO: photo})}
        keep_folder(folder.path, files)
        return folder

    def find(self, video_id: str) -> VideoFolder:
        """A video by its id.

        Raises:
            NotFoundError: There is none, or it was deleted.
        """
        if _ID.fullmatch(video_id):
            folder = VideoFolder(self.folder / video_id)
            if not folder.is_deleted:
                return folder
        raise NotFoundError(f"There is no video {video_id!r}; it may have been deleted or have expired.", "video_id")

    def folders(self) -> list[VideoFolder]:
        """All, oldest first, those that are being deleted too."""
        with os.scandir(self.folder) as entries:
            names = sorted(entry.name for entry in entries if _ID.fullmatch(entry.name))
        return [VideoFolder(self.folder / name) for name in names]
