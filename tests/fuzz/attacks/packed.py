"""Manifests and safetensors files that attack our packed models."""

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any


def _manifest(tensors: dict[str, Any] | None = None, **shard: Any) -> bytes:
    name = sha256(b"").hexdigest()
    made = {"file": f"weights-{name[:16]}.safetensors", "sha256": name, "size_bytes": 0, **shard}
    content = {"model_class": "Net", "config": {}, "shards": [made], "tensors": tensors or {}}
    return json.dumps({"layout": "fantasyid-packed-1", **content}).encode()


MANIFEST_ATTACKS: dict[str, Callable[[], bytes]] = {
    "file-outside": lambda: _manifest(file="../../../etc/hostname"),
    "file-that-is-a-device": lambda: _manifest(file="/dev/zero"),
    "file-with-a-null": lambda: _manifest(file="weights-\0.safetensors"),
    "size-below-zero": lambda: _manifest(size_bytes=-1),
    "size-of-a-million-digits": lambda: _manifest().replace(b'"size_bytes": 0', b'"size_bytes": ' + b"9" * 900_000),
    "nested": lambda: b'{"config": ' + b"[" * 450_000 + b"]" * 450_000 + b"}",
    "not-utf-8": lambda: b'{"config": "\xff"}',
    "nothing": lambda: b"",
}


def _safetensors(header: object, content: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + content


def _tensor(dtype: str, shape: list[int], *offsets: int) -> dict[str, Any]:
    return {"linear.bias": {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}}


SAFETENSORS_ATTACKS: dict[str, Callable[[], bytes]] = {
    "header-of-2-to-the-64": lambda: _safetensors(b"{}", length=2**64 - 1),
    "header-of-a-gigabyte": lambda: _safetensors(b"{}", length=10**9),
    "header-nested": lambda: _safetensors(b"[" * 900_000),
    "shape-that-overflows": lambda: _safetensors(_tensor("F32", [2**32, 2**32], 0, 0)),
    "data-outside": lambda: _safetensors(_tensor("F32", [64], 0, 256), bytes(8)),
    "data-backwards": lambda: _safetensors(_tensor("F32", [0], 8, 0), bytes(8)),
    "data-overlapping": lambda: _safetensors(
        {name: {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]} for name in ("a", "b")}, bytes(8)
    ),
    "scale-of-another-shape": lambda: _safetensors(
        {
            "linear.weight": {"dtype": "I8", "shape": [64, 64], "data_offsets": [0, 4096]},
            "linear.weight:scale": {"dtype": "F32", "shape": [1], "data_offsets": [4096, 4100]},
            "linear.bias": {"dtype": "F32", "shape": [64], "data_offsets": [4100, 4356]},
            "halves": {"dtype": "F16", "shape": [4], "data_offsets": [4356, 4364]},
            "spiral": {"dtype": "I64", "shape": [2, 3], "data_offsets": [4364, 4412]},
        },
        bytes(4412),
    ),
    "nothing": lambda: b"",
}
