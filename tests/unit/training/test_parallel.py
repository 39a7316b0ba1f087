"""Two processes that train together end with one model, as if the batch had been one."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from fantasyid.core.errors import InvalidRequestError
from fantasyid.training.config import OptimiserConfig
from fantasyid.training.parallel import (
    average_gradients,
    equalise,
    num_processes,
    rank,
    start_processes,
)
from fantasyid.training.trainer import Trainer
from tests.processes import run_together


def batch(step: int, process: int) -> torch.Tensor:
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(100 * step + process))


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def loss(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    value: torch.Tensor = (model(inputs) - inputs[:, :2]).square().mean()
    return value


def config(steps: int) -> OptimiserConfig:
    return OptimiserConfig(steps=steps, batch_size=8, learning_rate=0.05, warmup_steps=2, ema_decay=0.5)


def trained_together(folder: str) -> None:
    """What each of two processes does; torchrun's variables are set."""
    torch.set_num_threads(1)
    assert start_processes("cpu") == "cpu"
    process = int(os.environ["RANK"])
    assert (rank(), num_processes()) == (process, 2)
    model = network(seed=process)  # unlike until they are made equal
    model[0].register_buffer("mark", torch.full((2,), float(process)))
    equalise(model)
    loss(model, batch(0, process)).backward()
    average_gradients(model.parameters())
    result = {"gradients": [p.grad for p in model.parameters()], "mark": model[0].mark}
    own = network(seed=process)
    trainer = Trainer(own, config(13), Path(folder) / "run", seed=0)
    trainer.fit(lambda _: {"loss": loss(own, batch(trainer.step, process))})
    result |= {"weights": own.state_dict(), "average": trainer.average.tensors}
    result |= {"saved": len(trainer.checkpoints.all())}
    bad = Trainer(network(seed=0), config(13), Path(folder) / "bad", seed=0)
    with pytest.raises(InvalidRequestError, match="says what it shows"):
        bad.fit(lambda _: {"loss": loss(bad.model, batch(0, 0)) * (float("nan") if process and bad.step == 3 else 1)})
    result |= {"bad": bad.step}
    torch.save(result, Path(folder) / f"{process}.pt")
    dist.destroy_process_group()


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    run_together("tests.unit.training.test_parallel", tmp_path)
    first, second = (torch.load(tmp_path / f"{process}.pt", weights_only=True) for process in (0, 1))
    assert first["mark"].tolist() == second["mark"].tolist() == [0, 0]
    assert first["saved"] == 1
    assert first["bad"] == second["bad"] == 3  # a number that is none in one of them stops both
    assert json.loads((tmp_path / "bad" / "bad_step.json").read_text())["step"] == 4

    model = network(seed=0)
    ((loss(model, batch(0, 0)) + loss(model, batch(0, 1))) / 2).backward()
    for expected, one, other in zip(model.parameters(), first["gradients"], second["gradients"], strict=True):
        torch.testing.assert_close(one, expected.grad)
        assert torch.equal(one, other)

    alone = network(seed=0)
    trainer = Trainer(alone, config(13), tmp_path / "alone", seed=0)
    trainer.fit(lambda _: {"loss": (loss(alone, batch(trainer.step, 0)) + loss(alone, batch(trainer.step, 1))) / 2})
    for part, wanted in (("weights", alone.state_dict()), ("average", trainer.average.tensors)):
        for name, weight in wanted.items():
            assert torch.equal(first[part][name], second[part][name])
            torch.testing.assert_close(first[part][name], weight, atol=1e-4, rtol=1e-4)


def test_one_process_needs_nobody() -> None:
    model = network(seed=0)
    before = [p.clone() for p in model.parameters()]
    equalise(model)
    loss(model, batch(0, 0)).backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    average_gradients(model.parameters())
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert (rank(), num_processes()) == (0, 1)


if __name__ == "__main__":
    trained_together(sys.argv[1])
