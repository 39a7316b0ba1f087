"""A plain folder of videos, captions beside them or in one file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fantasyid.core.errors import InvalidRequestError, short_reason
from fantasyid.core.input_files import check_input_file
from fantasyid.data.dataset.rows import Source
from fantasyid.data.sources.listing import Listing, PublishedRow, read_published_csv, validated

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


class CaptionRow(PublishedRow):
    """A row of a file of captions."""

    path: str
    """Of the video, in its folder."""
    caption: str


def read_folder(folder: Path, licence: str, captions: Path | None = None) -> Listing:
    """List all videos in a folder and the folders in it.

    Args:
        folder: With videos that end in one of `VIDEO_SUFFIXES`; `NAME.txt` beside `NAME.mp4` is its caption.
        licence: Of all of them.
        captions: A .jsonl or .csv file with `path` and `caption`, instead of captions beside the videos.

    Raises:
        InvalidRequestError: There is no video, or the captions name one that is not there.
    """
    paths = videos_in(folder)
    said = None if captions is None else _read_captions(captions, set(paths))
    found = [
        Source(
            path=name,
            size_bytes=path.stat().st_size,
            licence=licence,
            captions=_beside(path) if said is None else said.get(name, ()),
            film=name,
        )
        for name, path in paths.items()
    ]
    return Listing.of(folder, found, 0, str(folder))


def videos_in(folder: Path) -> dict[str, Path]:
    """The videos in a folder and the folders in it, by their paths in it, sorted.

    Raises:
        InvalidRequestError: There is none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    if not paths:
        raise InvalidRequestError(
            f"There is no video in {folder} (no file that ends in {', '.join(VIDEO_SUFFIXES)}); check the path."
        )
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _beside(path: Path) -> tuple[str, ...]:
    text = path.with_suffix(".txt")
    if not text.is_file():
        return ()
    try:
        caption = " ".join(text.read_text(encoding="utf-8").split())
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"The caption {text} is not UTF-8; write it again.") from error
    return (caption,) if caption else ()


def _read_captions(path: Path, names: set[str]) -> dict[str, tuple[str, ...]]:
    check_input_file(path, "captions")
    rows = read_published_csv(path) if path.suffix.lower() == ".csv" else _read_lines(path)
    said: dict[str, tuple[str, ...]] = {}
    for place, entry in rows:
        row = validated(CaptionRow, entry, place)
        if row.path not in names:
            raise InvalidRequestError(f"{place} has a caption of {row.path}, which is no video of the folder; mend it.")
        said[row.path] = (*said.get(row.path, ()), row.caption)
    return said


def _read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield f"Line {number} of {path}", json.loads(line)
            except ValueError as error:
                raise InvalidRequestError(
                    f"Line {number} of {path} is not JSON ({short_reason(error)}); mend it."
                ) from error
