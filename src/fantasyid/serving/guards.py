"""What stands before every request: its size, where it comes from, the API key, and the one shape of all errors."""

import hmac
import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fantasyid.core.errors import FantasyIDError
from fantasyid.serving.errors import (
    ApiError,
    OtherSiteError,
    QueueLostError,
    TooLargeError,
    WrongKeyError,
    error_code,
)

logger = logging.getLogger(__name__)

_OWN_SITE = ("same-origin", "none")
"""What browsers say of a page of this server, and of who typed an address."""
_MOST_DISCARDED = 20
"""Times what is allowed."""


class LimitBody:
    """Keeps no more of a body than is allowed.

    Args:
        app: What is behind.
        below: Of which paths: what is mounted beside them has limits of its own.
        max_bytes: Of a body.
    """

    def __init__(self, app: ASGIApp, below: str, max_bytes: int) -> None:
        self._app = app
        self._below = below
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read <= self._max_bytes:
                return message
            # Who is still sending does not hear an answer: so the rest is read and thrown away, unless it has no end.
            while message.get("more_body") and read <= _MOST_DISCARDED * self._max_bytes:
                message = await receive()
                read += len(message.get("body", b""))
            raise TooLargeError(f"The request has more than {self._max_bytes / 1e6:.0f} MB; send less.")

        counts = scope["type"] == "http" and scope["path"].startswith(self._below)
        await self._app(scope, limited if counts else receive, send)


class KeyCheck:
    """Lets in who has a key.

    Args:
        keys: Any of them does; none needs none.
    """

    def __init__(self, keys: frozenset[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def __call__(self, request: Request) -> None:
        """Refuse a request without a key.

        Raises:
            WrongKeyError: There is none, or another.
        """
        if not self._keys:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        known = self.knows(given.encode("latin-1"))  # as it came: so Starlette decodes headers
        if kind.lower() != "bearer" or not known:
            raise WrongKeyError("There is no valid API key; send one as `Authorization: Bearer KEY`.")

    def knows(self, given: bytes) -> bool:
        """Whether something is a key; how long it takes tells nothing."""
        matches = [hmac.compare_digest(given, key) for key in self._keys]  # all of them, whichever it is
        return any(matches)


def refuse_other_sites(request: Request) -> None:
    """Refuse what a browser sends because a page of another site told it to; programs send no such header.

    Raises:
        OtherSiteError: It is such a request.
    """
    if request.headers.get("sec-fetch-site", "none") not in _OWN_SITE:
        raise OtherSiteError("A page of another site cannot ask this server; have that site's own server ask.")


def answer_errors(app: FastAPI) -> None:
    """Have every error answered in the shape that the official client reads."""

    @app.exception_handler(FantasyIDError)
    def ours(_: Request, error: FantasyIDError) -> JSONResponse:
        status = error.status if isinstance(error, ApiError) else HTTPStatus.BAD_REQUEST
        param = error.param if isinstance(error, ApiError) else None
        retry_after_s = error.retry_after_s if isinstance(error, ApiError) else None
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        return _answer(status, str(error), error_code(error), param, headers)

    @app.exception_handler(QueueLostError)
    def queue_lost(request: Request, error: QueueLostError) -> JSONResponse:
        logger.error("%s", error)  # where the queue lies is not for clients
        said = "The queue of this server cannot be used now; its log says why; try again later."
        return ours(request, QueueLostError(said, retry_after_s=error.retry_after_s))

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        param = str(first["loc"][-1])
        return _answer(HTTPStatus.BAD_REQUEST, f"{param}: {first['msg']}.", "invalid_request", param, {})

    @app.exception_handler(HTTPException)
    def by_status(_: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        return _answer(error.status_code, str(error.detail), code, None, dict(error.headers or {}))

    @app.exception_handler(Exception)
    def own_fault(_: Request, error: Exception) -> JSONResponse:
        # It is logged with its traceback all the same.
        said = f"Something went wrong inside fantasyid ({type(error).__name__}); the server's log says more."
        return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, said, "internal", None, {})


def _answer(status: int, message: str, code: str, param: str | None, headers: dict[str, str]) -> JSONResponse:
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    content = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(content, status, headers)
