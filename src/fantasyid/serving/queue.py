"""The queue of videos to be made: their ids, in order, where all workers see them.

huey's storages keep it: in SQLite beside the outputs for one machine, in Redis for several. Nothing but ids goes
through it, so who can write to it makes nobody run anything.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.optional import require
from fantasyid.serving.errors import QueueLostError

_NAME = "fantasyid"
_RETRY_AFTER_S = 10


class VideoQueue:
    """Ids of videos that wait.

    Args:
        url: `redis://HOST:PORT/DB` or `rediss://...`; None is a file.
        folder: Where that file is.

    Raises:
        InvalidRequestError: It is no address of a Redis.
        QueueLostError: Nothing answers there.
    """

    def __init__(self, url: str | None, folder: Path) -> None:
        storage = require("huey.storage", "serve", "keep a queue of videos")
        redis = require("redis", "serve", "keep a queue of videos")
        self._faults: tuple[type[Exception], ...] = (sqlite3.Error, redis.RedisError)
        self.blocks = url is not None
        """Whether `take` waits a second for an id."""
        if url is None:
            self._place = str(folder / "queue.sqlite")
            with self._our_errors():
                self._ids: Any = storage.SqliteStorage(_NAME, filename=self._place, strict_fifo=True, fsync=True)
        else:
            parts = urlsplit(url)
            if parts.scheme not in ("redis", "rediss") or not parts.hostname:
                raise InvalidRequestError(
                    f"--queue is {url!r}; it must be the address of a Redis, redis://HOST:6379/0."
                )
            self._place = f"{parts.scheme}://{parts.hostname}"  # without the password
            self._ids = storage.RedisStorage(_NAME, url=url)
        self.waiting()

    def put(self, video_id: str) -> None:
        """Append an id."""
        with self._our_errors():
            self._ids.enqueue(video_id.encode())

    def take(self) -> str | None:
        """Take the first id; None if there is none."""
        with self._our_errors():
            first = self._ids.dequeue()
        return None if first is None else bytes(first).decode(errors="replace")

    def waiting(self) -> list[str]:
        """All ids, the next one first."""
        with self._our_errors():
            return [bytes(item).decode(errors="replace") for item in self._ids.enqueued_items()]

    def __len__(self) -> int:
        with self._our_errors():
            return int(self._ids.queue_size())

    def replace(self, video_ids: list[str]) -> None:
        """Have it hold other ids, in their order."""
        with self._our_errors():
            self._ids.flush_queue()
            for video_id in video_ids:
                self._ids.enqueue(video_id.encode())

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        try:
            yield
        except self._faults as error:
            raise QueueLostError(
                f"The queue {self._place} cannot be used ({error}); start it, or see who else holds it.",
                retry_after_s=_RETRY_AFTER_S,
            ) from error
