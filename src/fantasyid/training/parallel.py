"""Data parallel training in plain PyTorch: started by torchrun, one process a GPU; without it, one process."""

import os
from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.upstream import copy_all


def start_processes(device: str) -> str:
    """Join the processes that torchrun started, if it did; returns this process's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    on_cuda = device.startswith("cuda")
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timeout=timedelta(hours=2))
    if not on_cuda:
        return device
    place = f"cuda:{os.environ['LOCAL_RANK']}"
    torch.cuda.set_device(place)
    return place


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_share(batch_size: int, accumulation: int = 1) -> int:
    """How many samples of a batch are computed at once in each process.

    Args:
        batch_size: Samples a step, of all processes together.
        accumulation: In how many parts each process computes its own.

    Raises:
        InvalidRequestError: They cannot be shared out evenly.
    """
    parts = num_processes() * accumulation
    if batch_size % parts:
        raise InvalidRequestError(
            f"A batch of {batch_size} cannot be shared out among {num_processes()} processes that each compute theirs "
            f"in {accumulation} parts; choose a batch_size that is a multiple of {parts}."
        )
    return batch_size // parts


def equalise(model: nn.Module) -> None:
    """Give all processes the weights and buffers of process 0."""
    if dist.is_initialized():
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.data, 0)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace gradients by their mean over the processes."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    copy_all(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])
