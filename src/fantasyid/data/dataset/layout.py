"""Where the files of a dataset lie, and what its manifest says.

```
DATASET/
  prepare.json                 how it is measured, written first
  sources.parquet              the videos, in the order of their paths
  measured/part-00000.parquet  every candidate of 64 videos, with all numbers
  measured/part-00000.pictures.safetensors, .tracks.safetensors, .files.json
  clips.parquet                what is kept, in the order of the clips' ids
  dropped.parquet              the rest, with reasons
  dataset.json                 manifest with the hash of every file, written last
  report.html                  for people
  encodings/NAME/              per model, see `dataset.encodings`
```
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fantasyid.core.choices import SourceFormat
from fantasyid.core.errors import CorruptDatasetError, InvalidRequestError
from fantasyid.core.faults import first_fault
from fantasyid.data.clips.config import KeepConfig, MeasureConfig

REMEDY = "run `fantasyid data prepare` again, which makes what is missing"
AGAIN = "make the dataset again in another folder"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


DocumentType = TypeVar("DocumentType", bound=BaseModel)


class Plan(_Document):
    """What decides every number in a dataset's parts."""

    format: Literal[1] = 1
    """Changes when what is measured changes meaning."""
    layout: SourceFormat
    """Of the folder of videos."""
    measure: MeasureConfig
    software: dict[str, str]
    """Versions and hashes of what measures, by what it does."""
    sources: str
    """SHA-256 of the table of videos."""


class Manifest(_Document):
    """What a finished dataset holds."""

    plan: Plan
    keep: KeepConfig
    videos: int
    absent: int
    """Videos that their list names and that are not there."""
    candidates: int
    kept: int
    people: int
    dropped: dict[str, int]
    """Candidates by the first reason."""
    licences: dict[str, int]
    """Kept clips by the terms of their videos."""
    backends: dict[str, str]
    """Terms of what measured them, by name."""
    files: dict[str, str]
    """SHA-256 of every file, by path; the report is for people and not among them."""


class DatasetFolder:
    """The paths of a dataset.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan = path / "prepare.json"
        self.sources = path / "sources.parquet"
        self.measured = path / "measured"
        self.clips = path / "clips.parquet"
        self.dropped = path / "dropped.parquet"
        self.manifest = path / "dataset.json"
        self.report = path / "report.html"
        self.encodings = path / "encodings"

    def part(self, number: int) -> dict[str, Path]:
        """The four files of a part: `rows`, `pictures`, `tracks` and `files`, the hashes of the other three."""
        stem = f"part-{number:05d}"
        endings = {"rows": "parquet", "pictures": "pictures.safetensors", "tracks": "tracks.safetensors"}
        return {kind: self.measured / f"{stem}.{end}" for kind, end in {**endings, "files": "files.json"}.items()}

    def read_manifest(self) -> Manifest:
        """The manifest.

        Raises:
            InvalidRequestError: There is none: it is no dataset, or not finished.
            CorruptDatasetError: It cannot be read.
        """
        if not self.manifest.is_file():
            raise InvalidRequestError(
                f"{self.path} is no finished dataset: there is no {self.manifest.name}; {REMEDY}."
            )
        return read_document(self.manifest, Manifest)


def read_document(path: Path, kind: type[DocumentType], remedy: str = AGAIN) -> DocumentType:
    """Read a JSON file as a pydantic model.

    Args:
        path: The file.
        kind: The model.
        remedy: What to do where it cannot be read.

    Raises:
        CorruptDatasetError: It cannot be read, or is of another version.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = first_fault(error)[1] if isinstance(error, ValidationError) else error.strerror
        raise CorruptDatasetError(f"{path} cannot be read ({reason}); {remedy}.") from error


def document_bytes(document: BaseModel) -> bytes:
    """A model as JSON for people and programs."""
    return (document.model_dump_json(indent=2) + "\n").encode()


def differences(before: dict[str, Any], now: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Fields of two documents that differ, also within fields, by their names.

    Args:
        before: What was kept.
        now: What is asked for.
        place: What stands before the names, such as `"measure."`.
    """
    for name in sorted(before.keys() | now.keys()):
        first, second = before.get(name), now.get(name)
        if isinstance(first, dict) and isinstance(second, dict):
            yield from differences(first, second, f"{place}{name}.")
        elif first != second:
            yield f"{place}{name}", first, second
