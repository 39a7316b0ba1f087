"""What a page is opened with: chosen by whoever starts it, and the same for all its visitors."""

from dataclasses import dataclass
from pathlib import Path

from fantasyid.core.credentials import SigningKey
from fantasyid.generation.request import ModelRequest


@dataclass(frozen=True)
class PageSettings:
    """How a page works.

    Attributes:
        folder: Where videos, their records and their photos are kept; it must exist.
        model: What makes the videos.
        guidance_interval: Share of the steps that are guided until a visitor says otherwise.
        shows_all: Whether the gallery shows all of the folder, or each visitor the videos of this visit alone.
        signing_key: Puts credentials signed with it into the videos; None leaves them out.
        keep_hours: How long a video is kept, if whoever mounts the page calls `Shelf.expire`; None is until deleted.
    """

    folder: Path
    model: ModelRequest
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    shows_all: bool = True
    signing_key: SigningKey | None = None
    keep_hours: int | None = None
