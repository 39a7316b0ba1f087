"""Warnings, told to the visitor whose work they arise in, although several work at once in one program."""

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fantasyid.core.errors import FantasyIDWarning

Tell = Callable[[str], None]


class Notices:
    """Hears our warnings, and what the package logs as one, in the threads that ask for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[int, Tell] = {}
        self._before = warnings.catch_warnings()
        self._show: Callable[..., Any] = warnings.showwarning

    @contextmanager
    def told(self, tell: Tell) -> Iterator[None]:
        """Tell what is warned of in this thread, as long as this lasts.

        Args:
            tell: Called with each sentence.
        """
        thread, handler = threading.get_ident(), _ThreadHandler(tell)
        logging.getLogger("fantasyid").addHandler(handler)
        with self._lock:
            if not self._listeners:
                self._start()
            self._listeners[thread] = tell
        try:
            yield
        finally:
            with self._lock:
                del self._listeners[thread]
                if not self._listeners:
                    self._before.__exit__(None, None, None)
            logging.getLogger("fantasyid").removeHandler(handler)

    def _start(self) -> None:
        self._before = warnings.catch_warnings()
        self._before.__enter__()
        warnings.simplefilter("always", FantasyIDWarning)
        self._show = warnings.showwarning
        warnings.showwarning = self._route

    def _route(self, message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        tell = self._listeners.get(threading.get_ident())
        if tell is not None and issubclass(category, FantasyIDWarning):
            tell(str(message))
        else:
            self._show(message, category, *rest, **more)


class _ThreadHandler(logging.Handler):
    """Tells what is logged in the thread that made it."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.WARNING)
        self._tell, self._thread = tell, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._tell(record.getMessage())
