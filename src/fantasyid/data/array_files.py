"""Reading the arrays that the steps of `fantasyid data` write."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fantasyid.core.errors import InvalidRequestError, short_reason
from fantasyid.core.output_files import write_file


def open_array(path: Path, made_by: str, mapped: bool = False) -> NDArray[Any]:
    """Read an array of numbers.

    Args:
        path: A .npy file.
        made_by: The command that writes it, for the errors.
        mapped: Whether it stays on the disk.

    Raises:
        InvalidRequestError: It is missing or damaged.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError as error:
        raise InvalidRequestError(f"There is no {path}; check the path, or run `{made_by}`.") from error
    except (OSError, ValueError, EOFError) as error:
        raise InvalidRequestError(
            f"{path} cannot be read ({short_reason(error)}); make its folder again with `{made_by}`."
        ) from error
    return array


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a small array that appears when it is whole, as that which is written last and marks a finished folder.

    Args:
        path: A .npy file.
        array: What it holds.
    """
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_file(path, buffer.getvalue())
