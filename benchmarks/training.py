"""Train CogVideoX-5B for a few steps with a preset, to see what a step takes.

python -m benchmarks.training --preset configs/train/paper.yaml --out benchmarks/results/NAME.json
torchrun --nproc-per-node 2 -m benchmarks.training --preset configs/train/paper.yaml --out benchmarks/results/NAME.json

The trainer is the real one, with its networks at their true size and random weights that are made on the GPU, reading
random clips of 49 frames of 480x720 from the disk. It takes the first step to compile and to warm up, and is timed
from the beginning of the second to the end of the last; checkpoints alone are not written. Each preset is a row, and
`benchmarks/training_table.py` puts the rows into docs/training.md. `--small --device cpu` tries the script.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import yaml
from torch import Tensor

from benchmarks.measure import Results, peak_memory, synchronize
from benchmarks.models import random_model
from fantasyid.data.precompute import LatentPool
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.training.clips import Clips
from fantasyid.training.config import VideoStage
from fantasyid.training.networks import identity_encoder
from fantasyid.training.objectives.video import VideoModel
from fantasyid.training.parallel import mean_over_processes, num_processes, own_share, rank, start_processes
from fantasyid.training.plan import Cost, Gpus, make_plan, measure_cost
from fantasyid.training.stages import StageInputs, VideoRun, begin_with, set_up
from fantasyid.training.trainer import BatchPart, Losses

PEAK_TERAFLOPS = {"NVIDIA H100 80GB HBM3": 989.4, "NVIDIA H200": 989.4}
"""Of dense products in bfloat16, by the card's name; NVIDIA's data sheets."""
SMALL: dict[str, Any] = {
    "optimiser": {"batch_size": 4, "accumulation": 2, "compile": False},
    "objective": {
        "identity_encoder": {"face_dim": 32, "grid_size": 4, "pool_factor": 2, "hidden_dim": 64, "num_layers": 1}
    },
    "model": {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "time_embed_dim": 8,
        "text_embed_dim": 16,
        "num_layers": 2,
        "sample_width": 8,
        "sample_height": 8,
        "sample_frames": 9,
        "max_text_seq_length": 6,
        "identity_token_dim": 24,
        "injection_dim": 32,
        "injection_query_dim": 16,
        "injection_heads": 2,
    },
}
_CLIPS, _VIEWS = 16, 6


class TimedClips:
    """Clips, and how long it took to read them.

    Args:
        clips: What is read.
    """

    def __init__(self, clips: Clips) -> None:
        self._clips, self.device, self.seconds = clips, clips.device, 0.0

    def __len__(self) -> int:
        return len(self._clips)

    def rows(self, index: Tensor) -> LatentPool:
        """See `Clips.rows`; of no row, to see what sizes there are."""
        return self._clips.rows(index)

    def shown(self, index: Tensor, view: Tensor, noised: Tensor) -> LatentPool:
        """See `Clips.shown`."""
        start = time.perf_counter()
        rows = self._clips.shown(index, view, noised)
        self.seconds += time.perf_counter() - start
        return rows


class Unkept:
    """In the place of a run's checkpoints: none is written."""

    def save(self, state: object, tensors: Mapping[str, Tensor]) -> None:
        """Write nothing."""


