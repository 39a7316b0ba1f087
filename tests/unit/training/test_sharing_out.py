"""A transformer whose weights two processes share trains as it does in one, with CogVideoX's own blocks inside."""

import shutil
import sys
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from diffusers import CogVideoXDDIMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.precompute import LatentPool
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.training.checkpoint import Checkpoints
from fantasyid.training.config import GroupConfig, LoraConfig, OptimiserConfig, VideoStage
from fantasyid.training.groups import choose_groups, keep_frozen_in
from fantasyid.training.lora import add_lora
from fantasyid.training.objectives.video import SCHEDULER, VideoModel, VideoObjective
from fantasyid.training.parallel import (
    average_gradients,
    clip_gradients,
    num_processes,
    own_share,
    rank,
    share_out,
    start_processes,
    whole,
)
from fantasyid.training.recompute import recompute
from fantasyid.training.stages import StageInputs
from fantasyid.training.stages import train as train_stage
from fantasyid.training.trainer import BatchPart
from tests.processes import run_together
from tests.tiny import BASE_CONFIG, IDENTITY_CONFIG, noise, open_injection, tiny_identity_encoder, tiny_transformer

CLIPS, BATCH = 7, 4
ENCODER = {"face_dim": 32, "grid_size": 4, "pool_factor": 2, "hidden_dim": 64, "num_layers": 1}
ADDED = (GroupConfig(weights="identity_encoder"), GroupConfig(weights="injection"))
CASES: dict[str, tuple[tuple[GroupConfig, ...], Any, Any]] = {
    "all": ((), "nothing", "float32"),
    "all, recomputed": ((), "blocks", "float32"),
    "added": (ADDED, "nothing", "float32"),
    "added, recomputed but for attention": (ADDED, "all_but_attention", "float32"),
    "added to bfloat16": (ADDED, "blocks", "bfloat16"),
}
if find_spec("peft"):
    CASES["added, and a LoRA"] = ((*ADDED, GroupConfig(weights="base_lora")), "blocks", "float32")


def pool(coefficients: int) -> LatentPool:
    return LatentPool(
        clips=noise(CLIPS, 3, 4, 6, 4),
        reference=noise(CLIPS, 1, 4, 6, 4, seed=2),
        face_tokens=noise(CLIPS, 4, 4, 32, seed=3),
        identity=noise(CLIPS, coefficients, seed=4),
        text=noise(CLIPS, 6, 20, seed=5),
        null_text=noise(1, 6, 20, seed=6),
    )


def gradients(case: str) -> dict[str, Tensor]:
    """What every weight of the real classes gets, as the trainer computes it, and the norm over all."""
    groups, what, precision = CASES[case]
    transformer = tiny_transformer()
    open_injection(transformer)
    model = VideoModel(transformer, tiny_identity_encoder()).train()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())
    if "LoRA" in case:
        torch.manual_seed(0)
        add_lora(transformer, LoraConfig(rank=2, alpha=2.0))
        model.get_submodule("transformer.transformer_blocks.0.attn1.to_v.lora_B.default").weight.data.fill_(0.1)
    choose_groups(model, groups, OptimiserConfig(steps=1, batch_size=BATCH, learning_rate=1.0))
    keep_frozen_in(getattr(torch, precision), model)
    recompute(transformer, what)
    share_out(transformer, num_processes())
    assert isinstance(transformer.proj_out.weight, DTensor) == (num_processes() > 1)
    full = HeadModel.load()
    bases = {name: getattr(full, name)[:, :60] for name in ("identity_basis", "expression_basis")}
    head = replace(full, mean=full.mean[:60], **bases)
    goal = VideoObjective(
        pool(len(head.identity_basis)),
        CogVideoXDDIMScheduler(**SCHEDULER),
        head,
        BATCH,
        seed=0,
        device=torch.device("cpu"),
        precision=precision,
    )
    goal(model, BatchPart(0, rank(), num_processes()))["loss"].backward()
    average_gradients(model.parameters())
    norm = clip_gradients(model.parameters(), 1e9)
    found = {name: whole(p.grad).clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"norm": norm, **found}


