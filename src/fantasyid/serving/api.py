"""The server: the Videos API over HTTP. Nothing of it lies at `/`, where a page can be mounted."""

import io
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPMethod
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from anyio import CapacityLimiter, create_task_group, sleep, to_thread
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.responses import FileResponse
from numpy.typing import NDArray
from PIL import Image

from fantasyid import __version__
from fantasyid.core.errors import UnreadableVideoError
from fantasyid.core.imaging import as_photo
from fantasyid.core.provenance import xmp_packet
from fantasyid.core.video import open_video
from fantasyid.face.types import FaceReading
from fantasyid.generation.request import ModelRequest
from fantasyid.serving.answers import Deletion, Model, ModelList, Video, VideoList, describe
from fantasyid.serving.characters import Character, CharacterStore
from fantasyid.serving.errors import InvalidFieldError, NotFoundError, QueueLostError, WorkerLostError
from fantasyid.serving.forms import CharacterForm, VideoForm, check_fields, check_upload, read_form
from fantasyid.serving.guards import KeyCheck, LimitBody, answer_errors, refuse_other_sites
from fantasyid.serving.metrics import CONTENT_TYPE, CountRequests, Metrics
from fantasyid.serving.service import VideoService
from fantasyid.serving.store import VideoFolder, VideoJob
from fantasyid.serving.worker import RESTORE_EVERY_S, Worker

logger = logging.getLogger(__name__)

_CLEAN_UP_EVERY_S = 60.0
_FORM_BYTES = 1_000_000
"""More than the fields beside a photo take."""
_PREFIX = "/v1"
_PHOTO, _CHARACTER_PHOTO = "input_reference", "video"


@dataclass(frozen=True)
class Served:
    """What a server offers.

    Attributes:
        model: What makes its videos.
        read_face: Finds the face in the photo of a character, RGB uint8 (H,W,3), or raises a `FantasyIDError`.
        service: Its videos.
        characters: Its people.
        keys: Who has one may ask; none needs none.
        worker: Makes the videos in this process; None leaves that to others.
    """

    model: ModelRequest
    read_face: Callable[[NDArray[np.uint8]], FaceReading]
    service: VideoService
    characters: CharacterStore
    keys: frozenset[str] = frozenset()
    worker: Worker | None = None

    @property
    def model_id(self) -> str:
        """What clients call the model: of a folder its name, since nobody else needs to know where it lies."""
        return Path(self.model.name).name if Path(self.model.name).is_dir() else self.model.name


