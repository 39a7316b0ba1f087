"""The server of a study: blind pages of videos side by side, whose scores go to the file of ratings."""

import secrets
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from socket import AF_INET, AF_INET6, create_server
from typing import Annotated
from urllib.parse import parse_qsl

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint

from fantasyid.core.errors import InvalidRequestError
from fantasyid.study import pages
from fantasyid.study.plan import HIGHEST, PHOTO_TYPES, QUESTIONS, VIDEO_TYPES, Page
from fantasyid.study.store import RatingStore

_MAX_FORM_BYTES = 2**16
_SCORES = {str(score): score for score in range(HIGHEST + 1)}
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'",
    "Referrer-Policy": "no-referrer",  # addresses hold the rater's id
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def make_app(store: RatingStore, folder: Path) -> FastAPI:
    """Make the pages of a study.

    Args:
        store: Where the ratings go; it says what is rated.
        folder: Of the study, see `read_plan`.
    """
    app = FastAPI(openapi_url=None)
    style = (files("fantasyid.study") / "style.css").read_text(encoding="utf-8")

    @app.middleware("http")
    async def add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(HTTPException)
    def tell_fault(_: Request, fault: HTTPException) -> HTMLResponse:
        return HTMLResponse(pages.fault_page(store.plan, fault.detail), fault.status_code)

    @app.get("/style.css")
    def send_style() -> Response:
        return Response(style, media_type="text/css")

    app.include_router(_pages_of_raters(store))
    app.include_router(_files_of_pages(store, folder))
    return app


def _pages_of_raters(store: RatingStore) -> APIRouter:
    """The way of a rater: the start, page after page, the end."""
    router, plan = APIRouter(), store.plan
    items = {item.name: item for item in plan.items}

    @router.get("/")
    def start() -> HTMLResponse:
        return HTMLResponse(pages.start_page(plan, secrets.token_hex(16)))

    @router.post("/raters")
    def begin(form: Annotated[dict[str, str], Depends(_read_form)]) -> RedirectResponse:
        rater = form.get("rater", "")
        if len(rater) != 32 or set(rater) - set("0123456789abcdef"):
            raise HTTPException(400, "This did not come from the start page; begin there.")
        store.add_rater(rater)
        return RedirectResponse(f"/raters/{rater}", 303)

    @router.get("/raters/{rater}")
    def go_on(rater: str) -> Response:
        drawn, answered = _pages(store, rater), store.answered(rater)
        for number, page in enumerate(drawn):
            if page.item not in answered:
                return RedirectResponse(f"/raters/{rater}/{number}", 303)
        return HTMLResponse(pages.end_page(plan))

    @router.get("/raters/{rater}/{number:int}")
    def show(rater: str, number: int) -> Response:
        item = _page(store, rater, number).item
        if item in store.answered(rater):
            return RedirectResponse(f"/raters/{rater}", 303)
        return HTMLResponse(pages.rating_page(plan, rater, number, items[item]))

    @router.post("/raters/{rater}/{number:int}")
    def answer(rater: str, number: int, form: Annotated[dict[str, str], Depends(_read_form)]) -> Response:
        page = _page(store, rater, number)
        fields = {
            (system, question): form.get(pages.field_name(place, question), "")
            for place, system in enumerate(page.systems)
            for question in QUESTIONS
        }
        if set(fields.values()) - set(_SCORES):
            return HTMLResponse(pages.rating_page(plan, rater, number, items[page.item], form), 422)
        store.add_answer(rater, page.item, {key: _SCORES[value] for key, value in fields.items()})
        return RedirectResponse(f"/raters/{rater}", 303)

    return router


def _files_of_pages(store: RatingStore, folder: Path) -> APIRouter:
    """Photos and videos, at addresses that say where on whose page they are and not what made them."""
    router = APIRouter()

    @router.get("/raters/{rater}/{number:int}/photo")
    def send_photo(rater: str, number: int) -> FileResponse:
        path = folder / store.plan.reference(_page(store, rater, number).item)
        return FileResponse(path, media_type=PHOTO_TYPES[path.suffix.lower()])

    @router.get("/raters/{rater}/{number:int}/{place:int}")
    def send_video(rater: str, number: int, place: int) -> FileResponse:
        page = _page(store, rater, number)
        if place >= len(page.systems):
            raise HTTPException(404, f"There are {len(page.systems)} videos, and not so many; begin at the start.")
        path = folder / store.plan.video(page.item, page.systems[place])
        # Browsers ask for a video in parts, over and over while it plays.
        headers = {"Cache-Control": "private, max-age=3600"}
        return FileResponse(path, media_type=VIDEO_TYPES[path.suffix], headers=headers)

    return router


def _pages(store: RatingStore, rater: str) -> tuple[Page, ...]:
    drawn = store.pages(rater)
    if drawn is None:
        raise HTTPException(404, "Nobody has begun under this address; begin at the start.")
    return drawn


def _page(store: RatingStore, rater: str, number: int) -> Page:
    drawn = _pages(store, rater)
    if number >= len(drawn):
        raise HTTPException(404, f"There are {len(drawn)} pages, and not so many; begin at the start.")
    return drawn[number]


async def _read_form(request: Request) -> dict[str, str]:
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _MAX_FORM_BYTES:
            raise HTTPException(413, "This is more than a page of scores; begin at the start.")
    return dict(parse_qsl(content.decode("utf-8", "replace")))


def serve(store: RatingStore, folder: Path, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve a study until the process is told to end.

    Args:
        store: Where the ratings go.
        folder: Of the study.
        host: Address to listen at; `0.0.0.0` is everywhere.
        port: Of it; 0 takes a free one.
        tell: Called with the study's address as soon as browsers may ask for it.

    Raises:
        InvalidRequestError: The address cannot be listened at.
    """
    is_ipv6 = ":" in host
    try:
        socket = create_server((host, port), family=AF_INET6 if is_ipv6 else AF_INET)
    except OSError as error:
        raise InvalidRequestError(
            f"Nobody can be served at {host} port {port} ({error.strerror}); choose another --port or --host."
        ) from error
    # No log of requests: addresses of the network say who rated, and paths hold the raters' ids.
    server = uvicorn.Server(uvicorn.Config(make_app(store, folder), log_level="warning"))
    with socket:
        tell(f"http://{f'[{host}]' if is_ipv6 else host}:{socket.getsockname()[1]}/")
        server.run(sockets=[socket])
