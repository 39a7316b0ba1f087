"""The portraits that measures of the face reader are taken on: of people that nothing was trained on."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.id_files import read_ids


@dataclass(frozen=True)
class Portrait:
    """A photo of a held-out person.

    Attributes:
        name: Such as `p0001_a`.
        person: Such as `p0001`.
        file: Relative to the photo folder.
        sex: As the manifest has it.
        face_box: xyxy pixels, of the landmarks.
    """

    name: str
    person: str
    file: str
    sex: str
    face_box: tuple[float, float, float, float]


def read_portraits(manifest: Path, also: Path) -> tuple[tuple[Portrait, ...], tuple[Portrait, ...]]:
    """All photos of the held-out people, and those of the other people with two photos.

    Args:
        manifest: CSV with the columns id, person, file, sex, split and face_x0, face_y0, face_x1, face_y1.
        also: File of person ids, one a line, `#` before comments: held out beside the split `val`.

    Returns:
        Held-out photos and the others', in the manifest's order.

    Raises:
        InvalidRequestError: A file or a column is missing, or a person of `also` is not in the manifest.
    """
    for path in (manifest, also):
        if not path.is_file():
            raise InvalidRequestError(f"There is no file {path}; check the path.")
    listed = read_ids(also)
    with manifest.open(newline="", encoding="utf-8") as file:
        try:
            rows = [(_portrait(row), row["split"]) for row in csv.DictReader(file)]
        except KeyError as error:
            raise InvalidRequestError(f"The manifest {manifest} has no column {error}.") from error
    held_out = tuple(portrait for portrait, split in rows if split == "val" or portrait.person in listed)
    people = {portrait.person for portrait in held_out}
    if missing := listed - people:
        raise InvalidRequestError(f"{manifest} lacks {len(missing)} people of {also}, such as {min(missing)}.")
    count = Counter(portrait.person for portrait, _ in rows)
    others = (portrait for portrait, _ in rows if portrait.person not in people and count[portrait.person] == 2)
    return held_out, tuple(others)


def of_first_people(portraits: tuple[Portrait, ...], count: int | None) -> tuple[Portrait, ...]:
    """The photos of the first `count` people by name; of all if that is None."""
    chosen = sorted({portrait.person for portrait in portraits})[:count]
    return tuple(portrait for portrait in portraits if portrait.person in chosen)


def _portrait(row: dict[str, str]) -> Portrait:
    x0, y0, x1, y1 = (float(row[f"face_{edge}"]) for edge in ("x0", "y0", "x1", "y1"))
    return Portrait(row["id"], row["person"], row["file"], row["sex"], (x0, y0, x1, y1))
