"""ConsisID-Data: the set that ConsisID was trained on (54,239 videos, Apache-2.0).

`total_train_data.txt` has a line `videos_dir,captions.json,annotation_dir` for each of its parts. The boxes, poses and
masks in the annotation folders are not taken: every clip is measured here, by the same means.
"""

import json
import re
from pathlib import Path

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.dataset.rows import Source
from fantasyid.data.sources.listing import Listing, PublishedRow, read_published_json, validated

LICENCE = "ConsisID-Data: Apache-2.0, of videos published by others"
LIST_FILE = "total_train_data.txt"
_PART = re.compile(r"_\d+_\d+$")


class Resolution(PublishedRow):
    """Size of a video in pixels."""

    height: int
    width: int


class CaptionedVideo(PublishedRow):
    """An entry of a captions file."""

    path: str
    cap: str | tuple[str, ...]
    resolution: Resolution
    fps: float
    duration: float


def read_consisid(folder: Path) -> Listing:
    """List the videos that are there.

    Args:
        folder: Where `total_train_data.txt` lies; paths in it that are not absolute begin there.

    Raises:
        InvalidRequestError: A list is missing or cannot be read.
    """
    try:
        lines = (folder / LIST_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"There is no {folder / LIST_FILE}; check the path and the format.") from error
    found, absent = [], 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 3:
            raise InvalidRequestError(
                f"Line {number} of {folder / LIST_FILE} is {line!r}; it must be videos, captions and annotations, "
                "with commas between them."
            )
        videos, captions = folder / parts[0], folder / parts[1]
        if not videos.resolve().is_relative_to(folder.resolve()):
            raise InvalidRequestError(f"The videos {videos} do not lie in {folder}; move them there.")
        for place, entry in enumerate(read_published_json(captions)):
            row = validated(CaptionedVideo, entry, f"Entry {place} of {captions}")
            path = videos / row.path
            if not path.is_file():
                absent += 1
                continue
            found.append(_source(path, path.relative_to(folder).as_posix(), row))
    return Listing.of(folder, found, absent, LIST_FILE)


def _source(path: Path, name: str, row: CaptionedVideo) -> Source:
    said = {"height": row.resolution.height, "width": row.resolution.width, "fps": row.fps, "duration_s": row.duration}
    return Source(
        path=name,
        size_bytes=path.stat().st_size,
        licence=LICENCE,
        captions=(row.cap,) if isinstance(row.cap, str) else row.cap,
        # Its scripts cut a video to parts called NAME_FIRST_LAST.mp4, by frame.
        film=_PART.sub("", path.stem),
        annotations=json.dumps(said, sort_keys=True),
    )
