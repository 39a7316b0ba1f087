"""The progress bar."""

from collections.abc import Callable
from typing import Any

_hook: Callable[..., None] | None = None


def set_progress_bar_global_hook(function: Callable[..., None] | None) -> None:
    """Who is told of all progress bars: `function(value, total, preview, node_id=...)`."""
    global _hook
    _hook = function


class ProgressBar:
    """Progress of the node that is being executed."""

    def __init__(self, total: int, node_id: str | None = None) -> None:
        self.total, self._node_id = total, node_id

    def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
        """So much is done; `preview` is a format, a picture and its largest side or None."""
        self.total = total or self.total
        if _hook is not None:
            _hook(min(value, self.total), self.total, preview, node_id=self._node_id)
