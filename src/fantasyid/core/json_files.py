"""Reading JSON that others wrote; what is no JSON, or a Git LFS pointer in its place, is told in one sentence."""

import json
from pathlib import Path
from typing import Any, NoReturn

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError

LARGEST_JSON = 2**26
"""Bytes; the largest that a model folder holds is a tokenizer of some MB."""
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def read_json(path: Path, remedy: str = "get it again") -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: The file.
        remedy: How to get a whole one, for the errors.

    Returns:
        Its content.

    Raises:
        MissingWeightsError: It cannot be opened, or is a Git LFS pointer.
        CorruptWeightsError: It is no JSON, holds NaN or infinity, is no object, or is larger than 64 MiB.
    """
    try:
        refuse_lfs_pointer(path)
        if path.stat().st_size > LARGEST_JSON:
            raise CorruptWeightsError(f"{path} has {path.stat().st_size} bytes, too many for what it is; {remedy}.")
        content = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise MissingWeightsError(f"{path} cannot be read ({error.strerror}); {remedy}.") from error
    except (ValueError, RecursionError) as error:
        raise CorruptWeightsError(f"{path} is not JSON ({error}); {remedy}.") from error
    if not isinstance(content, dict):
        raise CorruptWeightsError(f"{path} holds a JSON {type(content).__name__} and no object; {remedy}.")
    return content


def refuse_lfs_pointer(path: Path) -> None:
    """Refuse a file that Git put there in place of the real one.

    Args:
        path: An existing file.

    Raises:
        MissingWeightsError: It is a Git LFS pointer.
    """
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise MissingWeightsError(
                f"{path} is a Git LFS pointer and not the file itself: the folder was cloned without Git LFS; run "
                "`git lfs install` and `git lfs pull` there, or download it with `hf download`."
            )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")
