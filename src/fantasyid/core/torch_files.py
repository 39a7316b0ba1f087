"""Reading weights that others published with `torch.save`; nothing in such a file is executed.

`torch.load(weights_only=True)` runs no code of the file's either, but believes its numbers: 60 bytes ask it for any
amount of memory, and a nested key overflows its stack. Here the pickle is interpreted by our own machine, and a tensor
is made once its storage lies whole in the file and holds all of it.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import torch

from fantasyid.core.errors import CorruptWeightsError, short_reason
from fantasyid.core.pickle_machine import Makers, Name, PickleError, StandIn, Unfolding, read_pickle, read_set

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ARCHIVE = b"PK\x03\x04"
_PART = 2**24
_MAX_DIMENSIONS = 64
_MAX_SIZE = 2**40

# `torch.FloatStorage` and so on, as files call the types of numbers.
_STORAGES = {
    **{"Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16},
    **{"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8},
    **{"Byte": torch.uint8, "Bool": torch.bool},
}

_TYPES = {str(dtype): dtype for dtype in _STORAGES.values()}

_DAMAGED = (
    *(PickleError, zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError),
    *(ValueError, KeyError, IndexError, NotImplementedError, RuntimeError, MemoryError, OverflowError),
)


def load_torch_file(path: Path, remedy: str = "download it again") -> dict[str, Any]:
    """Read weights by name.

    Args:
        path: An existing file, of torch's archives or of its form before 1.6.
        remedy: How to get a whole one, for the error.

    Returns:
        What was saved, on the CPU: tensors, dicts, lists, tuples, strings, numbers. Tensors share memory where those
        that were saved did.

    Raises:
        CorruptWeightsError: It is damaged, holds anything but tensors and plain containers, or is no dictionary.
    """
    try:
        with path.open("rb") as file:
            is_archive = file.read(len(_ARCHIVE)) == _ARCHIVE
        content = _read_archive(path) if is_archive else _read_legacy(path)
    except _DAMAGED as error:
        raise CorruptWeightsError(f"{path} is no readable PyTorch file ({short_reason(error)}); {remedy}.") from error
    if not isinstance(content, dict):
        raise CorruptWeightsError(f"{path} holds a {type(content).__name__} and no weights by name; {remedy}.")
    return content


class _Storage:
    """Numbers in the file, named by a key."""

    def __init__(self, reference: Any) -> None:
        if type(reference) is not tuple or len(reference) not in (5, 6) or any(reference[5:]):
            raise PickleError("it refers to something that is no storage")
        kind, stored_type, self.key, _, self.length = reference[:5]
        name = stored_type.name if isinstance(stored_type, Name) else ""
        if kind != "storage" or name.removesuffix("Storage") not in _STORAGES or type(self.key) is not str:
            raise PickleError("it refers to something that is no storage of numbers")
        if type(self.length) is not int or self.length < 0:
            raise PickleError("it has a storage whose length is no number")
        self.dtype = _STORAGES[name.removesuffix("Storage")]

    @property
    def num_bytes(self) -> int:
        return int(self.length * self.dtype.itemsize)


class _StoredTensor(StandIn):
    """A tensor as its file describes it: `torch._utils._rebuild_tensor_v2`, or `_rebuild_tensor` before 0.4."""

    def __init__(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any = False,
        hooks: Any = None,
        metadata: Any = None,
    ) -> None:
        if not isinstance(storage, _Storage) or type(size) is not tuple or type(stride) is not tuple:
            raise PickleError("it has a tensor without storage, size or strides")
        if any(type(number) is not int or not 0 <= number < _MAX_SIZE for number in (offset, *size, *stride)):
            raise PickleError("it has a tensor whose size or strides are no numbers")
        if not len(size) == len(stride) <= _MAX_DIMENSIONS:
            raise PickleError("it has a tensor whose size and strides do not fit together")
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if prod(size) > storage.length or (prod(size) and last >= storage.length):
            raise PickleError(f"it has a tensor of size {size} in a storage of {storage.length} numbers")


class _Ordered(dict[Any, Any], StandIn):
    """`collections.OrderedDict`, which state dicts are; the versions of layers, its state, play no part."""

    def __init__(self, entries: Any = ()) -> None:
        super().__init__()
        if not isinstance(entries, (list, tuple)) or not all(
            isinstance(pair, (list, tuple)) and len(pair) == 2 and type(pair[0]) in (str, int) for pair in entries
        ):
            raise PickleError("it has a dictionary of something else than pairs")
        self.update((key, value) for key, value in entries)

    def take(self, state: Any) -> None:
        """Left."""


def _parameter(tensor: Any, requires_grad: Any = False, hooks: Any = None) -> _StoredTensor:
    if not isinstance(tensor, _StoredTensor):
        raise PickleError("it has a parameter that is no tensor")
    return tensor


def _size(numbers: Any) -> tuple[Any, ...]:
    if type(numbers) not in (list, tuple):
        raise PickleError("it has a size that is no tuple")
    return tuple(numbers)


_MAKERS: Makers = {
    "torch._utils._rebuild_tensor": _StoredTensor,
    "torch._utils._rebuild_tensor_v2": _StoredTensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "collections.OrderedDict": _Ordered,
    **{f"{module}.set": read_set for module in ("__builtin__", "builtins")},
    **{f"torch.{name}Storage": None for name in _STORAGES},
    **dict.fromkeys(_TYPES),
}


def _read_archive(path: Path) -> Any:
    """torch's archives since 1.6: `NAME/data.pkl` and each storage as `NAME/data/KEY`, not compressed."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise PickleError("its parts are compressed, which torch does not do")
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise PickleError("its parts are larger than the file")
        root = next(iter(entries), "").partition("/")[0]
        if f"{root}/byteorder" in entries and archive.read(f"{root}/byteorder") != b"little":
            raise PickleError("its numbers are not little-endian")
        program = archive.read(f"{root}/data.pkl")
        storages: dict[str, _Storage] = {}
        content = read_pickle(io.BytesIO(program), len(program), _MAKERS, partial(_refer, storages))
        numbers = {}
        for key, storage in storages.items():
            entry = entries[f"{root}/data/{key}"]
            if entry.file_size != storage.num_bytes:
                raise PickleError(f"a storage has {entry.file_size} bytes, not {storage.num_bytes}")
            with archive.open(entry) as file:
                numbers[key] = _numbers(file, storage)
    return _tensors(content, numbers)


