"""Reading weights that others published with `torch.save`; nothing in such a file is executed."""

import pickle
from pathlib import Path
from typing import Any

import torch

from fantasyid.core.errors import CorruptWeightsError


def load_torch_file(path: Path, remedy: str = "download it again") -> dict[str, Any]:
    """Read weights by name.

    Args:
        path: An existing file.
        remedy: How to get a whole one, for the error.

    Returns:
        What was saved, on the CPU.

    Raises:
        CorruptWeightsError: It is damaged, holds anything but tensors and plain containers, or is no dictionary.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise CorruptWeightsError(f"{path} is no readable PyTorch file ({reason}); {remedy}.") from error
    if not isinstance(content, dict):
        raise CorruptWeightsError(f"{path} holds a {type(content).__name__} and no weights by name; {remedy}.")
    return content
