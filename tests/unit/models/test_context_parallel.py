"""The context-parallel plan, on two processes of this machine."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from diffusers.models import ContextParallelConfig

from tests.tiny import noise, open_injection, tiny_transformer, tiny_transformer_inputs

VARIANTS = [{}, {"use_layer_aware": False}, {"injection_interval": 2}]


def run_rank(rank: int, folder: Path) -> None:
    """Run every variant on one of two devices and save what rank 0 gets.

    72 video tokens in 3 frames: each device holds one and a half.
    """
    torch.set_num_threads(1)
    # Diffusers divides by the number of accelerators; this process stands for one.
    torch.accelerator.device_count = lambda: 1
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    outputs = []
    for variant in VARIANTS:
        model = tiny_transformer(**variant).eval()
        open_injection(model)
        model.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
        with torch.no_grad():
            outputs.append(model(**tiny_transformer_inputs(), identity_tokens=noise(2, 7, 24, seed=4)).sample)
    if rank == 0:
        torch.save(outputs, folder / "outputs.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="PyTorch was built without gloo")
def test_two_devices_equal_one(tmp_path: Path) -> None:
    mp.spawn(run_rank, args=(tmp_path,), nprocs=2)
    for variant, parallel in zip(VARIANTS, torch.load(tmp_path / "outputs.pt"), strict=True):
        model = tiny_transformer(**variant).eval()
        open_injection(model)
        with torch.no_grad():
            alone = model(**tiny_transformer_inputs(), identity_tokens=noise(2, 7, 24, seed=4)).sample
        torch.testing.assert_close(parallel, alone)
