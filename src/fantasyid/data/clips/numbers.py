"""Numbers and names that are the same on every machine."""

import hashlib
from typing import Any

import numpy as np


def rounded(value: float | np.floating[Any]) -> float:
    """Six digits: what is left is more than any rule looks at."""
    return float(f"{float(value):.6g}")


def digest(*parts: object) -> str:
    """A name of 80 bits for what texts, whole numbers and tuples of them identify."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=10).hexdigest()
