"""Kill a training run at moments spread over its saves, let it go on, and compare with a run that was not killed.

    python -m tests.training_kills --kills 30

A moment is before a step that a file system sees, see `tests.kills`.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from fantasyid.training.checkpoint import Checkpoints
from fantasyid.training.config import OptimiserConfig
from fantasyid.training.trainer import BatchPart, Losses, Trainer
from tests.kills import count_steps, kill_at
from tests.tiny import noise, seeded

CONFIG = OptimiserConfig(steps=12, batch_size=4, learning_rate=0.05, warmup_steps=2, ema_decay=0.8, save_every=3)


def train(folder: Path) -> dict[str, Tensor]:
    """Begin a run in a folder or go on with it; all that its last checkpoint holds."""
    model = seeded(nn.Linear, in_features=3, out_features=2)

    def losses(part: BatchPart) -> Losses:
        inputs = noise(4, 3, seed=part.step)
        return {"loss": (model(inputs) + 0.1 * torch.randn(4, 2) - inputs[:, :2]).square().mean()}

    Trainer(model, CONFIG, folder, seed=0).fit(losses)
    state, tensors = Checkpoints(folder).load() or (None, ())
    assert state is not None
    assert state.step == CONFIG.steps
    return dict(tensors)


def differing(folder: Path, kills: int) -> list[int]:
    """Kill a run as often, each time another run at another step; the steps after which it did not end as it should."""
    wanted = train(folder / "whole")
    steps = count_steps(lambda: train(folder / "counted"))
    wrong = []
    for number in range(kills):
        step = 1 + number * (steps - 1) // kills
        place = folder / f"killed{step}"
        kill_at(step, signal.SIGKILL, lambda place=place: train(place))  # type: ignore[misc]
        found = train(place)
        if found.keys() != wanted.keys() or not all(torch.equal(found[name], wanted[name]) for name in wanted):
            wrong.append(step)
        left = sorted(path.name for path in (place / "checkpoints").iterdir())
        if left != ["step-00000006", "step-00000009", "step-00000012"]:
            wrong.append(step)
    return sorted(set(wrong))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="how many")
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as folder:
        wrong = differing(Path(folder), kills)
    print(f"{kills - len(wrong)} of {kills} kills were survived to the same bits.")  # noqa: T201
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
