"""What every reader of a layout gives, and what all of them need."""

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fantasyid.core.errors import InvalidRequestError, short_reason
from fantasyid.core.faults import first_fault
from fantasyid.data.dataset.rows import Source


class PublishedRow(BaseModel):
    """What is taken of an entry of somebody else's list, which may say more and often does."""

    model_config = ConfigDict(frozen=True, extra="ignore")


RowType = TypeVar("RowType", bound=PublishedRow)


@dataclass(frozen=True)
class Listing:
    """The videos of a folder.

    Attributes:
        sources: Sorted by path.
        absent: How many are listed and not there, as in a set of which a part was downloaded.
    """

    sources: tuple[Source, ...]
    absent: int

    @classmethod
    def of(cls, folder: Path, found: list[Source], absent: int, list_name: str) -> "Listing":
        """Sort what was found.

        Raises:
            InvalidRequestError: There is nothing, or a path stands in the list twice.
        """
        if not found:
            raise InvalidRequestError(
                f"None of the {absent} videos that {list_name} lists is in {folder}; check the path, or download them."
            )
        found = sorted(found, key=lambda source: (source.path, source.cut or ()))
        for first, second in pairwise(found):
            if (first.path, first.cut) == (second.path, second.cut):
                raise InvalidRequestError(f"{list_name} lists {first.path} twice; take one of the rows out.")
        return cls(tuple(found), absent)


def validated(kind: type[RowType], entry: Any, place: str) -> RowType:
    """An entry of a list.

    Args:
        kind: What it should be.
        entry: What stands there.
        place: File and row, to begin the error with.

    Raises:
        InvalidRequestError: A field is missing or cannot be.
    """
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        field, said = first_fault(error, "entry")
        raise InvalidRequestError(
            f"{place} has no {field} that can be read ({said}); give the list as it was published."
        ) from error


def read_published_json(path: Path) -> Any:
    """A JSON file of any size that fits the memory.

    Raises:
        InvalidRequestError: It is not there, or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InvalidRequestError(f"There is no {path}; check the path and the format.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{path} cannot be read ({short_reason(error)}); download it again.") from error


def read_published_csv(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV, each with its place for errors.

    Raises:
        InvalidRequestError: It is not there, or no CSV.
    """
    csv.field_size_limit(sys.maxsize)  # captions of models run to pages
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            for row in reader:
                yield f"Line {reader.line_num} of {path}", row
    except FileNotFoundError as error:
        raise InvalidRequestError(f"There is no {path}; check the path and the format.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequestError(f"{path} is not a CSV ({short_reason(error)}); download it again.") from error
