"""Seeds as functions of words, so that what is drawn at random need not be kept."""

from hashlib import blake2b


def seed_of(*words: int | str) -> int:
    """A seed that tells these words from all others, 0 to 2**63 - 1."""
    content = "/".join(str(word) for word in words).encode()
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little") >> 1
