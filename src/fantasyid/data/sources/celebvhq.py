"""CelebV-HQ: 35,666 clips of talking heads, for non-commercial research only.

`celebvhq_info.json` lists them; its own script downloads the videos, cuts each clip by time and box, and writes
`CLIP.mp4`. So the clips are the files, and neither time nor box is applied again.
"""

import json
from pathlib import Path
from typing import Any

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.dataset.rows import Source
from fantasyid.data.sources.listing import Listing, PublishedRow, read_published_json, validated

LICENCE = "CelebV-HQ: non-commercial research only"
LIST_FILE = "celebvhq_info.json"
CLIP_FOLDERS = ("processed", "35666", "videos", ".")
"""Where the clips lie: as the script writes them, or as copies of the set hold them."""


class Clip(PublishedRow):
    """An entry of `clips`."""

    ytb_id: str
    attributes: dict[str, Any]


class Meta(PublishedRow):
    """What the numbers of the attributes mean."""

    appearance_mapping: tuple[str, ...]
    action_mapping: tuple[str, ...]


class Info(PublishedRow):
    """The whole file."""

    meta_info: Meta
    clips: dict[str, Clip]


def read_celebvhq(folder: Path) -> Listing:
    """List the clips that are there.

    Args:
        folder: Where `celebvhq_info.json` lies, and one of `CLIP_FOLDERS` with `CLIP.mp4` files.

    Raises:
        InvalidRequestError: The list is missing or cannot be read, or there is no clip.
    """
    info = validated(Info, read_published_json(folder / LIST_FILE), str(folder / LIST_FILE))
    found, absent = [], 0
    for name, clip in info.clips.items():
        path = next((p for p in (folder / place / f"{name}.mp4" for place in CLIP_FOLDERS) if p.is_file()), None)
        if path is None:
            absent += 1
            continue
        said = {kind: _names(kind, clip, info.meta_info, name) for kind in ("appearance", "action")}
        found.append(
            Source(
                path=path.relative_to(folder).as_posix(),
                size_bytes=path.stat().st_size,
                licence=LICENCE,
                film=clip.ytb_id,
                annotations=json.dumps(said, sort_keys=True),
            )
        )
    return Listing.of(folder, found, absent, LIST_FILE)


def _names(kind: str, clip: Clip, meta: Meta, name: str) -> list[str]:
    """Attributes that are said to hold, by name."""
    names: tuple[str, ...] = getattr(meta, f"{kind}_mapping")
    flags = clip.attributes.get(kind)
    if not isinstance(flags, list) or len(flags) != len(names):
        raise InvalidRequestError(
            f"The clip {name} of {LIST_FILE} has no {kind} attributes of {len(names)} numbers; give the list as it was "
            "published."
        )
    return [attribute for attribute, flag in zip(names, flags, strict=True) if flag == 1]
