"""Captions for a folder of videos, by a model that looks at some frames of each: what `fantasyid data caption` does.

What was described is kept beside the file of captions in `NAME.part`, batch by batch, so that a run that was killed
goes on. A batch has the same videos in every run, because its longest request changes the last bits of the others.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fantasyid.core.errors import InvalidRequestError, UnreadableVideoError
from fantasyid.core.output_files import check_outputs, write_file
from fantasyid.data.clips.source_video import SourceVideo

_KEY = "key"


class Describes(Protocol):
    """What `caption_model.CaptionModel` does."""

    def describe(self, videos: Sequence[Sequence[NDArray[np.uint8]]]) -> list[str]:
        """One text for each video."""


def caption(
    videos: dict[str, Path],
    out: Path,
    load: Callable[[], Describes],
    made_with: dict[str, Any],
    frames: int,
    batch: int,
    done: Callable[[int], None],
) -> dict[str, str]:
    """Describe videos that are not described yet, and write the captions once all are.

    Args:
        videos: By their paths in their folder.
        out: File to write, a line of JSON with `path` and `caption` for each video.
        load: Loads the model; is called where there is something to describe.
        made_with: What else the words depend on.
        frames: Looked at of each video, evenly spread; of a shorter one all.
        batch: Videos described at once.
        done: Is told how many are, those of earlier runs among them.

    Returns:
        Videos without a caption, and why.

    Raises:
        InvalidRequestError: There are captions already, or some of other videos, options or another model.
        FantasyIDError: The model cannot be loaded, or nothing can be written.
    """
    sizes = {name: path.stat().st_size for name, path in videos.items()}
    key = blake2b(json.dumps([made_with, frames, batch, sizes], sort_keys=True).encode(), digest_size=16).hexdigest()
    part = out.with_name(f"{out.name}.part")
    if out.exists() and not part.is_file():  # both are there where a run was killed between the last two lines
        raise InvalidRequestError(f"{out} is there already; choose another name with --out.")
    check_outputs([out], overwrite=True)
    rows = _kept(part, key, batch, len(videos))
    names = list(videos)
    if len(rows) < len(names):
        model = load()
        write_file(part, _lines([{_KEY: key}, *rows]))
        with part.open("ab") as file:
            for start in range(len(rows), len(names), batch):
                made = _describe(model, {name: videos[name] for name in names[start : start + batch]}, frames)
                file.write(_lines(made))
                file.flush()
                os.fsync(file.fileno())
                rows += made
                done(len(rows))
    told = [row for row in rows if "caption" in row]
    write_file(out, _lines(told))
    part.unlink()
    return {row["path"]: row["fault"] for row in rows if "fault" in row}


def _kept(part: Path, key: str, batch: int, most: int) -> list[dict[str, str]]:
    """What earlier runs described, to the end of their last whole batch."""
    lines = part.read_bytes().split(b"\n")[:-1] if part.is_file() else []
    first, *rows = [json.loads(line) for line in lines] or [{}]
    if rows and first.get(_KEY) != key:
        raise InvalidRequestError(
            f"{part} holds captions of other videos, options or another model; give those to go on, or remove it."
        )
    return rows if len(rows) == most else rows[: len(rows) // batch * batch]


def _describe(model: Describes, videos: dict[str, Path], frames: int) -> list[dict[str, str]]:
    """A row for each video, with a caption or with what is wrong."""
    seen: dict[str, list[NDArray[np.uint8]]] = {}
    faults: dict[str, str] = {}
    for name, path in videos.items():
        try:
            seen[name] = list(spread_frames(path, frames))
        except UnreadableVideoError as error:
            faults[name] = str(error)
    said = dict(zip(seen, model.describe(list(seen.values())) if seen else [], strict=True))
    faults |= {name: f"The model says nothing of {videos[name]}." for name, text in said.items() if not text}
    return [
        {"path": name, "fault": faults[name]} if name in faults else {"path": name, "caption": said[name]}
        for name in videos
    ]


def spread_frames(path: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    """Frames in the middles of equal parts of a video, RGB (H,W,3); all of one that has fewer.

    Raises:
        UnreadableVideoError: It is damaged or cut short.
    """
    video = SourceVideo.open(path, None)
    length = sum(1 for _ in video.frames())
    return video.chosen(sorted({(2 * number + 1) * length // (2 * count) for number in range(count)}))


def _lines(rows: Sequence[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
