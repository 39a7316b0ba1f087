"""Paths that a user gives for reading, checked before slow imports."""

import hashlib
import re
from pathlib import Path

from fantasyid.core.errors import InvalidRequestError

# Path makes one slash of the two.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def check_input_file(path: Path, what: str) -> None:
    """Refuse a path that leads to no file.

    Args:
        path: What the user gave.
        what: What it should be, such as `"photo"`.

    Raises:
        InvalidRequestError: There is nothing, or a folder.
    """
    if path.is_dir():
        raise InvalidRequestError(f"{path} is a folder; name a {what} file in it.")
    if not path.exists():
        raise InvalidRequestError(no_such_file(path, what))


def no_such_file(path: Path, what: str) -> str:
    """The sentence for a path where nothing is; an address of the web gets its own."""
    if _ADDRESS.match(str(path)):
        return f"{path} is an address, not a file; download the {what} and give the file's path."
    return f"There is no file {path}; check the path of the {what}."


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, whatever its size.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