def create_app(served: Served, clean_up: Callable[[], None] | None = None) -> FastAPI:
    """Make the server; its worker begins and ends with it.

    Args:
        served: What it offers.
        clean_up: Called every minute, in a thread, to remove what is kept too long of what is mounted beside it.

    Returns:
        The app, for uvicorn, or to mount more on.
    """

    @asynccontextmanager
    async def work(_: FastAPI) -> AsyncIterator[None]:
        async with create_task_group() as tasks:
            for chore in (served.characters.expire, clean_up):
                if chore is not None:
                    tasks.start_soon(_repeat, chore, _CLEAN_UP_EVERY_S)
            if served.worker is None:
                tasks.start_soon(_repeat, served.service.restore, RESTORE_EVERY_S)
                yield
            else:
                served.worker.start()
                yield
                await to_thread.run_sync(served.worker.stop)
            tasks.cancel_scope.cancel()

    # Without pages that describe it: they load scripts from elsewhere.
    app = FastAPI(title="FantasyID", version=__version__, lifespan=work, docs_url=None, redoc_url=None)
    metrics = Metrics(served.service)
    max_bytes = served.service.limits.max_upload_mb * 1_000_000 + _FORM_BYTES
    app.add_middleware(LimitBody, below=_PREFIX, max_bytes=max_bytes)
    app.add_middleware(CountRequests, metrics=metrics)
    answer_errors(app)
    app.include_router(_Videos(served).router)

    @app.get("/health")
    def health() -> dict[str, str | int]:
        """Whether videos can be accepted and made."""
        if served.worker is not None and not served.worker.is_alive:
            raise WorkerLostError("The worker of this server has ended; its log says why; start the server again.")
        return {"status": "ok", "version": __version__, "waiting": len(served.service.queue)}

    @app.get("/metrics")
    def numbers() -> Response:
        """Numbers for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return app


async def _repeat(chore: Callable[[], None], every_s: float) -> None:
    """Do something for as long as the server runs."""
    while True:
        try:
            await to_thread.run_sync(chore)
        except (QueueLostError, OSError) as error:  # until the queue is back, or the disk
            logger.warning("%s", error)
        await sleep(every_s)


class _Videos:
    """The routes below /v1."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._service = served.service
        # A photo takes up to a gigabyte while it is decoded: one at a time.
        self._one_photo = CapacityLimiter(1)
        guards = [Depends(refuse_other_sites), Depends(KeyCheck(served.keys))]
        self.router = APIRouter(prefix=_PREFIX, dependencies=guards)
        add = self.router.add_api_route
        add("/models", self.models, methods=["GET"])
        add("/videos", self.create, methods=["POST"], openapi_extra=_form_schema(VideoForm, _PHOTO, ()))
        add("/videos", self.list, methods=["GET"])
        person = _form_schema(CharacterForm, _CHARACTER_PHOTO, (_CHARACTER_PHOTO,))
        add("/videos/characters", self.create_character, methods=["POST"], openapi_extra=person)
        add("/videos/characters/{character_id}", self.character, methods=["GET"])
        add("/videos/characters/{character_id}", self.delete_character, methods=["DELETE"])
        add("/videos/{video_id}", self.video, methods=["GET"])
        add("/videos/{video_id}", self.delete, methods=["DELETE"])
        add("/videos/{video_id}/content", self.content, methods=["GET"], response_class=FileResponse)
        # Else what is mounted at / would answer, in its own way.
        add("/{path:path}", self.nothing, methods=list(HTTPMethod), include_in_schema=False)

    def nothing(self, request: Request) -> None:
        """Whatever else is asked for below /v1."""
        raise NotFoundError(f"There is nothing at {request.method} {request.url.path}; see /openapi.json.")

    def models(self) -> ModelList:
        """What makes videos here."""
        return ModelList(data=[Model(id=self._served.model_id)])

    async def create(self, request: Request) -> Video:
        """Accept a video; it is made as soon as those before it are."""
        fields, photo = await read_form(request, _PHOTO)
        # Before work is done for it, and once more when the video is queued.
        await to_thread.run_sync(self._service.check_room)
        form = check_fields(VideoForm, fields)
        if form.model not in (None, self._served.model_id):
            raise NotFoundError(f"There is no model {form.model!r} here; there is {self._served.model_id!r}.", "model")
        if form.characters and photo is not None:
            raise InvalidFieldError("input_reference and characters both say who; give one of them.", "characters")
        if photo is not None:
            check = partial(check_upload, photo, self._service.limits)
            await to_thread.run_sync(check, limiter=self._one_photo)
        return await to_thread.run_sync(self._accept, form, photo)

    def _accept(self, form: VideoForm, photo: bytes | None) -> Video:
        for character in form.characters:
            photo = self._served.characters.photo(character.id)
        job = VideoJob(
            created_at=int(time.time()),
            model=self._served.model_id,
            seconds=form.seconds,
            request=form.to_request(self._served.model, has_photo=photo is not None),
        )
        return describe(self._service.accept(job, photo), self._service)

    def list(
        self,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> VideoList:
        """The videos that are kept, in the order in which they were accepted."""
        folders, has_more = self._service.page(after, limit, order == "desc")
        data = [video for folder in folders if (video := self._described(folder)) is not None]
        first, last = (folders[0].id, folders[-1].id) if folders else (None, None)
        return VideoList(data=data, first_id=first, last_id=last, has_more=has_more)

    def _described(self, folder: VideoFolder) -> Video | None:
        try:
            return describe(folder, self._service)
        except NotFoundError:  # deleted since it was listed
            return None

    def video(self, video_id: str) -> Video:
        """How far a video is."""
        return describe(self._service.store.find(video_id), self._service)

    def delete(self, video_id: str) -> Deletion:
        """Delete a video; one that waits or is being made is cancelled."""
        self._service.delete(video_id)
        return Deletion(id=video_id, object="video.deleted")

    def content(self, video_id: str, variant: Literal["video", "thumbnail", "spritesheet"] = "video") -> Response:
        """The video itself, its first frame, or its frames on one sheet."""
        folder = self._service.store.find(video_id)
        state = folder.state()
        if state.status == "failed":
            raise NotFoundError(f"The video {video_id!r} failed, so it has no content; its error says why.", "video_id")
        if state.status != "completed":
            raise NotFoundError(
                f"The video {video_id!r} is not made yet; ask for it until it is completed.", "video_id"
            )
        outputs = folder.outputs
        if variant == "thumbnail":
            return Response(_thumbnail(folder), media_type="image/jpeg")
        path, kind = (outputs.video, "video/mp4") if variant == "video" else (outputs.sheet, "image/jpeg")
        try:
            there = path.stat()
        except FileNotFoundError as error:
            raise NotFoundError(f"There is no video {video_id!r}; it was deleted.", "video_id") from error
        return FileResponse(path, media_type=kind, filename=f"{video_id}{path.suffix}", stat_result=there)

    async def create_character(self, request: Request) -> Character:
        """Keep a person by the face in a photo."""
        fields, photo = await read_form(request, _CHARACTER_PHOTO)
        form = check_fields(CharacterForm, fields)
        if photo is None:
            raise InvalidFieldError(
                f"The field {_CHARACTER_PHOTO} is missing; it holds a photo of the person.", _CHARACTER_PHOTO
            )

        def keep() -> Character:
            check_upload(photo, self._service.limits)
            reading = self._served.read_face(as_photo(photo))
            return self._served.characters.add(form.name, photo, reading.num_faces)

        return await to_thread.run_sync(keep, limiter=self._one_photo)

    def character(self, character_id: str) -> Character:
        """A person."""
        return self._served.characters.find(character_id)

    def delete_character(self, character_id: str) -> Deletion:
        """Forget a person; videos that were accepted are made all the same."""
        self._served.characters.delete(character_id)
        return Deletion(id=character_id, object="character.deleted")


def _thumbnail(folder: VideoFolder) -> bytes:
    """The first frame as JPEG; it carries the video's mark, and the words of where it comes from."""
    try:
        frame = next(open_video(folder.outputs.video).frames())
    except UnreadableVideoError as error:
        raise NotFoundError(f"There is no video {folder.id!r}; it was deleted.", "video_id") from error
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=92, subsampling=0, xmp=xmp_packet())
    return content.getvalue()


def _form_schema(form: type[VideoForm] | type[CharacterForm], photo: str, required: tuple[str, ...]) -> dict[str, Any]:
    """A form with one file, for the description of the API."""
    schema = form.model_json_schema()
    properties = {**schema["properties"], photo: {"type": "string", "format": "binary"}}
    schema |= {"properties": properties, "required": [*schema.get("required", ()), *required]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
