"""Data parallel training in plain PyTorch: started by torchrun, one process a GPU; without it, one process."""

import os
from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.upstream import copy_all
from fantasyid.models.transformer import FantasyIDTransformer3DModel


def start_processes(device: str) -> str:
    """Join the processes that torchrun started, if it did; returns this process's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    on_cuda = device.startswith("cuda")
    if not dist.is_initialized():
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


def own_share(batch_size: int, accumulation: int = 1, processes: int | None = None) -> int:
    """How many samples of a batch are computed at once in each process.

    Args:
        batch_size: Samples a step, of all processes together.
        accumulation: In how many parts each process computes its own.
        processes: How many there are; those that train now when None.

    Raises:
        InvalidRequestError: They cannot be shared out evenly.
    """
    processes = num_processes() if processes is None else processes
    parts = processes * accumulation
    if batch_size % parts:
        raise InvalidRequestError(
            f"A batch of {batch_size} cannot be shared out among {processes} processes that each compute theirs in "
            f"{accumulation} parts; choose another accumulation, or a batch_size that is a multiple of {parts}."
        )
    return batch_size // parts


def check_grouping(processes: int, among: int) -> None:
    """Refuse to share weights out among a number of processes that does not divide all.

    Raises:
        InvalidRequestError: It does not.
    """
    if processes % among:
        raise InvalidRequestError(
            f"{processes} processes cannot be grouped by {among}; set shard_among to a number that divides them."
        )


def share_out(transformer: FantasyIDTransformer3DModel, among: int) -> None:
    """Share a transformer's weights out, block by block (FSDP2); each block is put together while it computes.

    Weights keep their types, and computing in bfloat16 is autocast's, so the numbers are those of one process.

    Args:
        transformer: On its device, recomputed and compiled as it should be; changed in place.
        among: How many processes share one copy. With fewer than there are, groups of them hold the same.

    Raises:
        InvalidRequestError: The processes cannot be grouped so.
    """
    processes = num_processes()
    check_grouping(processes, among)
    if among == 1:
        return
    shape, names = ((processes // among, among), ("copies", "parts")) if among < processes else ((among,), ("parts",))
    mesh = init_device_mesh(transformer.device.type, shape, mesh_dim_names=names)
    for block in transformer.transformer_blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(transformer, mesh=mesh)


def wait_for_all() -> None:
    """Go on once all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def any_says(flag: bool) -> bool:
    """Whether one of the processes says so; all of them learn the same."""
    if not dist.is_initialized():
        return flag
    flags = torch.tensor([float(flag)])
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags[0] > 0)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of each process's value, on its device."""
    value = value.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value


def own_part(tensor: Tensor) -> Tensor:
    """Of a tensor that is shared out, what lies here; a whole one as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is shared out, put together; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shared_out_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor that every process has, what `like` has here of its own, on its device."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    tensor = tensor.to(like.device_mesh.device_type)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def equalise(model: nn.Module) -> None:
    """Give all processes the weights and buffers of process 0."""
    if dist.is_initialized():
        for tensor in (*model.parameters(), *model.buffers()):
            if not isinstance(tensor, DTensor):
                dist.broadcast(tensor.data, 0)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace gradients by their mean over the processes; those of weights that are shared out are it already."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    copy_all(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])


def clip_gradients(parameters: Iterable[Tensor], largest: float) -> Tensor:
    """Scale gradients down to a norm, over all weights and all processes.

    Args:
        parameters: The weights.
        largest: The norm.

    Returns:
        The norm before, the same in all processes.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    kinds = ([g for g in gradients if isinstance(g, DTensor) == is_shared] for is_shared in (False, True))
    norms = [whole(nn.utils.get_total_norm(kind)) for kind in kinds if kind]
    norm = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
    scale = (largest / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        own_part(gradient).mul_(scale)
    return norm
