"""OpenVid-1M: a million captioned clips, CC-BY-4.0.

`OpenVid-1M.csv` (or `OpenVidHD.csv`) lists them; the archives unpack to one folder `video`.
"""

import json
import re
from pathlib import Path

from pydantic import Field

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.dataset.rows import Source
from fantasyid.data.sources.listing import Listing, PublishedRow, read_published_csv, validated

LICENCE = "OpenVid-1M: CC-BY-4.0, of videos published by others"
LIST_FILES = ("OpenVid-1M.csv", "OpenVidHD.csv", "data/train/OpenVid-1M.csv", "data/train/OpenVidHD.csv")
# Clips are called FILM_FIRST_FRAMEtoLAST.mp4, or FILM_NUMBER_FIRSTtoLAST.mp4.
_PART = re.compile(r"(_\d+)?_\d+to\d+$")


class Clip(PublishedRow):
    """A row of the CSV."""

    video: str
    caption: str
    aesthetic_score: float = Field(alias="aesthetic score")
    motion_score: float = Field(alias="motion score")
    temporal_consistency: float = Field(alias="temporal consistency score")
    camera_motion: str = Field(alias="camera motion")
    fps: float


def read_openvid(folder: Path) -> Listing:
    """List the clips that are there.

    Args:
        folder: Where one of `LIST_FILES` lies, and the clips in `video`.

    Raises:
        InvalidRequestError: The list is missing or cannot be read, or there is no clip.
    """
    lists = [folder / name for name in LIST_FILES if (folder / name).is_file()]
    if not lists:
        raise InvalidRequestError(f"There is no {LIST_FILES[0]} in {folder}; check the path and the format.")
    found, absent = [], 0
    for place, entry in read_published_csv(lists[0]):
        row = validated(Clip, entry, place)
        path = folder / "video" / row.video
        if not path.is_file():
            absent += 1
            continue
        said = row.model_dump(exclude={"video", "caption"})
        found.append(
            Source(
                path=path.relative_to(folder).as_posix(),
                size_bytes=path.stat().st_size,
                licence=LICENCE,
                captions=(row.caption,),
                film=_PART.sub("", path.stem),
                annotations=json.dumps(said, sort_keys=True),
            )
        )
    return Listing.of(folder, found, absent, lists[0].name)
