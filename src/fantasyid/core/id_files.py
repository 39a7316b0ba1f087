"""Files of ids, such as of the people who are kept out of training."""

from pathlib import Path


def read_ids(path: Path) -> set[str]:
    """Read one id a line; empty lines and those that begin with `#` are none."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {line for line in lines if line and not line.startswith("#")}