def _read_legacy(path: Path) -> Any:
    """torch's files before 1.6: five pickles, then the storages one after the other in the order of the last one."""
    num_bytes = path.stat().st_size
    storages: dict[str, _Storage] = {}
    with path.open("rb") as file:

        def following() -> Any:
            return read_pickle(file, num_bytes - file.tell(), _MAKERS, partial(_refer, storages))

        if (following(), following()) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
            raise PickleError("it does not begin as PyTorch's files do")
        system, content, keys = following(), following(), following()
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise PickleError("its numbers are not little-endian")
        if not isinstance(keys, list) or any(type(key) is not str for key in keys) or sorted(keys) != sorted(storages):
            raise PickleError("it lists other storages than it uses")
        numbers = {}
        for key in keys:
            (length,) = struct.unpack("<q", file.read(8))
            if length != storages[key].length or storages[key].num_bytes > num_bytes - file.tell():
                raise PickleError(f"a storage of {storages[key].length} numbers is not whole in it")
            numbers[key] = _numbers(file, storages[key])
    return _tensors(content, numbers)


def _refer(storages: dict[str, _Storage], reference: Any) -> _Storage:
    storage = _Storage(reference)
    known = storages.setdefault(storage.key, storage)
    if (known.dtype, known.length) != (storage.dtype, storage.length):
        raise PickleError("it describes a storage in two ways")
    return known


def _numbers(file: BinaryIO | IO[bytes], storage: _Storage) -> torch.Tensor:
    """All numbers of a storage, (length,); that so many bytes are left has been checked."""
    content = torch.empty(storage.num_bytes, dtype=torch.uint8)
    view, place = content.numpy(), 0
    while place < storage.num_bytes:
        part = file.read(min(_PART, storage.num_bytes - place))
        if not part:
            raise PickleError("it is cut off")
        view[place : place + len(part)] = np.frombuffer(part, np.uint8)
        place += len(part)
    # A bool must be 0 or 1, a byte of the file may be anything.
    return content.ne(0) if storage.dtype == torch.bool else content.view(storage.dtype)


def _tensors(content: Any, numbers: Mapping[str, torch.Tensor]) -> Any:
    def make(value: Any, _: Callable[[Any], Any]) -> Any:
        if isinstance(value, _StoredTensor):
            return numbers[value.storage.key].as_strided(value.size, value.stride, value.offset)
        if isinstance(value, Name) and str(value) in _TYPES:
            return _TYPES[str(value)]
        raise PickleError(f"it holds {value}" if isinstance(value, Name) else f"it holds a {type(value).__name__}")

    return Unfolding(make).of(content)