def stage(steps: int, **changes: Any) -> VideoStage:
    even = {"steps": steps, "learning_rate": 0.01, "warmup_steps": 0, "cooldown": 0.01, "batch_size": BATCH}
    return VideoStage(
        stage="clips",
        optimiser={**even, **changes.pop("optimiser", {})},
        model={**BASE_CONFIG, **IDENTITY_CONFIG},
        objective={"identity_encoder": {**ENCODER, "spiral_channels": [8, 16]}, "precision": "float32"},
        groups=ADDED,
        **changes,
    )


def inputs(folder: Path, out: str) -> StageInputs:
    return StageInputs((folder / "pool",), folder / out, "cpu", init=folder / "base")


def together(folder: Path) -> None:
    """What each of two processes does; torchrun's variables are set."""
    torch.set_num_threads(1)
    start_processes("cpu")
    for case in CASES:
        found = gradients(case)
        if rank() == 0:
            save_file(found, folder / f"{case}.safetensors")
    for steps in (2, 4):
        assert train_stage(stage(steps, shard_among=2), inputs(folder, "shared"))
        if rank() == 0 and steps == 2:
            shutil.copytree(folder / "shared", folder / "half")
    with pytest.raises(InvalidRequestError, match="2 processes cannot be grouped by 3; set shard_among"):
        share_out(tiny_transformer(), 3)
    with pytest.raises(InvalidRequestError, match="A batch of 6 cannot be shared out among 2 processes"):
        own_share(6, accumulation=2)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "pool").mkdir()
    clips = pool(len(HeadModel.load().identity_basis))
    for field in fields(clips):
        np.save(folder / "pool" / f"latent_{field.name}.npy", getattr(clips, field.name).half().numpy())
    tiny_transformer(**dict.fromkeys(IDENTITY_CONFIG)).save_pretrained(folder / "base" / "transformer")
    run_together("tests.unit.training.test_sharing_out", folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_one_process(case: str, shared: Path) -> None:
    """In float32 to rounding; in bfloat16, each sample's products are rounded before they are added."""
    wanted, found = gradients(case), load_file(shared / f"{case}.safetensors")
    assert found.keys() == wanted.keys()
    assert len(found) > 30
    for name, gradient in wanted.items():
        close = 0.05 if case == "added to bfloat16" else 1e-5
        assert (found[name] - gradient).norm() <= close * gradient.norm() + 1e-8, name


@pytest.mark.parametrize("case", ["all", "added"])
def test_what_is_computed_again_gives_the_same_bits(case: str) -> None:
    again = next(name for name in CASES if name.startswith(f"{case},"))
    wanted, found = gradients(case), gradients(again)
    assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())


def state(run: Path) -> dict[str, Tensor]:
    loaded = Checkpoints(run).load()
    assert loaded is not None
    return dict(loaded[1])


def test_a_run_is_the_same_in_one_process_and_goes_on_in_any_number(shared: Path) -> None:
    """One process from the beginning, two that share the weights, and one that goes on where two stopped."""
    accumulated = stage(4, optimiser={"accumulation": 2})
    assert train_stage(stage(4), inputs(shared, "alone"))
    assert train_stage(accumulated, inputs(shared, "accumulated"))
    assert train_stage(stage(4), inputs(shared, "half"))
    wanted = state(shared / "alone")
    for run in ("shared", "half", "accumulated"):
        found = state(shared / run)
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            away = (found[name].double() - tensor.double()).norm()
            assert away <= 1e-4 * tensor.double().norm() + 1e-6, (run, name)
    results = [
        FantasyIDTransformer3DModel.from_pretrained(shared / run / "result" / "transformer")
        for run in ("alone", "shared")
    ]
    for (name, one), two in zip(results[0].state_dict().items(), results[1].state_dict().values(), strict=True):
        torch.testing.assert_close(two, one, atol=1e-4, rtol=1e-4, msg=name)


if __name__ == "__main__":
    together(Path(sys.argv[1]))
