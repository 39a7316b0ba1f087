"""The training loop on a linear problem."""

import json
import math
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from fantasyid.core.errors import InvalidRequestError
from fantasyid.training.checkpoint import Checkpoints, hash_of_frozen
from fantasyid.training.config import OptimiserConfig
from fantasyid.training.trainer import BatchPart, Losses, Trainer
from tests.kills import contents
from tests.tiny import seeded

TRUTH = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.7, -1.1]])


class InterruptionError(Exception):
    """What stops a run in these tests."""


def config(**changes: float) -> OptimiserConfig:
    fields = {"steps": 60, "batch_size": 16, "learning_rate": 0.05, "warmup_steps": 4, "ema_decay": 0.8}
    return OptimiserConfig(**{**fields, **changes})


def model() -> nn.Linear:
    return seeded(nn.Linear, in_features=3, out_features=2)


def trainer(folder: Path, **changes: float) -> Trainer:
    return Trainer(model(), config(**changes), folder, seed=0)


def losses_of(trainer: Trainer, stop_at: int | None = None):
    """Losses whose batch depends on the step alone, so that a resumed run sees what an unbroken one would."""

    def losses(_: BatchPart) -> Losses:
        if trainer.step == stop_at:
            raise InterruptionError
        inputs = torch.randn(16, 3, generator=torch.Generator().manual_seed(trainer.step))
        return {"loss": (trainer.model(inputs) - inputs @ TRUTH.T - 1).square().mean()}

    return losses


def fit(trainer: Trainer) -> Trainer:
    trainer.fit(losses_of(trainer))
    return trainer


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def states_equal(first: Trainer, second: Trainer) -> bool:
    """Whether weights, average, buffers and the optimiser's states are the same bits."""
    ours, theirs = first._tensors(), second._tensors()
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_the_loss_falls_and_the_average_is_the_result(tmp_path: Path) -> None:
    trained = fit(trainer(tmp_path, steps=300))
    first, *_, last = logged(tmp_path)
    assert [row["step"] for row in logged(tmp_path)] == [50, 100, 150, 200, 250, 300]
    assert last["loss"] < 0.01 * first["loss"]
    with trained.averaged() as result:
        assert (result.weight - TRUTH).abs().max() < 0.05
        assert (result.bias - 1).abs().max() < 0.05
    assert trained.step == 300


@pytest.mark.usefixtures("ticking")
def test_an_interrupted_run_continues_exactly(tmp_path: Path) -> None:
    whole = fit(trainer(tmp_path / "whole"))
    broken = trainer(tmp_path / "broken")
    with pytest.raises(InterruptionError):
        broken.fit(losses_of(broken, stop_at=23))
    broken.seconds += 100
    broken.save()
    resumed = trainer(tmp_path / "broken")
    assert resumed.step == 23
    assert resumed.seconds == broken.seconds
    assert states_equal(resumed, broken)
    fit(resumed)
    assert states_equal(resumed, whole)
    assert (broken.seconds, resumed.seconds) == (123, 160)


