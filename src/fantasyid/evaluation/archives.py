"""Files of arrays that one step of an evaluation leaves to the next."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.npz_files import ArchiveError, read_npz


def read_arrays(path: Path, names: Iterable[str], what: str, remedy: str) -> dict[str, NDArray[Any]]:
    """Read arrays of an .npz file.

    Args:
        path: The file.
        names: Of the arrays that must be there.
        what: What the file should hold, such as `"latents"`.
        remedy: What to do if it does not, as the end of a sentence.

    Returns:
        All arrays of the file, by name.

    Raises:
        InvalidRequestError: It is missing, damaged, or an array is.
    """
    try:
        arrays = read_npz(path)
    except ArchiveError as error:
        raise InvalidRequestError(f"{path} does not hold {what} ({error}); {remedy}.") from error
    if missing := sorted(set(names) - arrays.keys()):
        raise InvalidRequestError(f"{path} does not hold {what} (without {', '.join(missing)}); {remedy}.")
    return arrays
