"""What a conversion of the released checkpoint wrote: the hash of every file, checked whenever it is loaded."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError

MANIFEST = "fantasyid-conversion.json"


class ConvertedFile(BaseModel):
    """One file of a conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    """Hash of the whole file."""
    size_bytes: int
    """Size of the whole file."""


class ConversionManifest(BaseModel):
    """Everything that a conversion wrote; written last, so that it stands for a whole one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Literal["fantasyid-released-2"] = "fantasyid-released-2"
    """Version of the conversion."""
    ignored_config: tuple[str, ...]
    """Fields of the authors' transformer config that nobody reads."""
    files: dict[str, ConvertedFile]
    """By path in the folder."""


def write_manifest(folder: Path, ignored_config: tuple[str, ...]) -> ConversionManifest:
    """Hash all files of a conversion and write its manifest.

    Args:
        folder: Its folder, complete but for the manifest.
        ignored_config: Fields of the authors' transformer config that nobody reads.

    Returns:
        The manifest.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    manifest = ConversionManifest(ignored_config=ignored_config, files=_hash_files(folder, names))
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return manifest


def check_conversion(folder: Path) -> ConversionManifest:
    """Check that a conversion is whole and every file has the hash it was written with.

    Args:
        folder: Its folder.

    Returns:
        Its manifest.

    Raises:
        MissingWeightsError: A file is gone.
        CorruptWeightsError: A file is not as it was written.
    """
    remedy = f"remove {folder} and convert the release again"
    try:
        manifest = ConversionManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise MissingWeightsError(f"There is no {folder / MANIFEST}; {remedy}.") from error
    except ValidationError as error:
        raise CorruptWeightsError(f"{folder / MANIFEST} is not as this version writes it; {remedy}.") from error
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise MissingWeightsError(f"The file {path} is gone; {remedy}.")
        if path.stat().st_size != expected.size_bytes:
            raise CorruptWeightsError(f"{path} has not the {expected.size_bytes} bytes it was written with; {remedy}.")
    found = _hash_files(folder, list(manifest.files))
    changed = [name for name, expected in manifest.files.items() if found[name] != expected]
    if changed:
        raise CorruptWeightsError(f"{folder / changed[0]} has changed since it was written; {remedy}.")
    return manifest


def _hash_files(folder: Path, names: list[str]) -> dict[str, ConvertedFile]:
    def digest(name: str) -> ConvertedFile:
        with (folder / name).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return ConvertedFile(sha256=sha256, size_bytes=file.tell())

    hashed = {}
    total = sum((folder / name).stat().st_size for name in names)
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=total, desc="Checksums", unit="B", unit_scale=True, leave=False, disable=None) as progress,
    ):
        for name, file in zip(names, pool.map(digest, names), strict=True):
            hashed[name] = file
            progress.update(file.size_bytes)
    return hashed
