"""Stand-ins for numpy's, scipy's and chumpy's objects in pickles: they hold what a file says, and are made last.

numpy checks neither the state that a file gives to a dtype or an array nor what is written into an array afterwards
(numpy issue 30476), so the file never reaches an object of numpy's. Arrays are copied out of its bytes here, once their
type, shape and size agree.
"""

from collections.abc import Callable, Iterable
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from fantasyid.core.pickle_machine import Budget, Makers, Name, PickleError, StandIn, read_set

_MAX_DIMENSIONS = 8
_NUMBERS = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
_POINTER_BYTES = 8


class PickledType(StandIn):
    """A dtype of numbers: its kind (b, i, u or f), its size in bytes and its byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        self._code, self._order = code, "="

    def take(self, state: Any) -> None:
        """The byte order is the second entry of numpy's state; those after it describe structures and are empty."""
        plain = type(state) is tuple and len(state) >= 5 and state[2:5] == (None, None, None)
        if not plain or state[1] not in ("<", ">", "|", "="):
            raise PickleError("it has an array of a structured type")
        self._order = state[1]

    def make(self) -> np.dtype[Any]:
        """The dtype.

        Raises:
            PickleError: It is none of numbers.
        """
        if type(self._code) is not str or self._code not in _NUMBERS:
            raise PickleError(f"it has an array of {ascii(self._code)[:40]}")
        return np.dtype("?" if self._code == "b1" else self._order + self._code)


class PickledArray(StandIn):
    """An array of numbers: its shape, its type, its bytes and the order of its axes."""

    def __init__(self) -> None:
        self._made_of: tuple[Any, ...] | None = None

    def take(self, state: Any) -> None:
        """numpy's state: version, shape, dtype, whether the order is Fortran's, bytes (text where Python 2 wrote)."""
        if type(state) is not tuple or len(state) != 5:
            raise PickleError("it has an array with a state of another form")
        _, shape, dtype, is_fortran, content = state
        self.set(content, dtype, shape, "F" if is_fortran is True or is_fortran == 1 else "C")

    def set(self, content: Any, dtype: Any, shape: Any, order: str, axes: tuple[int, ...] | None = None) -> None:
        """Keep what an array is made of; checked when it is made."""
        self._made_of = content, dtype, shape, order, axes

    def make(self, budget: Budget) -> NDArray[Any]:
        """The array, in the machine's byte order, with memory of its own.

        Raises:
            PickleError: Shape, type and number of bytes do not agree.
        """
        if self._made_of is None:
            raise PickleError("it has an array without content")
        content, pickled_type, shape, order, axes = self._made_of
        if not isinstance(pickled_type, PickledType):
            raise PickleError("it has an array without a type")
        dtype = pickled_type.make()
        if isinstance(content, str):
            try:
                content = content.encode("latin-1")
            except UnicodeEncodeError as error:
                raise PickleError("it has an array of text") from error
        if not isinstance(content, bytes):
            raise PickleError("it has an array that is not of numbers")
        sizes = _sizes(shape, budget.limit)
        if prod(sizes) * dtype.itemsize != len(content):
            raise PickleError(f"it has an array of shape {sizes} and {len(content)} bytes of {dtype.name}")
        budget.spend(len(content))
        # A bool of numpy's must be 0 or 1, a byte of the file may be anything.
        flat = np.frombuffer(content, np.uint8 if dtype.kind == "b" else dtype)
        native = flat != 0 if dtype.kind == "b" else flat.astype(dtype.newbyteorder("="))
        if axes is None:
            return native.reshape(sizes, order="F" if order == "F" else "C")
        if sorted(axes) != list(range(len(sizes))):
            raise PickleError(f"it has an array with {len(sizes)} dimensions in the order {axes}")
        return native.reshape(sizes).transpose(axes)


class PickledObject(StandIn):
    """An object whose class is not imported: the dictionary of its attributes."""

    def __init__(self) -> None:
        self.state: dict[Any, Any] = {}

    def take(self, state: Any) -> None:
        """Attributes; nothing else is a state of these classes."""
        if not isinstance(state, dict):
            raise PickleError(f"an object has a state of type {type(state).__name__}")
        self.state = state

    def attribute(self, name: str) -> Any:
        """One that must be there."""
        if name not in self.state:
            raise PickleError(f"it has a {type(self).__name__} without {name}")
        return self.state[name]


class PickledMatrix(PickledObject):
    """A sparse matrix of scipy's."""

    layout: type

    def make(self, plain: Callable[[Any], Any], budget: Budget) -> csr_matrix:
        """The matrix, every index checked.

        Args:
            plain: Makes the arrays of its state.
            budget: For its copy in rows.

        Raises:
            PickleError: It points outside of itself, or is no matrix of numbers.
        """
        data, indices, indptr = (plain(self.attribute(name)) for name in ("data", "indices", "indptr"))
        for name, array, kinds in (("data", data, "biuf"), ("indices", indices, "iu"), ("indptr", indptr, "iu")):
            if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in kinds:
                raise PickleError(f"it has a sparse matrix whose {name} are no array of numbers")
        if data.dtype == np.float16:
            raise PickleError("it has a sparse matrix in half precision, which scipy does not compute with")
        shape = _sizes(self.attribute("_shape"), budget.limit)
        if len(shape) != 2:
            raise PickleError(f"it has a sparse matrix of shape {shape}")
        budget.spend(_POINTER_BYTES * (sum(shape) + 3 * len(data) + len(indptr)))
        # scipy checks nothing where the last pointer is 0, and its conversion then crashes on the others.
        indices, indptr = indices.astype(np.int64), indptr.astype(np.int64)
        major, minor = shape if self.layout is csr_matrix else shape[::-1]
        if len(indptr) != major + 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any() or indptr[-1] != len(indices):
            raise PickleError("it has a sparse matrix whose indptr does not divide its indices")
        if len(indices) != len(data) or (len(data) and not 0 <= indices.min() <= indices.max() < minor):
            raise PickleError("it has a sparse matrix whose indices point outside of it")
        return self.layout((data, indices, indptr), shape=shape).tocsr()


