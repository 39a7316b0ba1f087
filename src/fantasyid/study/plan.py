"""What a user study shows: systems that made the same items, and which pages of them a rater gets."""

import csv
import hashlib
from collections.abc import Mapping
from pathlib import Path
from secrets import SystemRandom

from pydantic import BaseModel, ConfigDict

from fantasyid.core.errors import InvalidRequestError

VIDEO_TYPES: Mapping[str, str] = {".mp4": "video/mp4", ".webm": "video/webm"}
PHOTO_TYPES: Mapping[str, str] = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
QUESTIONS: Mapping[str, tuple[str, str]] = {
    "OQ": ("Overall quality", "How good is the video as a whole?"),
    "F-Sim": ("Face similarity", "How much does the face look like the person of the photo?"),
    "F-Str": ("Facial structure", "How well do the shape and the proportions of the face keep to the photo?"),
    "FD": ("Facial dynamics", "How natural and lively does the face move?"),
}
"""Those of the paper's Table 1, by its names."""
HIGHEST = 10
"""Scores are whole numbers from 0, the worst, to this."""
_TABLE = "items.csv"
_MOST_SYSTEMS = 8  # more cannot be compared side by side


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Item(_Value):
    """What every system was asked for."""

    name: str
    """Of its videos: `SYSTEM/NAME.mp4` or `.webm`."""
    reference: str
    """The person's photo, relative to the study's folder."""
    prompt: str


class Page(_Value):
    """One page of one rater."""

    item: str
    systems: tuple[str, ...]
    """From left to right; the rater is not told."""


class StudyPlan(_Value):
    """What is rated, by whom how much; fixed when the first rater begins."""

    items: tuple[Item, ...]
    systems: tuple[str, ...]
    pages_per_rater: int
    simulated: bool
    """Whether the raters are programs, which is said wherever their ratings are."""
    sha256: dict[str, str]
    """Of every file that is shown, by its path relative to the folder."""

    def video(self, item: str, system: str) -> str:
        """Path of a video, relative to the folder."""
        return next(path for suffix in VIDEO_TYPES if (path := f"{system}/{item}{suffix}") in self.sha256)

    def reference(self, item: str) -> str:
        """Path of an item's photo, relative to the folder."""
        return next(each.reference for each in self.items if each.name == item)

    def draw_pages(self, seen: Mapping[str, int]) -> tuple[Page, ...]:
        """Draw a rater's pages: the items that fewest raters have got, in random order, and so the systems of each.

        Args:
            seen: How many raters have got an item, by name; those that none has may be missing.
        """
        chance = SystemRandom()
        names = chance.sample([item.name for item in self.items], len(self.items))
        names = sorted(names, key=lambda name: seen.get(name, 0))[: self.pages_per_rater]
        chance.shuffle(names)
        return tuple(Page(item=name, systems=tuple(chance.sample(self.systems, len(self.systems)))) for name in names)


def read_plan(folder: Path, pages_per_rater: int | None = None, simulated: bool = False) -> StudyPlan:
    """Read what is in a study's folder.

    Args:
        folder: Holds `items.csv` (columns item, reference, prompt), the photos that it names, and a folder for each
            system with one video for each item, `ITEM.mp4` or `ITEM.webm`.
        pages_per_rater: Items that a rater sees; None is all.
        simulated: Whether programs will rate.

    Raises:
        InvalidRequestError: A file is missing, or there are not two systems.
    """
    items = _read_items(folder / _TABLE)
    if pages_per_rater is not None and not 1 <= pages_per_rater <= len(items):
        raise InvalidRequestError(
            f"--pages is {pages_per_rater}, and there are {len(items)} items; give 1 to {len(items)}."
        )
    systems = sorted(
        place.name
        for place in folder.iterdir()
        if place.is_dir() and any(file.suffix in VIDEO_TYPES for file in place.iterdir())
    )
    if not 2 <= len(systems) <= _MOST_SYSTEMS:
        raise InvalidRequestError(
            f"{folder} has {len(systems)} folders with videos, and a study compares 2 to {_MOST_SYSTEMS} systems; make "
            "one folder for each."
        )
    shown = [item.reference for item in items]
    for system in systems:
        for item in items:
            found = [path for suffix in VIDEO_TYPES if (folder / (path := f"{system}/{item.name}{suffix}")).is_file()]
            if len(found) != 1:
                raise InvalidRequestError(
                    f"{folder / system} has {len(found)} videos of the item {item.name}, and every system needs one, "
                    f"{item.name}.mp4 or {item.name}.webm."
                )
            shown += found
    for path in shown:
        if not (folder / path).is_file():
            raise InvalidRequestError(f"There is no file {folder / path}, which {folder / _TABLE} names; check it.")
    return StudyPlan(
        items=items,
        systems=tuple(systems),
        pages_per_rater=len(items) if pages_per_rater is None else pages_per_rater,
        simulated=simulated,
        sha256={path: hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in sorted(set(shown))},
    )


def _read_items(table: Path) -> tuple[Item, ...]:
    if not table.is_file():
        raise InvalidRequestError(f"There is no file {table}; write it, with the columns item, reference and prompt.")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := {"item", "reference", "prompt"} - set(reader.fieldnames or ()):
                raise InvalidRequestError(f"{table} has no column {min(missing)!r}; add it.")
            items = tuple(
                Item(name=row["item"] or "", reference=row["reference"] or "", prompt=row["prompt"] or "")
                for row in reader
            )
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequestError(f"{table} is not a CSV ({error}); write it anew.") from error
    names = [item.name for item in items]
    if not items or len(set(names)) < len(names):
        raise InvalidRequestError(f"{table} has {len(names)} items of {len(set(names))} names; give each its own row.")
    for item in items:
        if not item.name or "/" in item.name or "\\" in item.name:
            raise InvalidRequestError(f"{table} has an item named {item.name!r}; give it the name of its videos.")
        if Path(item.reference).suffix.lower() not in PHOTO_TYPES:
            raise InvalidRequestError(
                f"The reference of {item.name} in {table} is {item.reference!r}; name a photo that browsers show, "
                f"{', '.join(PHOTO_TYPES)}."
            )
    return items
