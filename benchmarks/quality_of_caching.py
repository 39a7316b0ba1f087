"""What caching and the guidance interval cost in quality, on the built-in model.

python -m benchmarks.quality_of_caching --out benchmarks/results/quality_of_caching.json [--only NAME ...]

Every setting makes the same videos (same photo, prompts, seed and steps) as the plain path does. Kept are the share of
block evaluations that was computed, how far the frames are from the plain path's (PSNR, SSIM), and the face
recogniser's distance to the photo, which the built-in model was not trained with. Needs no GPU.
"""

import argparse
import copy
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from benchmarks.measure import Results
from fantasyid.evaluation.identity import Judge
from fantasyid.pipelines.acceleration import Acceleration, accelerate
from fantasyid.pipelines.fantasyid import FantasyIDPipeline

PROMPTS = (
    "A woman smiles and turns the head to the left, in front of a plain blue background.",
    "A woman opens the mouth and nods, in front of a plain grey background.",
)


@dataclass(frozen=True)
class Setting:
    """One way of making the videos."""

    options: Acceleration = field(default_factory=Acceleration)
    guidance_interval: tuple[float, float] = (0.0, 1.0)


def taylor(interval: int) -> Acceleration:
    """Extrapolate all but one of `interval` steps."""
    return Acceleration(cache="taylor", cache_interval=interval)


def first_block(threshold: float) -> Acceleration:
    """Repeat while the first block's addition changes by less than `threshold`."""
    return Acceleration(cache="first-block", cache_threshold=threshold)


SETTINGS = {
    "plain": Setting(),
    "taylor_2_guided_0_60": Setting(taylor(2), (0.0, 0.6)),
    "guided_0_60": Setting(guidance_interval=(0.0, 0.6)),
    "taylor_3": Setting(taylor(3)),
    "first_block_10": Setting(first_block(0.10)),
    "taylor_2": Setting(taylor(2)),
    "taylor_3_guided_0_60": Setting(taylor(3), (0.0, 0.6)),
    "guided_10_60": Setting(guidance_interval=(0.1, 0.6)),
    "first_block_10_guided_0_60": Setting(first_block(0.10), (0.0, 0.6)),
    "guided_40_100": Setting(guidance_interval=(0.4, 1.0)),
    "first_block_20": Setting(first_block(0.20)),
    "taylor_4": Setting(taylor(4)),
}


class ComputedShare:
    """Counts what the last block computes: caches skip it, and the first block's share is small.

    Args:
        transformer: Not yet accelerated, so that what the caches skip is not counted.
    """

    def __init__(self, transformer: nn.Module) -> None:
        self.samples = 0
        transformer.transformer_blocks[-1].ff.register_forward_hook(self._count)

    def _count(self, _: nn.Module, inputs: tuple[torch.Tensor, ...], __: torch.Tensor) -> None:
        self.samples += inputs[0].shape[0]


def main() -> None:
    """Make the videos of each setting and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="how many of the prompts")
    options = parser.parse_args()

    photo = data.astronaut()
    judge = Judge.builtin()
    reference = judge.embed_reference(photo)
    pipeline = FantasyIDPipeline.from_pretrained("mini", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    plain_transformer = pipeline.transformer
    results = Results(options.out, torch.device("cpu"))
    plain: dict[str, NDArray[np.float32]] = {}
    rows: dict[str, list[dict[str, float | None]]] = {}
    names = ["plain", *(name for name in options.only if name != "plain")]
    for name, prompt in product(names, PROMPTS[: options.prompts]):
        setting = SETTINGS[name]
        pipeline.register_modules(transformer=copy.deepcopy(plain_transformer))
        share = ComputedShare(pipeline.transformer)
        accelerate(pipeline.transformer, setting.options)
        begin = time.perf_counter()
        frames = pipeline(
            prompt=prompt,
            image=photo,
            num_inference_steps=options.steps,
            guidance_interval=setting.guidance_interval,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).frames[0]
        seconds = time.perf_counter() - begin
        plain.setdefault(prompt, frames)
        scores = judge.score(reference, judge.track((frames * 255).round().astype(np.uint8)))
        rows.setdefault(name, []).append(
            {
                "computed": share.samples / (2 * options.steps),
                "seconds": seconds,
                "median_distance": scores.median_distance,
                "verification_rate": scores.verification_rate,
                "psnr_db": None
                if name == "plain"
                else float(peak_signal_noise_ratio(plain[prompt], frames, data_range=1)),
                "ssim": float(structural_similarity(plain[prompt], frames, data_range=1, channel_axis=3)),
            }
        )
        means = {
            key: float(np.mean([row[key] for row in rows[name] if row[key] is not None] or [np.nan]))
            for key in rows[name][0]
            if name != "plain" or key != "psnr_db"
        }
        results.add(
            name,
            **means,
            steps=options.steps,
            prompts=len(rows[name]),
            options=setting.options.model_dump(),
            guidance_interval=setting.guidance_interval,
        )


if __name__ == "__main__":
    main()
