"""Which device and precision a video is made with."""

import platform

import torch

from fantasyid.core.choices import Device, Dtype
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.upstream import computes_bfloat16_fast
from fantasyid.generation.request import ModelRequest
from fantasyid.pipelines.parallel import connect, process_count


def choose_device(device: Device, dtype: Dtype) -> tuple[torch.device, torch.dtype]:
    """Choose what is left open, and connect the processes where there are several.

    Args:
        device: Where to compute.
        dtype: Precision of the video network and the VAE.

    Returns:
        What to use.

    Raises:
        InvalidRequestError: There is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidRequestError("There is no usable CUDA device on this machine; use --device cpu.")
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    used = connect(name) if process_count() > 1 else torch.device(name)
    if dtype != "auto":
        return used, getattr(torch, dtype)
    # Measured on two cores: with bfloat16 instructions the built-in model is 1.7 times as fast; without, it is slower.
    return used, torch.bfloat16 if name == "cuda" or computes_bfloat16_fast() else torch.float32


def check_gpus(model: ModelRequest) -> None:
    """Refuse more GPUs than there are.

    Args:
        model: Says how many are wanted.

    Raises:
        InvalidRequestError: There are fewer.
    """
    found = 0 if model.device == "cpu" else torch.cuda.device_count()
    if found < model.gpus:
        raise InvalidRequestError(
            f"--gpus is {model.gpus}, and {found} CUDA devices may be used; give as many or fewer."
        )


def device_name(device: torch.device) -> str:
    """A device by its full name, with how many work together.

    Args:
        device: The one that this process holds.
    """
    if device.type == "cuda":
        count = f"{process_count()} x " if process_count() > 1 else ""
        return f"{count}cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"
