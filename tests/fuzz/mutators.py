"""Ways to damage a file: any bytes, and those that know what a pickle, an archive, a header or a line of text is."""

import io
import json
import pickletools
import re
import zipfile
import zlib
from collections.abc import Callable
from random import Random

_NUMBERS = (0, 1, 2, 3, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)
_WORDS = (b"-1", b"0", b"nan", b"1e999", b"99999999999999999999", b"2147483648", b"null", b"[]", b"../x", b"\xff", b"")
_HEADER = 8


def mutate(seed: bytes, others: list[bytes], random: Random, text: bool) -> bytes:
    """Damage a file once to four times.

    Args:
        seed: The whole file.
        others: Files of the same format, to take parts of.
        random: Decides; the same state gives the same file.
        text: Whether it is lines of text.
    """
    content = seed
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        content = random.choice(_ways(content, text))(content, others, random)
    return content


_Way = Callable[[bytes, list[bytes], Random], bytes]


def _ways(content: bytes, text: bool) -> list[_Way]:
    ways: list[_Way] = [_flip, _number, _cut, _remove, _repeat, _insert, _splice]
    if text:
        ways += [_word, _word, _line, _line]
    if content[:2] == b"PK":
        ways += [_part_of_archive] * 4
    if content[:1] in (b"\x80", b"(", b"]", b"}"):
        ways += [_opcode] * 5
    if content[_HEADER : _HEADER + 1] == b"{":
        ways += [_header_of_safetensors] * 4
    return ways


def _span(content: bytes, random: Random, longest: int = 64) -> tuple[int, int]:
    start = random.randrange(len(content) + 1)
    return start, min(len(content), start + random.choice((1, 2, 4, 8, random.randint(1, longest))))


def _flip(content: bytes, others: list[bytes], random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(min(len(content), random.choice((1, 1, 2, 8)))):
        changed[random.randrange(len(content))] ^= random.choice((1, 2, 4, 8, 16, 32, 64, 128, 255))
    return bytes(changed)


def _number(content: bytes, others: list[bytes], random: Random) -> bytes:
    size = random.choice((1, 2, 4, 8))
    number = random.choice(_NUMBERS) % 256**size
    start = random.randrange(len(content) + 1)
    return content[:start] + number.to_bytes(size, random.choice(("little", "big"))) + content[start + size :]


def _cut(content: bytes, others: list[bytes], random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _remove(content: bytes, others: list[bytes], random: Random) -> bytes:
    start, stop = _span(content, random)
    return content[:start] + content[stop:]


def _repeat(content: bytes, others: list[bytes], random: Random) -> bytes:
    start, stop = _span(content, random)
    return content[:stop] + content[start:stop] * random.choice((1, 2, 50)) + content[stop:]


def _insert(content: bytes, others: list[bytes], random: Random) -> bytes:
    start, _ = _span(content, random)
    return content[:start] + random.randbytes(random.randint(1, 16)) + content[start:]


def _splice(content: bytes, others: list[bytes], random: Random) -> bytes:
    other = random.choice(others)
    start, stop = _span(other, random, 400)
    place, _ = _span(content, random)
    return content[:place] + other[start:stop] + content[place + random.choice((0, stop - start)) :]


def _word(content: bytes, others: list[bytes], random: Random) -> bytes:
    words = list(re.finditer(rb"[\w.+-]+", content))
    if not words:
        return content
    word = random.choice(words)
    return content[: word.start()] + random.choice(_WORDS) + content[word.end() :]


def _line(content: bytes, others: list[bytes], random: Random) -> bytes:
    lines = content.split(b"\n")
    place = random.randrange(len(lines))
    lines[place : place + 1] = random.choice(([], [lines[place]] * 2, [random.choice(lines)], [b"\\"]))
    return b"\n".join(lines)


def _opcode(content: bytes, others: list[bytes], random: Random) -> bytes:
    """Change one opcode of a pickle: its code, its argument, its place, or how often it stands there."""
    try:
        places = [position for _, _, position in pickletools.genops(content)]
    except ValueError:
        return content
    chosen = random.randrange(len(places))
    parts = [content[start:stop] for start, stop in zip(places, [*places[1:], len(content)], strict=True)]
    part, other = parts[chosen], random.choice(parts)
    kept = part[1:]
    parts[chosen : chosen + 1] = random.choice(
        (
            [random.choice(pickletools.opcodes).code.encode("latin-1") + kept],
            [part[:1] + random.choice(_NUMBERS).to_bytes(8, "little")[: max(len(kept), 1)]],
            [part] * random.choice((2, 3, 100)),
            [other, part],
            [other],
            [],
            [random.choice((b"0", b"2", b"b", b"R", b"\x81", b"s", b"a", b"u", b"e", b"t", b"Q", b"("))],
        )
    )
    return b"".join(parts)


def _part_of_archive(content: bytes, others: list[bytes], random: Random) -> bytes:
    """Damage what is inside of an archive, and write it again with the right checksums."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = [(entry.filename, archive.read(entry), entry.compress_type) for entry in archive.infolist()]
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError, NotImplementedError, KeyError, zlib.error):
        return content
    chosen = random.randrange(len(parts)) if parts else 0
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as archive:
        for place, (name, part, how) in enumerate(parts):
            if place == chosen and random.random() < 0.05:
                continue
            if place == chosen:
                ways = [_flip, _number, _cut, _repeat, _splice]
                ways += [_opcode] * 8 if name.endswith("data.pkl") else []
                part = random.choice(ways)(part or b"\0", [part or b"\0"], random)
            archive.writestr(zipfile.ZipInfo(name), part, how)
    return changed.getvalue()


def _header_of_safetensors(content: bytes, others: list[bytes], random: Random) -> bytes:
    """Damage the header, and write its length again."""
    length = int.from_bytes(content[:_HEADER], "little")
    header, rest = content[_HEADER : _HEADER + length], content[_HEADER + length :]
    try:
        entries = json.loads(header)
    except ValueError:
        entries = {}
    if entries and isinstance(entries, dict) and random.random() < 0.5:
        entry = entries[random.choice(list(entries))]
        if isinstance(entry, dict):
            entry |= random.choice(
                (
                    {"dtype": random.choice(("F64", "BOOL", "I8", "F8_E4M3", "U64", "C64", "F4", "x"))},
                    {"shape": random.choice(([], [0], [2**62, 4], [-1], [1] * 70, "x", [64, 64, 1]))},
                    {"data_offsets": random.choice(([0, 0], [0, 2**63], [8, 4], [0], None))},
                )
            )
        header = json.dumps(entries).encode()
    else:
        header = random.choice((_flip, _word, _remove, _repeat))(header, others, random)
    return len(header).to_bytes(_HEADER, "little") + header + rest