class CscMatrix(PickledMatrix):
    """By columns."""

    layout = csc_matrix


class CsrMatrix(PickledMatrix):
    """By rows."""

    layout = csr_matrix


class ChumpyArray(PickledObject):
    """`chumpy.ch.Ch`: the array `x`."""


class ChumpySelection(PickledObject):
    """`chumpy.reordering.Select`: the entries `idxs` of the flattened `a`, in the shape `preferred_shape` if any."""

    def make(self, plain: Callable[[Any], Any], budget: Budget) -> NDArray[Any]:
        """The selected entries.

        Args:
            plain: Makes the arrays of its state.
            budget: For the result.

        Raises:
            PickleError: An index points outside, or the number of entries is not that of the shape.
        """
        source, indices = plain(self.attribute("a")), plain(self.attribute("idxs"))
        if not all(isinstance(array, np.ndarray) for array in (source, indices)) or indices.dtype.kind not in "iu":
            raise PickleError("it selects from something that is no array")
        if indices.size and not (-source.size <= indices.min() and indices.max() < source.size):
            raise PickleError(f"it selects outside of an array of {source.size}")
        budget.spend(indices.size * source.itemsize)
        selected: NDArray[Any] = source.ravel()[indices]
        sizes = _sizes(self.state.get("preferred_shape", selected.shape), selected.size)
        if prod(sizes) != selected.size:
            raise PickleError(f"it selects {selected.size} entries for the shape {sizes}")
        return selected.reshape(sizes)


def array_makers(budget: Budget) -> Makers:
    """What a pickle of arrays may ask for, under every name that these things ever had.

    Args:
        budget: For bytes that the protocols below 3 write as text.

    Returns:
        By full name.
    """

    def encode(text: Any, encoding: Any) -> bytes:
        if type(text) is not str or encoding != "latin1":
            raise PickleError(f"it has bytes encoded as {ascii(encoding)[:40]}")
        budget.spend(len(text))
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError as error:
            raise PickleError("it has text as bytes") from error

    objects: dict[str, type[PickledObject]] = {
        **_under(("scipy.sparse.csc", "scipy.sparse._csc"), "csc_matrix", CscMatrix),
        **_under(("scipy.sparse.csr", "scipy.sparse._csr"), "csr_matrix", CsrMatrix),
        "chumpy.ch.Ch": ChumpyArray,
        "chumpy.reordering.Select": ChumpySelection,
    }

    def new_object(made: Any, base: Any, state: Any) -> PickledObject:
        if str(made) not in objects or str(base) not in _OBJECT or state is not None:
            raise PickleError(
                f"it asks for an object of {made}, which is refused" if isinstance(made, Name) else _NAMELESS
            )
        return objects[str(made)]()

    return {
        **objects,
        "numpy.ndarray": None,
        "numpy.dtype": PickledType,
        **_under(("numpy.core.multiarray", "numpy._core.multiarray"), "_reconstruct", _empty_array),
        **_under(("numpy.core.numeric", "numpy._core.numeric"), "_frombuffer", _array_from_buffer),
        **_under(("copy_reg", "copyreg"), "_reconstructor", new_object),
        "_codecs.encode": encode,
        # No bytes at all are written as a call of the class by Python 3 below protocol 3.
        **_under(("__builtin__", "builtins"), "bytes", lambda: b""),
        **_under(("__builtin__", "builtins"), "set", read_set),
        **dict.fromkeys(_OBJECT),
    }


_OBJECT = ("__builtin__.object", "builtins.object")
_NAMELESS = "it asks for an object of something without a name"

_T = TypeVar("_T")


def _under(modules: Iterable[str], name: str, maker: _T) -> dict[str, _T]:
    return {f"{module}.{name}": maker for module in modules}


def _empty_array(made: Any, shape: Any, code: Any) -> PickledArray:
    # numpy passes an empty shape and a type of one byte; the state that follows has the real ones.
    if made != Name("numpy", "ndarray"):
        raise PickleError("it asks for an array of another class")
    return PickledArray()


def _array_from_buffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> PickledArray:
    if axes is not None and (type(axes) is not tuple or any(type(axis) is not int for axis in axes)):
        raise PickleError("it has an array whose axes are no numbers")
    array = PickledArray()
    array.set(content, dtype, shape, order, axes if order == "K" else None)
    return array


def _sizes(shape: Any, limit: int) -> tuple[int, ...]:
    sizes = (shape,) if type(shape) is int else shape
    if type(sizes) is not tuple or len(sizes) > _MAX_DIMENSIONS or any(type(size) is not int for size in sizes):
        raise PickleError("it has an array whose shape is no tuple of sizes")
    if any(not 0 <= size <= limit for size in sizes):
        raise PickleError(f"it has an array of shape {sizes}")
    return sizes