def test_tensorboard_is_told_what_the_log_is_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = Trainer(model(), config(steps=100), tmp_path, seed=0, tensorboard=True)
    fit(run)
    read = import_module("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    events = read(str(tmp_path / "tensorboard")).Reload()
    rows = logged(tmp_path)
    for name in ("loss", "norm"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(row["step"], pytest.approx(row[name])) for row in rows]


def test_a_finished_run_is_not_trained_on(tmp_path: Path) -> None:
    done = fit(trainer(tmp_path))
    again = trainer(tmp_path)
    again.fit(lambda _: pytest.fail("a finished run asked for a batch"))
    assert states_equal(again, done)


def test_the_average_follows_its_formula(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=40)
    weights: list[Tensor] = []
    losses = losses_of(run)

    def watched(part: BatchPart) -> Losses:
        if run.step:
            weights.append(run.model.weight.detach().clone())
        return losses(part)

    run.fit(watched)
    weights.append(run.model.weight.detach().clone())
    average = weights[0]
    for step, weight in enumerate(weights[1:], start=1):
        decay = min(0.8, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    assert not torch.allclose(run.model.weight, average, atol=1e-6)
    kept = run.model.weight.detach().clone()
    with run.averaged() as result:
        assert torch.allclose(result.weight, average, atol=1e-6)
    assert torch.equal(run.model.weight, kept)


@pytest.mark.parametrize("cooldown", [1.0, 0.3])
def test_the_learning_rate_warms_up_holds_and_falls_as_a_cosine(tmp_path: Path, cooldown: float) -> None:
    run = trainer(tmp_path, steps=50, warmup_steps=9, cooldown=cooldown)
    losses, rates = losses_of(run), []

    def watched(part: BatchPart) -> Losses:
        rates.append([group["lr"] for group in run.optimisers[0].param_groups])
        return losses(part)

    run.fit(watched)
    for step, rate in enumerate(rates):
        left = (step / 50 - 1 + cooldown) / cooldown
        wanted = 0.05 * min(1, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * max(0.0, left)))
        assert rate == pytest.approx([wanted, wanted])
    assert rates[0][0] <= 0.0051
    assert rates[-1][0] < 0.05 * 0.02
    assert max(rates)[0] == pytest.approx(0.05, rel=0.1 if cooldown == 1 else 1e-6)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a second whenever the trainer looks at it: once before the first step, and after each."""
    monkeypatch.setattr("fantasyid.training.trainer.time", SimpleNamespace(monotonic=count(0.0).__next__))


@pytest.mark.usefixtures("ticking")
def test_seconds_are_logged_and_change_nothing(tmp_path: Path) -> None:
    run = fit(trainer(tmp_path, steps=50))
    assert (run.step, run.seconds, logged(tmp_path)[-1]["seconds"]) == (50, 50, 50)
    slow = trainer(tmp_path / "other", steps=50)
    slow.seconds = 10.0**6
    assert states_equal(fit(slow), run)


def test_only_matrices_decay(tmp_path: Path) -> None:
    run = Trainer(model(), config(weight_decay=0.5, learning_rate=0.01, steps=20), tmp_path, seed=0)
    weight, bias = run.model.weight.detach().clone(), run.model.bias.detach().clone()
    run.fit(lambda _: {"loss": sum(p.sum() for p in run.model.parameters()) * 0.0})
    assert torch.equal(run.model.bias, bias)
    assert (run.model.weight.abs() < weight.abs()).all()


def test_frozen_weights_stay_and_buffers_are_carried(tmp_path: Path) -> None:
    net = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))).train()
    net[0].requires_grad_(False)
    frozen = net[0].weight.clone()
    run = Trainer(net, config(), tmp_path, seed=0)
    fit(run)
    assert torch.equal(net[0].weight, frozen)
    assert net[1].running_mean.abs().max() > 0
    state, tensors = Checkpoints(tmp_path).load()
    kept = dict(tensors)
    assert not [name for name in kept if name.endswith("/0.weight") or name.endswith("/0.bias")]
    assert torch.equal(kept["buffer/1.running_mean"], net[1].running_mean)
    assert state.frozen == hash_of_frozen(net)
    with torch.no_grad():
        net[0].weight += 1
    with pytest.raises(InvalidRequestError, match="was begun on other frozen weights"):
        Trainer(net, config(), tmp_path, seed=0)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=1, clip_norm=0.25)
    run.fit(lambda _: {"loss": 1e4 * run.model(torch.ones(4, 3)).sum()})
    norm = torch.stack([p.grad.norm() for p in run.model.parameters()]).norm()
    assert norm == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run(tmp_path: Path, broken: str) -> None:
    """Before it changes anything. The square root's gradient at 0 is infinite, its value is not."""
    run = trainer(tmp_path, steps=60, save_every=10)

    def losses(part: BatchPart) -> Losses:
        nothing = run.model.weight.sum() * 0
        if part.step == 23:
            nothing = nothing * math.nan if broken == "loss" else nothing.sqrt()
        return {"loss": nothing}

    words = "is nan" if broken == "loss" else r"is -?0\.0 and its gradient's norm nan"
    with pytest.raises(InvalidRequestError, match=rf"The loss of step 24 {words}.*lower learning_rate"):
        run.fit(losses, explain=lambda step: {"clips": [step]})
    assert run.model.weight.isfinite().all()
    assert [path.name for path in run.checkpoints.all()] == ["step-00000010", "step-00000020"]
    said = json.loads((tmp_path / "bad_step.json").read_text(), parse_constant=pytest.fail)
    assert (said["step"], said["clips"], said["norm"]) == (24, [23], "nan")


def test_spikes_change_nothing_and_too_many_end_the_run(tmp_path: Path) -> None:
    spikes = {30, 200, 230, 240, 250, 260, 270, 280}
    run = trainer(tmp_path, steps=400, spike_factor=10.0)
    before: dict[int, Tensor] = {}

    def losses(part: BatchPart) -> Losses:
        before[part.step] = run.model.weight.detach().clone()
        return {"loss": run.model(torch.ones(4, 3)).sum() * (1000 if part.step in spikes else 1)}

    with pytest.raises(InvalidRequestError, match="6 of the last 100 steps had a gradient far above the others'"):
        run.fit(losses)
    assert run.guard.skipped == [30, 200, 230, 240, 250, 260, 270]
    assert torch.equal(before[30], before[31])
    assert not torch.equal(before[31], before[32])


def test_the_batch_in_parts_is_the_batch(tmp_path: Path) -> None:
    """Bit for bit where the parts' sums are."""

    def losses_of_rows(run: Trainer) -> Callable[[BatchPart], Losses]:
        def losses(part: BatchPart) -> Losses:
            inputs = torch.randn(16, 3, generator=torch.Generator().manual_seed(part.step))[part.rows(16)]
            return {"loss": (run.model(inputs) - inputs @ TRUTH.T - 1).square().mean()}

        return losses

    whole, parts = trainer(tmp_path / "whole"), trainer(tmp_path / "parts", accumulation=4)
    for run in (whole, parts):
        run.fit(losses_of_rows(run))
    torch.testing.assert_close(parts.model.weight, whole.model.weight, atol=1e-5, rtol=1e-5)
    assert logged(tmp_path / "parts")[-1]["loss"] == pytest.approx(logged(tmp_path / "whole")[-1]["loss"], rel=1e-4)


def test_a_mean_over_some_samples_is_over_those_of_all_parts_and_not_logged_where_there_are_none(
    tmp_path: Path,
) -> None:
    run = trainer(tmp_path, steps=100, accumulation=4)
    own = losses_of(run)

    def losses(part: BatchPart) -> Losses:
        # Sums 0, 10, 0 and 30 of 0, 1, 0 and 3 samples in the 50th step; in the 100th nothing counts.
        counts = part.step == 49 and part.part % 2
        some = torch.tensor([10.0 * part.part, part.part]) * counts
        return {**own(part), "some": some}

    run.fit(losses)
    first, last = logged(tmp_path)
    assert first["some"] == 10.0
    assert set(first) - set(last) == {"some"}


def test_a_step_is_replayed_from_the_checkpoint_before_it_and_nothing_is_kept(tmp_path: Path) -> None:
    fit(trainer(tmp_path, save_every=20))
    (row,), before = logged(tmp_path), contents(tmp_path)
    again = Trainer(model(), config(save_every=20), tmp_path, seed=0, up_to=49)
    assert again.step == 40
    found = again.replay(49, losses_of(again))
    assert found == {name: row[name] for name in ("loss", "norm")}
    assert again.step == 49
    assert contents(tmp_path) == before


def test_a_cosine_with_restarts_begins_again_at_the_peak(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=60, cycles=3, warmup_steps=0)
    losses, rates = losses_of(run), []

    def watched(part: BatchPart) -> Losses:
        rates.append(run.optimisers[0].param_groups[0]["lr"])
        return losses(part)

    run.fit(watched)
    assert rates[::20] == [0.05] * 3
    assert rates[20:] == pytest.approx(rates[:20] * 2)
    assert rates[10] == pytest.approx(0.025)


def test_checkpoints_are_no_pickles_and_the_last_three_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((torch, "load"), (torch, "save"), (pickle, "load"), (pickle, "dump")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("a pickle"))
    fit(trainer(tmp_path, steps=60, save_every=7))
    folders = Checkpoints(tmp_path).all()
    assert [folder.name for folder in folders] == ["step-00000049", "step-00000056", "step-00000060"]
    assert {path.suffix for folder in folders for path in folder.iterdir()} == {".json", ".safetensors"}
    content = (folders[-1] / "tensors-00000.safetensors").read_bytes()
    (folders[-1] / "tensors-00000.safetensors").write_bytes(content[:-4])
    with pytest.raises(InvalidRequestError, match=r"step-00000060 is damaged .*; remove it to go on from the one"):
        trainer(tmp_path, steps=60)
    (folders[-1] / "tensors-00000.safetensors").unlink()
    with pytest.raises(InvalidRequestError, match=r"step-00000060 is damaged \(it has 0 tensors of 10\)"):
        trainer(tmp_path, steps=60)
    shutil.rmtree(folders[-1])
    assert trainer(tmp_path, steps=60).step == 56


def test_a_run_that_is_asked_to_stop_saves_and_goes_on(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run")
    losses = losses_of(run)

    def interrupted(part: BatchPart) -> Losses:
        if part.step == 23:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses(part)

    assert not run.fit(interrupted)
    assert run.step == 24
    resumed = trainer(tmp_path / "run")
    assert resumed.fit(losses_of(resumed))
    assert states_equal(resumed, fit(trainer(tmp_path / "whole")))
