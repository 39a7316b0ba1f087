"""OpenS2V-5M: clips with boxes and masks of what is in them, CC-BY-4.0.

Each part is one JSON object of up to 66 GB, so it is read entry by entry.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from fantasyid.core.errors import InvalidRequestError, short_reason
from fantasyid.core.optional import require
from fantasyid.data.dataset.rows import Source
from fantasyid.data.sources.listing import Listing, PublishedRow, validated

LICENCE = "OpenS2V-5M: CC-BY-4.0, of videos published by others"
_CAPTIONS = ("face_cap_glm", "face_cap_aria", "face_cap_qwen")


class Metadata(PublishedRow):
    """What is said of a clip; it has one of three captions, by the model that wrote it."""

    path: str
    face_cut: tuple[int, int]
    crop: tuple[int, int, int, int]
    """First and last column, first and last row, without borders and marks."""
    aesthetic: float
    motion: float
    tech: float
    face_cap_glm: str | None = None
    face_cap_aria: str | None = Field(default=None, alias="face_cap_Aria")
    face_cap_qwen: str | None = None


class Entry(PublishedRow):
    """A clip of a part; its boxes and masks are not taken, because every clip is measured here."""

    metadata: Metadata


def read_opens2v(folder: Path) -> Listing:
    """List the clips that are there.

    Args:
        folder: Where the parts' .json files lie; the paths in them begin there, or in its folder `videos`.

    Raises:
        InvalidRequestError: There is no part, one cannot be read, or there is no clip.
        MissingBackendError: ijson is not installed.
    """
    parts = sorted(folder.glob("*.json"))
    if not parts:
        raise InvalidRequestError(f"There is no .json file in {folder}; check the path and the format.")
    found, absent = [], 0
    for part in parts:
        for name, entry in _entries(part):
            clip = validated(Entry, entry, f"{name} of {part}").metadata
            path = next((p for p in (folder / clip.path, folder / "videos" / clip.path) if p.is_file()), None)
            if path is None:
                absent += 1
                continue
            found.append(_source(path, path.relative_to(folder).as_posix(), clip))
    return Listing.of(folder, found, absent, "the .json files")


def _entries(part: Path) -> Any:
    ijson = require("ijson", "data", "read parts of OpenS2V")
    with part.open("rb") as file:
        try:
            yield from ijson.kvitems(file, "", use_float=True)
        except ijson.JSONError as error:
            raise InvalidRequestError(f"{part} is not JSON ({short_reason(error)}); download it again.") from error


def _source(path: Path, name: str, clip: Metadata) -> Source:
    left, right, top, bottom = clip.crop
    captions = (getattr(clip, field) for field in _CAPTIONS)
    said = {"aesthetic": clip.aesthetic, "motion": clip.motion, "tech": clip.tech}
    return Source(
        path=name,
        size_bytes=path.stat().st_size,
        licence=LICENCE,
        captions=tuple(caption for caption in captions if caption),
        film=path.parent.name,
        cut=clip.face_cut,
        crop=(left, top, right, bottom),
        annotations=json.dumps(said, sort_keys=True),
    )