class Watch:
    """Draws and measures as a run's objective does, and keeps when each step began and what its parts lost.

    Args:
        run: The run.
        device: Its device.
    """

    def __init__(self, run: VideoRun, device: torch.device) -> None:
        self.clips, self.device = TimedClips(run.objective.clips), device
        self.run = replace(run, objective=replace(run.objective, clips=self.clips))
        self.begun: list[float] = []
        self.read: list[float] = []
        self.losses: list[Tensor] = []

    def __call__(self, part: BatchPart) -> Losses:
        """Losses of a part of a batch."""
        if part.part % (part.parts // num_processes()) == 0:
            self.note()
        values = self.run.objective(self.run.model, part)
        self.losses.append(values["loss"].detach())
        return values

    def note(self) -> None:
        """Here a step ends and the next begins."""
        synchronize(self.device)
        self.begun.append(time.perf_counter())
        self.read.append(self.clips.seconds)


def preset(path: Path, small: bool, changes: Sequence[str]) -> VideoStage:
    """A preset with some fields changed.

    Args:
        path: Of the preset, whose stage is clips.
        small: Whether to change the sizes to tiny ones.
        changes: Such as `optimiser.batch_size=8`, the value in YAML.
    """
    fields: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    if small:
        fields = _changed(fields, SMALL)
    for change in changes:
        name, _, value = change.partition("=")
        nested = reduce(lambda inner, key: {key: inner}, reversed(name.split(".")), yaml.safe_load(value))
        fields = _changed(fields, nested)
    return VideoStage.model_validate(fields)


def _changed(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested fields, some of them with other values."""
    inner = {
        name: _changed(fields[name], value) if isinstance(value, dict) and isinstance(fields.get(name), dict) else value
        for name, value in changes.items()
    }
    return fields | inner


def random_networks(config: VideoStage, device: torch.device) -> VideoModel:
    """What a preset trains, with weights that bfloat16 holds exactly, as CogVideoX's do; new modules are not zero."""
    fields = config.model.model_dump()
    transformer = random_model(lambda: FantasyIDTransformer3DModel(**fields), device, torch.bfloat16).float()
    encoder, token_dim = None, config.model.identity_token_dim
    if token_dim is not None:
        encoder = identity_encoder(config.objective.identity_encoder, token_dim, None, None).to(device)
    return VideoModel(transformer, encoder).train().requires_grad_(True)


def write_clips(folder: Path, config: VideoStage) -> None:
    """Random clips of a preset's size with six views each, as `fantasyid data encode-pool` leaves them."""
    shape, described = config.model, config.objective.identity_encoder
    frames = (shape.sample_frames - 1) // shape.temporal_compression_ratio + 1
    picture = (shape.out_channels, shape.sample_height, shape.sample_width)
    grid = (described.grid_size, described.grid_size, described.face_dim)
    text = (shape.max_text_seq_length, shape.text_embed_dim)
    shapes = {
        "clips": (_CLIPS, frames, *picture),
        "reference": (_CLIPS, _VIEWS, *picture),
        "face_tokens": (_CLIPS, _VIEWS, *grid),
        "text": (_CLIPS, *text),
        "null_text": (1, *text),
    }
    draw = np.random.default_rng(0)
    for name, size in shapes.items():
        np.save(folder / f"latent_{name}.npy", draw.standard_normal(size, np.float32).astype(np.float16))
    np.save(folder / "latent_identity.npy", HeadModel.load().mean.expand(_CLIPS, -1, -1).numpy())


def train(config: VideoStage, device: torch.device, folder: Path) -> dict[str, Any]:
    """Take a preset's steps.

    Args:
        config: The preset, with as many steps as are to be taken.
        device: Of this process.
        folder: For the clips and the run.

    Returns:
        What was measured of all steps but the first.
    """
    start = time.perf_counter()
    set_up(config)
    write_clips(folder, config)
    model = random_networks(config, device)
    watch = Watch(begin_with(model, config, StageInputs((folder,), folder / "run", str(device))), device)
    run, steps = watch.run, config.optimiser.steps
    run.trainer.checkpoints = Unkept()  # type: ignore[assignment]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    run.trainer.fit(watch)
    watch.note()
    seconds = [after - before for before, after in zip(watch.begun, watch.begun[1:], strict=False)]
    losses = mean_over_processes(torch.stack(watch.losses).reshape(steps, -1).mean(1))
    return {
        "seconds": statistics.mean(seconds[1:]),
        "seconds_all": seconds[1:],
        "first_step_s": seconds[0],
        "begin_s": watch.begun[0] - start,
        "data_wait": (watch.read[-1] - watch.read[1]) / sum(seconds[1:]),
        "losses": losses.tolist(),
        **peak_memory(device),
    }


def compare(config: VideoStage, cost: Cost, seconds: float, device: torch.device) -> Iterator[tuple[str, float]]:
    """What `fantasyid train plan` says of a preset, and the share of the card's peak that it makes of a step's time.

    Args:
        config: The preset.
        cost: Of a sample.
        seconds: Of a step.
        device: The card.
    """
    gpus = num_processes()
    plan = make_plan(config, Gpus(gpus, 80.0, 450.0), cost)
    yield "plan_gib", plan.total_gib
    yield "teraflop", plan.teraflop
    sustained = plan.teraflop * config.optimiser.batch_size / gpus / seconds
    yield "teraflops", sustained
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    if name in PEAK_TERAFLOPS:
        yield "share_of_peak", sustained / PEAK_TERAFLOPS[name]
        yield "share_once", sustained / PEAK_TERAFLOPS[name] * cost.flop("nothing") / cost.flop(config.recompute)


def main(words: Sequence[str] | None = None) -> None:
    """Measure the presets asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", type=Path, required=True, action="append", help="Give it again for more.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--add", action="store_true", help="Keep the rows that --out has from other commits.")
    parser.add_argument("--steps", type=int, default=2, help="Timed ones, after the first.")
    parser.add_argument("--set", dest="changes", nargs="+", default=[], metavar="FIELD=VALUE", help="In all presets.")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="Tiny networks, to try the script.")
    arguments = parser.parse_args(words)

    device = torch.device(start_processes(arguments.device))
    results = Results(arguments.out, device, arguments.add) if rank() == 0 else None
    for path in arguments.preset:
        config = preset(path, arguments.small, [*arguments.changes, f"optimiser.steps={arguments.steps + 1}"])
        optimiser = config.optimiser
        cost = measure_cost(config)
        with tempfile.TemporaryDirectory() as folder:
            row = train(config, device, Path(folder))
        if results is not None:
            changes = f" ({', '.join(arguments.changes)})" if arguments.changes else ""
            results.add(
                f"{path.stem} on {num_processes()}{changes}",
                preset=path.stem,
                gpus=num_processes(),
                changes=arguments.changes,
                batch_size=optimiser.batch_size,
                at_once=own_share(optimiser.batch_size, optimiser.accumulation),
                **row,
                **dict(compare(config, cost, row["seconds"], device)),
            )
        gc.collect()
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
