"""Meshes that attack: by the numbers of their headers, and by what they refer to."""

from collections.abc import Callable

_VERTEX = "element vertex {}\nproperty float x\nproperty float y\nproperty float z\n"
_FACE = "element face {}\nproperty list {} {} vertex_indices\n"


def _ply(
    vertices: object, faces: object, content: bytes, form: str = "ascii", lists: tuple[str, str] = ("uchar", "int")
) -> bytes:
    header = f"ply\nformat {form} 1.0\n{_VERTEX.format(vertices)}{_FACE.format(faces, *lists)}end_header\n"
    return header.encode() + content


_BINARY = "binary_little_endian"

PLY_ATTACKS: dict[str, Callable[[], bytes]] = {
    "vertices-of-2-to-the-40": lambda: _ply(2**40, 1, b"0 0 0\n3 0 0 0\n"),
    "binary-vertices-of-2-to-the-40": lambda: _ply(2**40, 1, bytes(100), _BINARY),
    "binary-vertices-that-overflow": lambda: _ply(2**62, 2**62, bytes(100), _BINARY),
    "vertices-below-zero": lambda: _ply(-1, -1, bytes(100), _BINARY),
    "list-of-4-billion": lambda: _ply(1, 1, bytes(12) + b"\xff" * 4 + bytes(12), _BINARY, ("uint", "int")),
    "list-below-zero": lambda: _ply(1, 1, bytes(12) + b"\xff" * 4 + bytes(12), _BINARY, ("int", "int")),
    "list-of-floats": lambda: _ply(1, 1, bytes(12) + b"\x00\x00\x40\x40" + bytes(12), _BINARY, ("float", "float")),
    "triangle-outside": lambda: _ply(3, 1, b"0 0 0\n1 0 0\n0 1 0\n3 0 1 99999999999\n"),
    "triangle-below-zero": lambda: _ply(3, 1, b"0 0 0\n1 0 0\n0 1 0\n3 0 1 -1\n"),
    "a-triangle-of-one-vertex": lambda: _ply(3, 1, b"0 0 0\n1 0 0\n0 1 0\n3 1 1 1\n"),
    "header-without-an-end": lambda: b"ply\nformat ascii 1.0\n" + b"comment a\n" * 50_000,
    "a-thousand-elements": lambda: (
        b"ply\nformat binary_little_endian 1.0\n"
        + b"".join(f"element e{n} 1000000\nproperty list uint double a\n".encode() for n in range(1000))
        + b"end_header\n"
        + b"\xff" * 4000
    ),
    "texture-of-a-device": lambda: _ply(0, 0, b"").replace(
        b"element vertex", b"comment TextureFile /dev/zero\nelement vertex"
    ),
}

_CORNERS = b"v 0 0 0\nv 1 0 0\nv 0 1 0\n"

OBJ_ATTACKS: dict[str, Callable[[], bytes]] = {
    "triangle-outside": lambda: _CORNERS + b"f 1 2 99999999999999999999999\n",
    "triangle-before-the-first": lambda: _CORNERS + b"f -9 -9 -9\n",
    "triangle-of-words": lambda: _CORNERS + b"f a b c\n",
    "polygon-of-a-megabyte": lambda: _CORNERS + b"f" + b" 1 2 3" * 150_000,
    "line-that-goes-on": lambda: _CORNERS + b"f 1 2 \\\n" * 100_000,
    "material-of-a-device": lambda: b"mtllib /dev/zero\nusemtl a\n" + _CORNERS,
    "digits-of-a-megabyte": lambda: b"v " + b"9" * 900_000 + b" 0 0\n" + _CORNERS + b"f 1 2 3\n",
    "no-vertices": lambda: b"f 1 2 3\n" * 1000,
}
