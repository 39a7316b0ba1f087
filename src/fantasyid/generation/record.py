"""What is kept beside a video: the request, filled in with what was used, and the facts to make it again."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fantasyid import __version__
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.faults import first_fault
from fantasyid.core.input_files import check_input_file, file_sha256
from fantasyid.generation.request import GenerationRequest, LoraRequest, PersonRequest, as_text

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SoftwareVersions(_Record):
    """The software a video was made with."""

    fantasyid: str
    python: str
    torch: str
    diffusers: str

    @classmethod
    def installed(cls) -> "SoftwareVersions":
        """The versions in this environment."""
        return cls(
            fantasyid=__version__,
            python=platform.python_version(),
            torch=version("torch"),
            diffusers=version("diffusers"),
        )


class GenerationRecord(_Record):
    """Everything needed to make a video again, and what it cost."""

    format: Literal[2] = 2
    """Changes when older records can no longer be read."""
    request: GenerationRequest
    """What was asked, with everything that was left open as it was chosen; of one video."""
    command: tuple[str, ...] = ()
    """The arguments as typed; empty when called from Python."""
    versions: SoftwareVersions
    weights_sha256: Sha256
    """Of all networks' weights as they were used."""
    lora_sha256: tuple[Sha256, ...] = ()
    """Of each adapter's file."""
    photo_sha256: tuple[Sha256, ...] = ()
    """Of each photo."""
    head_file_sha256: Sha256 | None = None
    """Of the mesh file whose vertices stood in for those read from the photos."""
    face_index: Annotated[int, Field(ge=0)] | None = None
    """Which of the first photo's faces was used; None without a photo, as the next."""
    face_box: tuple[float, float, float, float] | None = None
    """Its box in the photo: x0, y0, x1, y1 in pixels."""
    device: str
    """By its full name."""
    timings_s: dict[str, float]
    """Seconds of each stage, by name; what several videos shared is in each record."""
    provenance_mark: bool = True
    """Whether the frames carry the invisible mark and the file the words."""
    signing_key_sha256: Sha256 | None = None
    """Of the public key, as DER, of the signed credentials in video and contact sheet; None where there are none."""

    @property
    def lora_names(self) -> tuple[str, ...]:
        """What was merged into the model, each with its strength where that is not 1; of files the names alone."""
        loras = self.request.model.loras
        return tuple(as_text(lora.file.name) + (f" x {lora.scale:g}" if lora.scale != 1 else "") for lora in loras)


def read_record(path: Path) -> GenerationRecord:
    """Read what was kept beside a video.

    Args:
        path: The .json file.

    Raises:
        InvalidRequestError: There is no such file, or it is no record of this version.
    """
    check_input_file(path, "record")
    try:
        return GenerationRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        where, said = first_fault(error, "its content")
        raise InvalidRequestError(
            f"{path} is no record that this version reads ({where}: {said}); give the .json file that "
            "`fantasyid generate` put beside a video."
        ) from error


def find_inputs(record: GenerationRecord, path: Path) -> PersonRequest | None:
    """Find the photos and the mesh of a record, as they were.

    Args:
        record: What was read.
        path: Where it lies: files are looked for from the working folder, and beside it.

    Returns:
        The person, with paths that are there.

    Raises:
        InvalidRequestError: A file is missing or has changed.
    """
    person = record.request.person
    if person is None:
        return None
    photos = [_same(photo, sha, path) for photo, sha in zip(person.photos, record.photo_sha256, strict=True)]
    head = None if person.head_file is None else _same(person.head_file, record.head_file_sha256, path)
    return person.model_copy(update={"photos": tuple(photos), "head_file": head})


def find_loras(record: GenerationRecord, path: Path) -> tuple[LoraRequest, ...]:
    """Find the adapters of a record, as they were.

    Args:
        record: What was read.
        path: Where it lies; see `find_inputs`.

    Raises:
        InvalidRequestError: A file is missing or has changed.
    """
    pairs = zip(record.request.model.loras, record.lora_sha256, strict=True)
    return tuple(lora.model_copy(update={"file": _same(lora.file, sha, path)}) for lora, sha in pairs)


def _same(file: Path, sha256: str | None, record: Path) -> Path:
    found = next((place for place in (file, record.parent / file.name) if place.is_file()), None)
    if found is None:
        raise InvalidRequestError(f"{file}, which {record} names, is not there; give the file on the command line.")
    if file_sha256(found) != sha256:
        raise InvalidRequestError(
            f"{found} is another file than the one {record} names; give the file on the command line to use it anyway."
        )
    return found
