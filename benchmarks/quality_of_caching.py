"""What caching and the guidance interval cost in quality, on the built-in model.

python -m benchmarks.quality_of_caching --photos PHOTO ... --out benchmarks/results/quality_of_caching.json

Every setting makes the same videos (same photos, prompts, seed and steps) as the plain path does. Kept of each are the
share of block evaluations that was computed, how far the frames are from the plain path's (PSNR, SSIM), and the face
recogniser's distance to the photo, which the built-in model was not trained with. Numbers to be quoted take at least
20 pairs of photo and prompt: four photos with the prompts of the evaluation. Needs no GPU; with `--device cuda` the
settings with fp8 multiply as a GPU does. A run that is cut goes on where it stopped, on the same machine at the same
commit; `--minutes` ends it early.
"""

import argparse
import copy
import hashlib
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from benchmarks.measure import Results
from fantasyid.core.imaging import read_photo
from fantasyid.evaluation.identity import Judge
from fantasyid.evaluation.protocol import IDENTITY_PROMPTS
from fantasyid.pipelines.acceleration import accelerate
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from fantasyid.pipelines.options import Acceleration

PROMPTS = [prompt.text.format(person="A person") for prompt in IDENTITY_PROMPTS]


@dataclass(frozen=True)
class Setting:
    """One way of making the videos."""

    options: Acceleration = field(default_factory=Acceleration)
    guidance_interval: tuple[float, float] = (0.0, 1.0)


def taylor(interval: int) -> Acceleration:
    """Extrapolate all but one of `interval` steps."""
    return Acceleration(cache="taylor", cache_interval=interval)


def fp8(options: Acceleration) -> Acceleration:
    """The same with fp8."""
    return options.model_copy(update={"fp8": True})


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
    "fp8": Setting(fp8(Acceleration())),
    "fp8_taylor_2_guided_0_60": Setting(fp8(taylor(2)), (0.0, 0.6)),
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
    """Make the videos of each pair of photo and prompt in each setting, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", nargs="+", type=Path, required=True, help="one of each person")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, help="default: those of the evaluation")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="default: cpu")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="when to stop; a later call goes on")
    options = parser.parse_args()

    end = time.monotonic() + 60 * options.minutes
    judge = Judge.builtin()
    dtype = torch.bfloat16 if options.device.type == "cuda" else torch.float32
    pipeline = FantasyIDPipeline.from_pretrained("mini", torch_dtype=dtype).to(options.device)
    pipeline.set_progress_bar_config(disable=True)
    plain_transformer = pipeline.transformer
    results = Results(options.out, options.device)
    for photo, prompt in product(options.photos, options.prompts):
        pair = f"{hashlib.sha256(photo.read_bytes()).hexdigest()[:12]}, {options.steps} steps: {prompt}"
        missing = [name for name in options.only if pair not in results.content["rows"].get(name, {}).get("videos", {})]
        if not missing:
            continue
        pixels = read_photo(photo)
        reference = judge.embed_reference(pixels)
        plain = None
        # The plain video comes first, made again where a run was cut: the others are compared with it.
        for name in ("plain", *(name for name in missing if name != "plain")):
            if time.monotonic() > end:
                return
            pipeline.register_modules(transformer=copy.deepcopy(plain_transformer))
            frames, video = make_video(pipeline, SETTINGS[name], pixels, prompt, options.steps)
            plain = frames if plain is None else plain
            distances = judge.distances(reference, judge.track((frames * 255).round().astype(np.uint8)))
            known = [distance for distance in distances if distance is not None]
            verified = sum(distance <= judge.recognizer.same_person_distance for distance in known)
            video["median_distance"] = float(np.median(known)) if known else None
            video["verification_rate"] = verified / len(distances)
            if name != "plain":
                video["psnr_db"] = float(peak_signal_noise_ratio(plain, frames, data_range=1))
                video["ssim"] = float(structural_similarity(plain, frames, data_range=1, channel_axis=3))
            keep(results, name, pair, video)


def make_video(
    pipeline: FantasyIDPipeline, setting: Setting, photo: NDArray[np.uint8], prompt: str, steps: int
) -> tuple[NDArray[np.float32], dict[str, float | None]]:
    """One video, and what it cost.

    Args:
        pipeline: With a transformer that nothing is switched on in; it is changed.
        setting: How to make it.
        photo: RGB (H, W, 3).
        prompt: What happens.
        steps: Denoising steps.

    Returns:
        Frames (T, H, W, 3) in [0, 1]; the share of block evaluations that was computed, and seconds.
    """
    share = ComputedShare(pipeline.transformer)
    accelerate(pipeline.transformer, setting.options)
    begin = time.perf_counter()
    frames = pipeline(
        prompt=prompt,
        image=photo,
        num_inference_steps=steps,
        guidance_interval=setting.guidance_interval,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).frames[0]
    return frames, {"computed": share.samples / (2 * steps), "seconds": time.perf_counter() - begin}


def keep(results: Results, name: str, pair: str, video: dict[str, float | None]) -> None:
    """Add one video to its setting's row, whose other numbers are means over all its videos.

    Args:
        results: The file.
        name: A key of `SETTINGS`.
        pair: Which photo and prompt.
        video: What was measured.
    """
    videos = {**results.content["rows"].get(name, {}).get("videos", {}), pair: video}
    kinds = sorted({kind for row in videos.values() for kind in row})
    values = {kind: [row[kind] for row in videos.values() if row.get(kind) is not None] for kind in kinds}
    means = {kind: float(np.mean(found)) for kind, found in values.items() if found}
    if "psnr_db" in means:
        means["psnr_db_worst"] = min(values["psnr_db"])
    setting = SETTINGS[name]
    results.add(
        name,
        **means,
        pairs=len(videos),
        options=setting.options.model_dump(),
        guidance_interval=setting.guidance_interval,
        videos=videos,
    )


if __name__ == "__main__":
    main()
