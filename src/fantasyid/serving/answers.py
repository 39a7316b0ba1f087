"""What the server answers, in the shapes of the Videos API."""

from typing import Literal

from pydantic import BaseModel

from fantasyid.core.errors import InvalidRequestError
from fantasyid.generation.record import read_record
from fantasyid.serving.errors import NotFoundError
from fantasyid.serving.service import VideoService
from fantasyid.serving.store import JobError, Status, VideoFolder


class Video(BaseModel):
    """A video, made or to be made."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Status
    progress: int
    """Percent."""
    created_at: int
    """Unix seconds, as the next two."""
    completed_at: int | None
    expires_at: int | None
    prompt: str
    size: str | None
    """Width x height in pixels; null until the model chose what was left open, as the next."""
    seconds: str | None
    error: JobError | None
    seed: int | None
    """Gives the same video again."""
    note: str | None
    """What there is to know, such as which of several faces is shown."""


class VideoList(BaseModel):
    """Some of the videos."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deletion(BaseModel):
    """Something is gone."""

    id: str
    object: Literal["video.deleted", "character.deleted"]
    deleted: Literal[True] = True


class Model(BaseModel):
    """What makes videos here."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "fantasyid"


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]


def describe(folder: VideoFolder, service: VideoService) -> Video:
    """What is known of a video.

    Args:
        folder: The video.
        service: Says when it expires.

    Raises:
        NotFoundError: It was deleted in the meantime.
    """
    state, job = folder.state(), folder.job()
    request = job.request
    seconds = None if job.seconds is None else str(job.seconds)
    if state.status == "completed":
        try:
            request = read_record(folder.outputs.record).request
        except InvalidRequestError as error:
            raise NotFoundError(f"There is no video {folder.id!r}; it was deleted.", "video_id") from error
    if request.num_frames is not None and request.fps is not None:
        seconds = f"{request.num_frames / request.fps:g}"
    expires_at = service.expires_at(state)
    return Video(
        id=folder.id,
        model=job.model,
        status=state.status,
        progress=state.progress,
        created_at=job.created_at,
        completed_at=int(state.ended_at) if state.ended_at is not None and state.status == "completed" else None,
        expires_at=None if expires_at is None else int(expires_at),
        prompt=request.prompt,
        size=None if request.width is None else f"{request.width}x{request.height}",
        seconds=seconds,
        error=state.error,
        seed=request.seed,
        note=state.note,
    )
