"""Reading safetensors files: a reader's errors become ours here."""

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from fantasyid.core.errors import CorruptWeightsError, short_reason

# SafetensorError for a damaged header, the others for what it says: types that this torch lacks, and odd shapes.
_DAMAGED = (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError, OverflowError)


def load_safetensors(path: Path, remedy: str) -> dict[str, torch.Tensor]:
    """Read all tensors of a file.

    Args:
        path: An existing file.
        remedy: How to get a whole one, as a sentence that ends the error.

    Returns:
        The tensors on the CPU, by name.

    Raises:
        CorruptWeightsError: It is damaged or cut off.
    """
    try:
        return safetensors.torch.load_file(path)
    except _DAMAGED as error:
        raise CorruptWeightsError(f"The weights {path} are damaged: {short_reason(error)}. {remedy}") from error
