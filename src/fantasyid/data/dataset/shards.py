"""Files of many tensors: safetensors, by name; the same tensors give the same bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fantasyid.core.errors import CorruptDatasetError, short_reason


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a shard, without metadata: safetensors orders several keys of it differently in each process.

    Args:
        path: The file to make, in a folder that exists. It is written plainly: see `core.output_files`.
        tensors: By name; their order does not count.
    """
    safetensors.torch.save_file({name: tensors[name].contiguous() for name in sorted(tensors)}, path)


class Shard:
    """An open shard, whose tensors are read one by one.

    Args:
        path: The file.
        remedy: How to get a whole one, for errors.

    Raises:
        CorruptDatasetError: It is missing or damaged.
    """

    def __init__(self, path: Path, remedy: str) -> None:
        self._path, self._remedy = path, remedy
        try:
            self._file: Any = safe_open(path, "pt")
        except (OSError, SafetensorError) as error:
            raise CorruptDatasetError(f"{path} cannot be read ({short_reason(error)}); {remedy}.") from error

    def names(self) -> tuple[str, ...]:
        """Names of its tensors, sorted."""
        return tuple(sorted(self._file.keys()))

    def tensor(self, name: str) -> Tensor:
        """Read a tensor.

        Raises:
            CorruptDatasetError: It is not in the shard.
        """
        try:
            tensor: Tensor = self._file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CorruptDatasetError(f"{self._path} has no {name}; {self._remedy}.") from error
        return tensor

    def part(self, name: str, *place: int) -> Tensor:
        """Read one place of the first dimensions of a tensor, and no other.

        Raises:
            CorruptDatasetError: It is not in the shard.
        """
        try:
            part: Tensor = self._file.get_slice(name)[place]
        except (OSError, SafetensorError, IndexError) as error:
            raise CorruptDatasetError(f"{self._path} has no {name}; {self._remedy}.") from error
        return part
