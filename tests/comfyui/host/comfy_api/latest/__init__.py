"""Its newest version."""

from abc import ABC, abstractmethod
from io import BytesIO
from types import SimpleNamespace
from typing import Any

from . import io


class ComfyExtension(ABC):
    """What a folder of custom nodes gives ComfyUI."""

    async def on_load(self) -> None:  # noqa: B027 - a node need not have it
        """Called once, before the nodes are asked for."""

    @abstractmethod
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes."""


class _VideoFromFile:
    def __init__(self, file: str | BytesIO) -> None:
        self._file = file

    def get_stream_source(self) -> str | BytesIO:
        """The file, from its start."""
        if isinstance(self._file, BytesIO):
            self._file.seek(0)
        return self._file


class _PreviewImage:
    def __init__(self, image: Any, animated: bool = False, cls: type[io.ComfyNode] | None = None) -> None:
        self.image = image


InputImpl = SimpleNamespace(VideoFromFile=_VideoFromFile)
ui = SimpleNamespace(PreviewImage=_PreviewImage)
