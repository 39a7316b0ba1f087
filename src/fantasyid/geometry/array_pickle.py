"""Pickles of plain arrays, read without running anything that is in them.

Research models are published as pickles: FLAME as a dictionary of numpy, scipy and chumpy objects, COMA's mesh
hierarchies as lists of them. A pickle may ask for any function to be called. Here it may ask for numpy's array
constructors and sets alone; sparse matrices and chumpy objects become stand-ins that hold their state and nothing else.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError


def load_array_pickle(path: Path, remedy: str) -> Any:
    """Read a pickle of arrays, of any protocol, written by Python 2 or 3.

    Args:
        path: The file.
        remedy: Where to get a good one, as a clause that ends the error.

    Returns:
        What was pickled: dicts, lists, tuples, sets, strings and numbers as they were; numpy arrays of numbers;
        chumpy's arrays as numpy arrays; sparse matrices as `csr_matrix`, their indices checked.

    Raises:
        MissingWeightsError: There is no such file.
        CorruptWeightsError: It is no pickle, is cut off, or holds anything but the above.
    """
    if not path.is_file():
        raise MissingWeightsError(f"There is no file {path}; {remedy}")
    try:
        with path.open("rb") as file:
            return _plain(_ArrayUnpickler(file, encoding="latin1").load())
    except (
        pickle.UnpicklingError,
        *(EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError),
        *(MemoryError, OverflowError, RecursionError, AssertionError),
    ) as error:
        raise CorruptWeightsError(
            f"{path} ({path.stat().st_size} bytes) is not a pickle of plain arrays ({error}); {remedy}"
        ) from error


class _Held:
    """An object whose class is not imported: its state. Not a class attribute can be set through it."""

    state: dict[str, Any]

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"an object has a state of type {type(state).__name__}")
        object.__setattr__(self, "state", state)


class _CscMatrix(_Held):
    pass


class _CsrMatrix(_Held):
    pass


class _Chumpy(_Held):
    """`chumpy.ch.Ch`: the array `x`."""


class _ChumpySelect(_Held):
    """`chumpy.reordering.Select`: the entries `idxs` of the flattened `a`, in the shape `preferred_shape` if any."""


_CLASSES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0] for core in ("core", "_core")},
    **{(f"scipy.sparse.{module}", "csc_matrix"): _CscMatrix for module in ("csc", "_csc")},
    **{(f"scipy.sparse.{module}", "csr_matrix"): _CsrMatrix for module in ("csr", "_csr")},
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _ChumpySelect,
    **{(module, "set"): set for module in ("__builtin__", "builtins")},
    **{(module, "object"): object for module in ("__builtin__", "builtins")},
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Methods, because a file could change functions and classes of Python's. Python 2 and the protocols below 2
        # make every object, and all bytes of Python 3, through the first two.
        if (module, name) in (("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")):
            return self._new_object
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        if (module, name) in (("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer")):
            return self._from_buffer
        if (module, name) not in _CLASSES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return _CLASSES[module, name]

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError(f"it refers to {pid!r} outside of itself")

    def _new_object(self, made: type, base: type, state: None) -> _Held:
        if not issubclass(made, _Held) or base is not object or state is not None:
            raise pickle.UnpicklingError(f"it asks for an object of {made.__name__}, which is refused")
        return made()

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it has bytes encoded as {encoding}")
        return text.encode("latin1")

    def _from_buffer(self, buffer: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> NDArray[Any]:
        return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bytes, bool, int, float, set)):
        return value
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(entry) for entry in value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"it has an array of {value.dtype}")
        return value
    if isinstance(value, _Chumpy):
        return _plain(value.state["x"])
    if isinstance(value, _ChumpySelect):
        selected = _plain(value.state["a"]).ravel()[_plain(value.state["idxs"])]
        return selected.reshape(_plain(value.state.get("preferred_shape", selected.shape)))
    if isinstance(value, (_CscMatrix, _CsrMatrix)):
        state = {key: _plain(value.state[key]) for key in ("_shape", "data", "indices", "indptr")}
        layout = csc_matrix if isinstance(value, _CscMatrix) else csr_matrix
        matrix = layout((state["data"], state["indices"], state["indptr"]), shape=state["_shape"])
        matrix.check_format(full_check=True)
        return matrix.tocsr()
    raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")
