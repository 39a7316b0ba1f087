"""The best and the worst videos of a run, in the form in which a page holds them."""

import base64
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.imaging import read_photo
from fantasyid.core.input_files import file_sha256
from fantasyid.core.video import open_video, write_video
from fantasyid.evaluation.run import RunItem
from fantasyid.evaluation.run_config import RunRow

_EACH = 3
_LONGEST_SIDE = 384


@dataclass(frozen=True)
class ShownVideo:
    """A video beside its photo.

    Attributes:
        row: Which.
        likeness: The number by which it was chosen; None where there is none.
        photo: Address that holds the photo itself.
        video: Address that holds the video itself.
    """

    row: RunRow
    likeness: float | None
    photo: str
    video: str


@dataclass(frozen=True)
class Extremes:
    """Of one system.

    Attributes:
        system: Its name.
        best: The best first.
        worst: The worst first; no video is among both.
    """

    system: str
    best: tuple[ShownVideo, ...]
    worst: tuple[ShownVideo, ...]


def extremes(
    rows: Sequence[RunRow], items: Sequence[RunItem], likeness: Sequence[float | None], paths: Sequence[Path]
) -> list[Extremes]:
    """Choose the best and the worst videos of each system.

    Args:
        rows: Of the run.
        items: Of the rows.
        likeness: Of the items, higher being better; None, which is worse than any number, where there is none.
        paths: Of the videos.

    Raises:
        InvalidRequestError: A video is not the one that was judged.
    """
    found = []
    for system in dict.fromkeys(row.system for row in rows):
        judged = [
            video
            for video in zip(rows, items, likeness, paths, strict=True)
            if video[0].system == system and video[1].failure is None
        ]
        ranked = sorted(judged, key=lambda video: -np.inf if video[2] is None else video[2], reverse=True)
        each = min(_EACH, -(-len(ranked) // 2))
        best, worst = (
            tuple(_shown(*video) for video in chosen) for chosen in (ranked[:each], ranked[each:][::-1][:_EACH])
        )
        found.append(Extremes(system, best, worst))
    return found


def _shown(row: RunRow, item: RunItem, likeness: float | None, path: Path) -> ShownVideo:
    if not path.is_file() or file_sha256(path) != item.video_sha256:
        raise InvalidRequestError(f"{path} is not the video that was judged; start `fantasyid evaluate run` again.")
    return ShownVideo(row, likeness, _photo_address(row.photo), _video_address(path))


def _photo_address(path: Path) -> str:
    photo = Image.fromarray(read_photo(path))
    photo.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    content = io.BytesIO()
    photo.save(content, "JPEG", quality=85)
    return _address("image/jpeg", content.getvalue())


def _video_address(path: Path) -> str:
    """The frames, no larger than a page shows them, in the form that every browser plays."""
    film = open_video(path)
    share = min(1.0, _LONGEST_SIDE / max(film.size))
    height, width = (max(2, round(share * side / 2) * 2) for side in film.size)
    frames = np.stack([np.asarray(Image.fromarray(frame).resize((width, height))) for frame in film.frames()])
    with tempfile.TemporaryDirectory() as folder:
        write_video(Path(folder) / "shown.mp4", frames, film.fps)
        return _address("video/mp4", (Path(folder) / "shown.mp4").read_bytes())


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
