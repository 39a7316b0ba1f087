"""What a client of the server can do wrong, or meet, each with its HTTP status."""

import re
from http import HTTPStatus

from fantasyid.core.errors import FantasyIDError


class ApiError(FantasyIDError):
    """A request that cannot be met; each kind is a class of its own.

    Args:
        message: One sentence.
        param: Name of the field at fault.
        retry_after_s: When to ask again; None where that would not help.
    """

    status = HTTPStatus.BAD_REQUEST

    def __init__(self, message: str, param: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidFieldError(ApiError):
    """A field is not what it should be."""


class WrongKeyError(ApiError):
    """There is no API key, or another."""

    status = HTTPStatus.UNAUTHORIZED


class OtherSiteError(ApiError):
    """A browser asks in the name of another site."""

    status = HTTPStatus.FORBIDDEN


class NotFoundError(ApiError):
    """There is nothing of that id, or not yet."""

    status = HTTPStatus.NOT_FOUND


class TooLargeError(ApiError):
    """An upload is larger than the server takes."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class WrongMediaError(ApiError):
    """The body is of a type that the server does not read."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class QueueFullError(ApiError):
    """As many videos wait as may."""

    status = HTTPStatus.TOO_MANY_REQUESTS


class StorageError(ApiError):
    """The disk does not take what was sent."""

    status = HTTPStatus.INSUFFICIENT_STORAGE


class QueueLostError(ApiError):
    """The queue cannot be reached."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class WorkerLostError(ApiError):
    """Nobody makes videos any more."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


def error_code(error: FantasyIDError) -> str:
    """What programs tell an error by: its class as `no_face`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()
