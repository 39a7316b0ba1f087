"""Reading .npz archives: arrays of numbers and strings, none larger than the file lets expect."""

import io
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_EXPANSION = 100
"""Compressed arrays of meshes are 2 to 10 times as large as their archive; deflate could make 1,000 times of it."""
_ROOM = 2**23
_KINDS = "biufU"

_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
    *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError, SyntaxError),
    *(MemoryError, OverflowError, RecursionError, NotImplementedError, RuntimeError),
)


class ArchiveError(ValueError):
    """Why an archive is refused, as a clause; whoever knows the remedy makes a sentence of it."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an archive.

    Args:
        path: An existing file that `numpy.savez` or `numpy.savez_compressed` wrote.

    Returns:
        The arrays by name: numbers, truth values or strings, each in memory of its own.

    Raises:
        ArchiveError: It is damaged, holds objects, or would unfold to more than 100 times its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unfolded, limit = sum(entry.file_size for entry in entries), _MAX_EXPANSION * path.stat().st_size + _ROOM
            if unfolded > limit:
                raise ArchiveError(f"its arrays would take {unfolded} bytes, and {limit} are allowed for its size")
            return {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in entries}
    except ArchiveError:
        raise
    except _DAMAGED as error:
        raise ArchiveError(f"{type(error).__name__}: {str(error)[:200]}") from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"{entry.filename!a} is compressed in a way that numpy does not use")
    # Decompressed first: the entry's size and checksum are right before numpy believes its header.
    with archive.open(entry) as file:
        content = file.read(entry.file_size)
    array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    if array.dtype.kind not in _KINDS:
        raise ArchiveError(f"{entry.filename!a} is an array of {array.dtype}")
    return array
