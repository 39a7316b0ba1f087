"""Pickles that attack: through numpy's own state setters, by numbers, by sharing, and by what they ask to call."""

import pickle
import struct
from collections.abc import Callable

_STOP = b"."


def _text(content: str) -> bytes:
    raw = content.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _bytes(content: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(content)) + content


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _tuple(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def _shape(*sizes: int) -> bytes:
    return _tuple(*map(_number, sizes))


def _call(function: bytes, *arguments: bytes) -> bytes:
    return function + _tuple(*arguments) + b"R"


def _dtype(code: str, state: bytes = b"") -> bytes:
    plain = _tuple(b"K\x03", _text("<"), b"NNN", _number(-1), _number(-1), b"K\x00")
    return _call(_name("numpy", "dtype"), _text(code), b"\x89", b"\x88") + (state or plain) + b"b"


def _empty() -> bytes:
    name = _name("numpy.core.multiarray", "_reconstruct")
    return _call(name, _name("numpy", "ndarray"), _shape(0), _bytes(b"b"))


def _array(shape: bytes, dtype: bytes, content: bytes, fortran: bytes = b"\x89") -> bytes:
    return _empty() + _tuple(b"K\x01", shape, dtype, fortran, content) + b"b"


def _object(module: str, name: str, **state: bytes) -> bytes:
    entries = b"".join(_text(key) + value for key, value in state.items())
    return _name(module, name) + b")\x81}(" + entries + b"ub"


def _matrix(layout: str, shape: bytes, data: bytes, indices: bytes, indptr: bytes) -> bytes:
    return (
        _object("scipy.sparse", f"{layout}")
        if not data
        else _object(
            f"scipy.sparse._{layout}", f"{layout}_matrix", _shape=shape, data=data, indices=indices, indptr=indptr
        )
    )


def _select(source: bytes, indices: bytes, **state: bytes) -> bytes:
    return _object("chumpy.reordering", "Select", a=source, idxs=indices, **state)


def _floats(count: int) -> bytes:
    return _array(_shape(count), _dtype("f8"), _bytes(bytes(8 * count)))


def _integers(*values: int, size: int = 8) -> bytes:
    content = b"".join(value.to_bytes(size, "little", signed=True) for value in values)
    return _array(_shape(len(values)), _dtype(f"i{size}"), _bytes(content))


def _pickle(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + _STOP


def _laughs(one: bytes, joined: bytes, levels: int = 60) -> bytes:
    """Each level holds the one before it twice: 2 ** levels of them for whoever walks without a memory."""
    levels_made = b"".join(f"q{chr(level)}".encode("latin-1") + b"2" + joined for level in range(levels))
    return _pickle(one, levels_made)


def _shared(count: int, part: bytes, size: int) -> bytes:
    """`part` again and again, over one large content that stands in the file once, as object 200."""
    return _pickle(_bytes(bytes(size)), b"q\xc80](", part * count, b"e")


# A type of pointers to objects that says it has none: its arrays take their addresses from the file.
_POINTERS = _dtype("O8", _tuple(b"K\x03", _text("|"), b"NNN", _number(-1), _number(-1), b"K\x00"))
# A structured type whose field lies outside of it: reading it reads, and setting it writes, somewhere else.
_FIELDS = b"}" + _text("a") + _tuple(_dtype("i8"), _number(2**40)) + b"s"
_OUTSIDE = _dtype("V8", _tuple(b"K\x03", _text("|"), b"N", _tuple(_text("a")), _FIELDS, b"K\x08", b"K\x01", b"K\x00"))
# A type of numbers that says it is of another size, after an array was made of it.
_RESIZED = _dtype("f8", _tuple(b"K\x03", _text("<"), b"NNN", _number(2**31 - 1), _number(1), b"K\x00"))
_SUBARRAY = _dtype(
    "V8", _tuple(b"K\x03", _text("|"), _tuple(_dtype("i8"), _shape(2**31)), b"NN", b"K\x08", b"K\x01", b"K\x00")
)
_METADATA = _dtype(
    "M8", _tuple(b"K\x04", _text("<"), b"NNN", _number(-1), _number(-1), b"K\x00", _tuple(b"}", b"K\x01"))
)

PICKLE_ATTACKS: dict[str, Callable[[], bytes]] = {
    # numpy's state setters.
    "jump-to-an-address": lambda: _pickle(_array(_shape(1), _POINTERS, _bytes(struct.pack("<Q", 0x4141414141414141)))),
    "pointers-in-a-list": lambda: _pickle(_array(_shape(2), _POINTERS, b"]" + b"(NNe")),
    "write-where-the-file-says": lambda: _pickle(
        _array(_shape(1), _OUTSIDE, _bytes(bytes(8))), b"K\x00", _tuple(b"G" + bytes(8)), b"s"
    ),
    "read-where-the-file-says": lambda: _pickle(b"](", _array(_shape(1), _OUTSIDE, _bytes(bytes(8))), b"e"),
    "field-outside-of-its-type": lambda: _pickle(_array(_shape(1), _OUTSIDE, _bytes(bytes(8)))),
    "type-of-another-size": lambda: _pickle(_array(_shape(1), _RESIZED, _bytes(bytes(8))), b"a"),
    "type-of-subarrays": lambda: _pickle(_array(_shape(1), _SUBARRAY, _bytes(bytes(8)))),
    "type-with-metadata": lambda: _pickle(_array(_shape(1), _METADATA, _bytes(bytes(8)))),
    "state-of-a-type-given-twice": lambda: _pickle(_dtype("f8"), _tuple(b"K\x03", _text("|"), b"N") + b"b"),
    "memory-behind-a-buffer": lambda: _pickle(_array(_shape(1000), _dtype("f8"), _bytes(bytes(8)))),
    "written-behind-a-buffer": lambda: _pickle(_floats(1), _number(1000), b"G" + bytes(8), b"s"),
    "write-through-a-key": lambda: _pickle(_array(_shape(8), _dtype("u1"), _bytes(bytes(8))), b"}b", b"K\x00K\xffs"),
    "array-without-a-state": lambda: _pickle(_empty()),
    "array-that-is-its-own-type": lambda: _pickle(
        _empty(), b"q\x00", _tuple(b"K\x01", _shape(1), b"h\x00", b"\x89", _bytes(b"a")), b"b"
    ),
    "array-of-a-size-alone": lambda: _pickle(_call(_name("numpy", "ndarray"), _shape(2**33))),
    "array-over-a-buffer": lambda: _pickle(
        _call(_name("numpy", "ndarray"), _shape(2**20), _dtype("u1"), _bytes(bytes(8)), b"K\x00", _shape(2**20))
    ),
    "from-a-buffer-too-small": lambda: _pickle(
        _call(_name("numpy.core.numeric", "_frombuffer"), _bytes(bytes(8)), _dtype("f8"), _shape(2**40), _text("C"))
    ),
    "axes-outside": lambda: _pickle(
        _call(_name("numpy.core.numeric", "_frombuffer"), _bytes(b""), _dtype("f8"), _shape(0), _text("K"), _shape(7))
    ),
    "shape-that-overflows": lambda: _pickle(_array(_shape(2**32, 2**32, 0), _dtype("u1"), _bytes(b""))),
    "shape-below-zero": lambda: _pickle(_array(_shape(-1, -8), _dtype("u1"), _bytes(bytes(8)))),
    "shape-of-100-dimensions": lambda: _pickle(_array(_shape(*[1] * 100), _dtype("u1"), _bytes(b"a"))),
    "shape-of-truth-values": lambda: _pickle(_array(_tuple(b"\x88"), _dtype("u1"), _bytes(b"a"))),
    "number-of-128-bits": lambda: _pickle(_array(_shape(1), _dtype("f16"), _bytes(bytes(16)))),
    # Numbers.
    "memo-of-2-to-the-31": lambda: b"\x80\x02Nr\xff\xff\xff\x7f.",
    "memo-in-text": lambda: b"\x80\x02Np99999999999999999999\n.",
    "memo-below-zero": lambda: b"Np-1\n.",
    "bytes-of-2-to-the-62": lambda: _pickle(b"\x8e" + struct.pack("<Q", 2**62) + b"a"),
    "bytes-of-2-to-the-64": lambda: _pickle(b"\x8e" + struct.pack("<Q", 2**64 - 1) + b"a"),
    "bytearray-of-2-to-the-62": lambda: _pickle(b"\x96" + struct.pack("<Q", 2**62) + b"a"),
    "text-of-2-to-the-62": lambda: _pickle(b"\x8d" + struct.pack("<Q", 2**62) + b"a"),
    "bytes-of-4-gb": lambda: _pickle(b"B\xff\xff\xff\xff"),
    "string-of-minus-one": lambda: _pickle(b"T\xff\xff\xff\xff"),
    "frame-of-2-to-the-63": lambda: _pickle(b"\x95" + struct.pack("<Q", 2**63) + b"N", b"R"),
    "integer-of-a-megabyte": lambda: _pickle(b"\x8b" + struct.pack("<i", 900_000) + b"\x7f" * 900_000),
    "integer-of-a-million-digits": lambda: b"L" + b"9" * 900_000 + b"L\n.",
    "keys-with-one-hash": lambda: _pickle(b"}(", *[_number(k * (2**61 - 1)) + b"N" for k in range(50_000)], b"u"),
    "half-a-million-sets": lambda: b"\x8f" * 510_000 + _STOP,
    "many-dictionaries": lambda: b"(" + b"}K\x01K\x01s" * 50_000 + b"lR.",
    "many-marks": lambda: b"(" * 200_000,
    # Sharing and depth.
    "laughing-lists": lambda: _laughs(b"](NNe", b"](h\x00h\x00e").replace(b"h\x00h\x00", b"NN"),
    "laughing-tuples": lambda: _pickle(b"K\x01", b"2\x86" * 60),
    "laughing-tuples-in-a-set": lambda: _pickle(b"\x8f(K\x01", b"2\x86" * 60, b"\x90"),
    "laughing-dictionaries": lambda: _pickle(
        b"}q\x00",
        *[b"}(" + b"K\x00h" + bytes([n]) + b"K\x01h" + bytes([n]) + b"uq" + bytes([n + 1]) for n in range(60)],
    ),
    "list-in-itself": lambda: _pickle(b"]q\x00h\x00a"),
    "dictionary-in-itself": lambda: _pickle(b"}q\x00K\x01h\x00s"),
    "tuple-in-itself": lambda: _pickle(b"]q\x00h\x00\x85a"),
    "chumpy-in-itself": lambda: _pickle(_name("chumpy.ch", "Ch"), b")\x81q\x00}", _text("x"), b"h\x00sb"),
    "selection-of-itself": lambda: _pickle(
        _name("chumpy.reordering", "Select"), b")\x81q\x00}(", _text("a"), b"h\x00", _text("idxs"), b"h\x00ub"
    ),
    "lists-deep": lambda: _pickle(b"]" * 100_000, b"a" * 99_999),
    "tuples-deep": lambda: _pickle(b")", b"\x85" * 200_000),
    "tuples-deep-as-a-key": lambda: _pickle(b"})", b"\x85" * 200_000, b"Ns"),
    "tuples-deep-in-a-set": lambda: _pickle(b"\x8f()", b"\x85" * 200_000, b"\x90"),
    "chumpy-deep": lambda: _pickle(b"N", (b"q\x000" + _name("chumpy.ch", "Ch") + b")\x81}U\x01xh\x00sb") * 10_000),
    "arrays-over-one-content": lambda: _shared(3_000, _array(_shape(400_000), _dtype("u1"), b"h\xc8"), 400_000),
    "bytes-encoded-again-and-again": lambda: _pickle(
        _text("a" * 400_000),
        b"q\xc80](",
        (_name("_codecs", "encode") + b"(h\xc8" + _text("latin1") + b"tR") * 8_000,
        b"e",
    ),
    "selections-of-one-array": lambda: _pickle(
        _array(_shape(300_000), _dtype("u1"), _bytes(bytes(300_000))),
        b"q\xc80",
        _floats(1),
        b"q\xc90](",
        _select(b"h\xc9", b"h\xc8") * 3_000,
        b"e",
    ),
    "matrix-of-a-million-rows": lambda: _pickle(
        _matrix("csc", _shape(2**40, 1), _floats(1), _integers(0), _integers(0, 1))
    ),
    "matrices-over-one-content": lambda: _pickle(
        _array(_shape(100_000), _dtype("f4"), _bytes(bytes(400_000))),
        b"q\xc80",
        _array(_shape(100_001), _dtype("i1"), _bytes(bytes(100_001))),
        b"q\xc90",
        _array(_shape(100_000), _dtype("i1"), _bytes(bytes(100_000))),
        b"q\xca0](",
        _matrix("csr", _shape(100_000, 100_000), b"h\xc8", b"h\xca", b"h\xc9") * 500,
        b"e",
    ),
    # What points outside.
    "matrix-index-outside": lambda: _pickle(
        _matrix("csr", _shape(1, 2), _floats(1), _integers(2**40), _integers(0, 1))
    ),
    "matrix-index-below-zero": lambda: _pickle(
        _matrix("csr", _shape(1, 2), _floats(1), _integers(-1), _integers(0, 1))
    ),
    "matrix-rows-that-fall": lambda: _pickle(
        _matrix("csc", _shape(2, 3), _floats(2), _integers(0, 1), _integers(0, 2**40, -(2**40), 2))
    ),
    "matrix-that-ends-at-zero": lambda: _pickle(
        _matrix("csc", _shape(4, 5), _floats(4), _integers(0, 1, 2, 3), _integers(0, 1, 2, 3, 2**40, 0))
    ),
    "matrix-of-lists": lambda: _pickle(_matrix("csc", _shape(1, 1), b"](K\x01e", b"](K\x00e", b"](K\x00K\x01e")),
    "matrix-of-half-precision": lambda: _pickle(
        _matrix("csr", _shape(1, 1), _array(_shape(1), _dtype("f2"), _bytes(b"ab")), _integers(0), _integers(0, 1))
    ),
    "selection-outside": lambda: _pickle(_select(_floats(2), _integers(2**40))),
    "selection-by-floats": lambda: _pickle(_select(_floats(2), _floats(1))),
    "selection-for-another-shape": lambda: _pickle(_select(_floats(2), _integers(0), preferred_shape=_shape(-1, 7))),
    # What is asked for.
    "system": lambda: pickle.dumps(_Asks("os", "system", "true"), 0),
    "eval": lambda: _pickle(_call(_name("builtins", "eval"), _text("1"))),
    "getattr": lambda: _pickle(_call(_name("builtins", "getattr"), _name("numpy", "ndarray"), _text("__class__"))),
    "attribute-of-a-function": lambda: _pickle(
        _text("numpy.core.multiarray"), _text("_reconstruct.__globals__"), b"\x93"
    ),
    "subclasses": lambda: _pickle(_text("builtins"), _text("object.__subclasses__"), b"\x93)R"),
    "name-in-two-halves": lambda: _pickle(_text("numpy.core"), _text("multiarray._reconstruct"), b"\x93."),
    "name-that-is-a-number": lambda: _pickle(b"K\x01K\x02\x93"),
    "name-of-half-a-megabyte": lambda: _pickle(_text("a" * 500_000), _text("\x1b[2J" * 1000), b"\x93"),
    "state-of-a-class": lambda: _pickle(_name("chumpy.ch", "Ch"), b"N}", _text("poison"), b"K\x01s\x86b"),
    "extension-registry": lambda: _pickle(b"\x82\x01"),
    "instance-by-name": lambda: b"(ios\nsystem\n.",
    "object-by-class": lambda: b"(" + _name("chumpy.ch", "Ch") + b"o.",
    "new-object-with-arguments": lambda: _pickle(_name("builtins", "object"), b"K\x01\x85\x81"),
    "persistent-name": lambda: b"Pname\n.",
    "persistent-object": lambda: b"NQ.",
    "out-of-band-buffer": lambda: b"\x80\x05\x97.",
    "codec-that-unfolds": lambda: _pickle(_call(_name("_codecs", "encode"), _text("a"), _text("zlib"))),
    "call-without-arguments": lambda: _pickle(_name("numpy", "dtype"), b"NR"),
    "call-of-a-list": lambda: _pickle(b"])R"),
    "set-of-lists": lambda: _pickle(_call(_name("builtins", "set"), b"](]e")),
    "set-of-a-number": lambda: _pickle(_call(_name("builtins", "set"), b"K\x05")),
    # What is no program.
    "nothing": lambda: b"",
    "stop-alone": lambda: b".",
    "mark-alone": lambda: b"(.",
    "no-stop": lambda: b"\x80\x04N",
    "items-without-a-mark": lambda: _pickle(b"]Ne"),
    "key-without-a-value": lambda: _pickle(b"}(K\x01u"),
    "protocol-255": lambda: b"\x80\xffN.",
}


class _Asks:
    def __init__(self, module: str, name: str, argument: str) -> None:
        self.call = getattr(__import__(module), name), (argument,)

    def __reduce__(self):
        return self.call
