"""Archives that attack: torch's files and numpy's npz."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable

import numpy as np
import torch

from tests.fuzz.attacks.pickles import PICKLE_ATTACKS

_STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu%stQ"


def _integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _tensor(length: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    numbers = [b"(" + b"".join(map(_integer, part)) + b"t" for part in (size, stride)]
    storage = _STORAGE % _integer(length)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + _integer(offset) + b"".join(numbers) + b"\x89}tR"


def _archive(program: bytes, content: bytes = bytes(16), how: int = zipfile.ZIP_STORED, **more: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, part in {
            "data.pkl": program,
            "byteorder": b"little",
            "data/0": content,
            "version": b"3\n",
            **more,
        }.items():
            archive.writestr(f"archive/{name}", part)
    return file.getvalue()


def _of_tensor(length: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    return _archive(b"\x80\x02}X\x01\x00\x00\x00a" + _tensor(length, offset, size, stride) + b"s.")


def _legacy(program: bytes, rest: bytes) -> bytes:
    begin = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    return b"".join(pickle.dumps(part, 2) for part in begin) + program + pickle.dumps(["0"], 2) + rest


def _overlapping() -> bytes:
    """Two thousand entries over one content."""
    content = bytearray(_archive(b"\x80\x02}.", bytes(400_000)))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = archive.start_dir
    directory = bytes(content[start:-22])
    end = bytearray(content[-22:])
    entry = directory[directory.index(b"PK\x01\x02", 4) :]
    many = directory + entry * 2_000
    end[8:12] = struct.pack("<HH", 2_002, 2_002)
    end[12:16] = struct.pack("<I", len(many))
    return bytes(content[:start]) + many + bytes(end)


def _program(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


_WHOLE = _tensor(4, 0, (2, 2), (2, 1))

TORCH_ATTACKS: dict[str, Callable[[], bytes]] = {
    **{f"pickle-{name}": (lambda make=make: _archive(make())) for name, make in list(PICKLE_ATTACKS.items())[:34]},
    "larger-than-its-storage": lambda: _of_tensor(4, 0, (2**33,), (1,)),
    "expanded": lambda: _of_tensor(4, 0, (2**33,), (0,)),
    "expanded-in-64-dimensions": lambda: _of_tensor(4, 0, (2,) * 64, (0,) * 64),
    "offset-outside": lambda: _of_tensor(4, 2**40, (1,), (1,)),
    "offset-below-zero": lambda: _of_tensor(4, -1, (1,), (1,)),
    "strides-outside": lambda: _of_tensor(4, 0, (2, 2), (2**40, 1)),
    "strides-below-zero": lambda: _of_tensor(4, 3, (2, 2), (-2, -1)),
    "empty-with-huge-sides": lambda: _of_tensor(4, 0, (0, 2**62, 2**62), (1, 1, 1)),
    "storage-larger-than-its-part": lambda: _of_tensor(2**40, 0, (2,), (1,)),
    "storage-below-zero": lambda: _of_tensor(-4, 0, (0,), (1,)),
    "storage-described-twice": lambda: _archive(
        _program(b"](" + _tensor(4, 0, (1,), (1,)) + _tensor(2**40, 0, (1,), (1,)) + b"e")
    ),
    "bytearray-of-10-gb": lambda: _archive(_program(b"c__builtin__\nbytearray\n" + _integer(10**10) + b"\x85R")),
    "tuples-deep-as-a-key": lambda: _archive(_program(b"})" + b"\x85" * 200_000 + b"Ns")),
    "state-of-a-tensor": lambda: _archive(_program(_WHOLE + b"(" + _STORAGE % b"K\x04" + b"K\x00)K\x01tb")),
    "parameter-of-a-number": lambda: _archive(_program(b"ctorch._utils\n_rebuild_parameter\n(K\x01\x89}tR")),
    "sparse": lambda: _archive(_program(b"ctorch._utils\n_rebuild_sparse_tensor\n)R")),
    "compressed": lambda: _archive(_program(b"}"), bytes(10**8), zipfile.ZIP_DEFLATED),
    "overlapping-parts": _overlapping,
    "storage-outside-of-its-folder": lambda: _archive(
        _program(_WHOLE.replace(b"X\x01\x00\x00\x000", b"X\x05\x00\x00\x00../.."))
    ),
    "big-endian": lambda: _archive(_program(b"}"), byteorder=b"big"),
    "no-program": lambda: _archive(b""),
    "no-parts": lambda: b"PK\x05\x06" + bytes(18),
    "legacy-length-of-2-to-the-60": lambda: _legacy(_program(_tensor(2**60, 0, (1,), (1,))), struct.pack("<q", 2**60)),
    "legacy-length-that-differs": lambda: _legacy(_program(_WHOLE), struct.pack("<q", -1) + bytes(16)),
    "legacy-cut": lambda: _legacy(_program(_WHOLE), struct.pack("<q", 4) + bytes(9)),
    "legacy-of-modules": lambda: _legacy(_program(_WHOLE.replace(b"storage", b"modules")), b""),
}


def _npz(how: int = zipfile.ZIP_DEFLATED, **parts: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, part in parts.items():
            archive.writestr(f"{name}.npy", part)
    return file.getvalue()


def _npy(header: str, content: bytes = b"") -> bytes:
    raw = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + content


def _objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([torch.nn.Module, None], object))
    return file.getvalue()


NPZ_ATTACKS: dict[str, Callable[[], bytes]] = {
    "200-megabytes-of-zeros": lambda: _npz(v_template=bytes(2 * 10**8)),
    "header-of-a-petabyte": lambda: _npz(f=_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10**14,), }")),
    "header-with-a-shape-of-a-petabyte": lambda: _npz(
        f=_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (140737488355328,), }")
    ),
    "header-with-a-negative-shape": lambda: _npz(f=_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }")),
    "header-nested": lambda: _npz(f=_npy("(" * 9000)),
    "header-of-objects": lambda: _npz(f=_objects()),
    "header-of-structures": lambda: _npz(
        f=_npy("{'descr': [('a', '<f8', (2147483647,))], 'fortran_order': False, 'shape': (1,), }")
    ),
    "no-array": lambda: _npz(f=b"hello"),
    "other-compression": lambda: _npz(zipfile.ZIP_LZMA, f=bytes(100)),
    "nothing": lambda: b"PK\x05\x06" + bytes(18),
}
