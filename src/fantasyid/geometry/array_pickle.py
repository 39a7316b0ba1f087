"""Pickles of plain arrays, read without running anything that is in them.

Research models are published as pickles: FLAME as a dictionary of numpy, scipy and chumpy objects, COMA's mesh
hierarchies as lists of them. A pickle may ask for any function to be called. Here it is interpreted by a machine that
calls none of them; arrays, sparse matrices and chumpy objects are stand-ins until all of it has been read.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.core.pickle_machine import Budget, Name, PickleError, Unfolding, read_pickle
from fantasyid.geometry.pickled_arrays import (
    ChumpyArray,
    ChumpySelection,
    PickledArray,
    PickledMatrix,
    array_makers,
)

_UNFOLDING = 8  # Text to bytes, bytes to an array, a selection of it, a sparse matrix with long indices, by rows.
_ROOM = 2**16


def load_array_pickle(path: Path, remedy: str) -> Any:
    """Read a pickle of arrays, of any protocol, written by Python 2 or 3.

    Args:
        path: The file.
        remedy: Where to get a good one, as a clause that ends the error.

    Returns:
        What was pickled: dicts, lists, tuples, sets, strings and numbers as they were; numpy arrays of numbers;
        chumpy's arrays as numpy arrays; sparse matrices as `csr_matrix`, their indices checked. What stands twice in
        the file is one object here.

    Raises:
        MissingWeightsError: There is no such file.
        CorruptWeightsError: It is no pickle, is cut off, holds anything but the above, or would take more than some
            times its size.
    """
    if not path.is_file():
        raise MissingWeightsError(f"There is no file {path}; {remedy}")
    content = path.read_bytes()
    budget = Budget(_UNFOLDING * len(content) + _ROOM)
    try:
        value = read_pickle(io.BytesIO(content), len(content), array_makers(budget))
        return Unfolding(lambda part, plain: _plain(part, plain, budget)).of(value)
    except PickleError as error:
        raise CorruptWeightsError(
            f"{path} ({len(content)} bytes) is not a pickle of plain arrays ({error}); {remedy}"
        ) from error


def _plain(value: Any, plain: Callable[[Any], Any], budget: Budget) -> Any:
    if isinstance(value, PickledArray):
        return value.make(budget)
    if isinstance(value, ChumpyArray):
        return plain(value.attribute("x"))
    if isinstance(value, (ChumpySelection, PickledMatrix)):
        return value.make(plain, budget)
    raise PickleError(f"it holds {value}" if isinstance(value, Name) else f"it holds a {type(value).__name__}")
