"""The portraits that the project is built and measured on: one row of a manifest for each photo.

A manifest is a CSV with the columns id, person, file and split, and with sex, age_decade, tier, source, yaw_deg and
face_x0, face_y0, face_x1, face_y1 where something asks for them; further columns are passed over. Beside it may lie
`landmarks.npz`: `ids` (P,) and `landmarks` (P, 478, 3), pixels of the photos.
"""

import csv
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.id_files import read_ids
from fantasyid.core.npz_files import ArchiveError, read_npz

SEX_CODES = {"": 0, "female": 1, "male": 2}
"""Sex as files of rigs and `data.captions` number it."""
FACE_BOX = ("face_x0", "face_y0", "face_x1", "face_y1")
"""The columns of `Portrait.face_box`, for `needs`."""
_REQUIRED = ("id", "person", "file", "split")
_NUM_LANDMARKS = 478


class Portrait(BaseModel):
    """One photo of a person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """Such as `p0001_a`."""
    person: str
    """Such as `p0001`."""
    file: str
    """Relative to the photo folder."""
    split: str
    """Such as `train`; people of `val` are never trained on."""
    sex: Literal["", "female", "male"] = ""
    age_decade: int | None = None
    """40 for forty to forty-nine."""
    tier: str = ""
    """1 for sharp ones."""
    source: str = ""
    yaw_deg: float | None = None
    face_x0: float | None = None
    """Edges of the face: those of the landmarks, xyxy pixels."""
    face_y0: float | None = None
    face_x1: float | None = None
    face_y1: float | None = None

    @property
    def face_box(self) -> tuple[float, float, float, float]:
        """xyxy pixels; the manifest must have been read with `needs=FACE_BOX`."""
        x0, y0, x1, y1 = self.face_x0, self.face_y0, self.face_x1, self.face_y1
        assert x0 is not None and y0 is not None and x1 is not None and y1 is not None, "needs=FACE_BOX"  # noqa: PT018
        return x0, y0, x1, y1


def read_portraits(manifest: Path, needs: Collection[str] = ()) -> tuple[Portrait, ...]:
    """Read all rows of a manifest.

    Args:
        manifest: The CSV.
        needs: Columns, beside id, person, file and split, that must be there; numbers among them may not be blank.

    Returns:
        In the manifest's order.

    Raises:
        InvalidRequestError: There is no such file, a column is missing, or a row has a value that cannot be.
    """
    if not manifest.is_file():
        raise InvalidRequestError(f"There is no manifest at {manifest}; check the path.")
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or ()
            for column in (*_REQUIRED, *needs):
                if column not in names:
                    raise InvalidRequestError(f"The manifest {manifest} has no column {column!r}; add it.")
            return tuple(_portrait(manifest, reader.line_num, row, needs) for row in reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequestError(f"{manifest} is not a CSV ({error}); give the manifest of the portraits.") from error


def _portrait(manifest: Path, line: int, row: dict[str, str], needs: Collection[str]) -> Portrait:
    """One row; blanks become the fields' defaults, None where a number is not known."""
    try:
        portrait = Portrait.model_validate({name: row[name] for name in Portrait.model_fields if row.get(name)})
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRequestError(
            f"Line {line} of {manifest} has no {first['loc'][0]} that can be read "
            f"({row.get(str(first['loc'][0]))!r}: {first['msg']}); mend the row or take it out."
        ) from error
    for column in needs:
        if column != "age_decade" and getattr(portrait, column) is None:
            raise InvalidRequestError(f"Line {line} of {manifest} has no {column}; fill it in or take the row out.")
    return portrait


def read_landmarks(archive: Path, portraits: Sequence[Portrait]) -> NDArray[np.float32]:
    """Read the landmarks of portraits.

    Args:
        archive: The `landmarks.npz`.
        portraits: Whose to take.

    Returns:
        (len(portraits), 478, 3) pixels, in their order.

    Raises:
        InvalidRequestError: The file is missing or damaged, or it lacks a portrait.
    """
    if not archive.is_file():
        raise InvalidRequestError(f"There are no landmarks at {archive}; check the path.")
    try:
        arrays = read_npz(archive)
        ids, landmarks = arrays["ids"], arrays["landmarks"]
    except (ArchiveError, KeyError) as error:
        raise InvalidRequestError(
            f"{archive} is damaged or holds no landmarks ({error}); write it anew, with the arrays ids and landmarks."
        ) from error
    if ids.ndim != 1 or landmarks.shape != (len(ids), _NUM_LANDMARKS, 3) or landmarks.dtype.kind not in "iuf":
        raise InvalidRequestError(
            f"{archive} has ids of shape {ids.shape} and landmarks of shape {landmarks.shape}, {landmarks.dtype}; "
            f"write it anew, with (P,) and (P, {_NUM_LANDMARKS}, 3), float32."
        )
    rows = {name: row for row, name in enumerate(ids.tolist())}
    missing = [portrait.id for portrait in portraits if portrait.id not in rows]
    if missing:
        raise InvalidRequestError(
            f"{archive} has no landmarks of {len(missing)} photos, such as {missing[0]}; add them, or take their rows "
            "out of the manifest."
        )
    found = landmarks[[rows[portrait.id] for portrait in portraits]].astype(np.float32)
    for portrait, points in zip(portraits, found, strict=True):
        if not np.isfinite(points).all():
            raise InvalidRequestError(
                f"The landmarks of {portrait.id} in {archive} are no finite numbers; find them anew, or take its row "
                "out of the manifest."
            )
    return found


def held_out_and_others(
    portraits: Sequence[Portrait], listed: Path
) -> tuple[tuple[Portrait, ...], tuple[Portrait, ...]]:
    """All photos of the held-out people, and those of the other people with two photos.

    Args:
        portraits: From `read_portraits`.
        listed: File of person ids, one a line, `#` before comments: held out beside the split `val`.

    Returns:
        Held-out photos and the others', in the manifest's order.

    Raises:
        InvalidRequestError: The file is missing, or a person of it is not among the portraits.
    """
    if not listed.is_file():
        raise InvalidRequestError(f"There is no file {listed}; check the path of the people held out.")
    names = read_ids(listed)
    held_out = tuple(portrait for portrait in portraits if portrait.split == "val" or portrait.person in names)
    people = {portrait.person for portrait in held_out}
    if missing := names - people:
        raise InvalidRequestError(f"The manifest lacks {len(missing)} people of {listed}, such as {min(missing)}.")
    count = Counter(portrait.person for portrait in portraits)
    others = (portrait for portrait in portraits if portrait.person not in people and count[portrait.person] == 2)
    return held_out, tuple(others)
