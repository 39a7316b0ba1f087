"""Time one denoising step, whole videos, the VAE and the memory plans on one GPU, ours beside diffusers'.

python -m benchmarks.one_gpu --out benchmarks/results/NAME.json [--only ROW ...]

Everything is at the size of CogVideoX-5B-I2V (49 frames of 480x720, both branches of guidance in one batch, bfloat16)
with random weights. Rows are measured in the order of `ROWS` and written one by one; `--tiny --device cpu` tries the
script without a GPU. What each row is stands in docs/benchmarks.md.
"""

import argparse
import gc
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks import models
from benchmarks.measure import Results, measure, peak_memory, relative_error, say, synchronize
from benchmarks.models import EXACT, TINY, TRUE_SIZE, Kind, Size
from fantasyid.conditioning.latents import decode_video
from fantasyid.pipelines.acceleration import accelerate
from fantasyid.pipelines.memory import MemoryPlan, apply_plan
from fantasyid.pipelines.options import Acceleration

FP8 = EXACT.model_copy(update={"fp8": True})
GUIDED = (0.0, 0.6)
"""Share of the steps that `denoise_cached` guides; benchmarks/quality_of_caching.py shows what that costs."""


class Benchmark:
    """The rows, each a method that measures one thing from scratch.

    Args:
        size: Of all networks.
        device: Where they run.
        results: Where the rows go.
        repeats: Timed calls of a step.
        steps: Denoising steps of a whole video.
    """

    def __init__(self, size: Size, device: torch.device, results: Results, repeats: int, steps: int) -> None:
        self.size, self.device, self.results, self.repeats, self.steps = size, device, results, repeats, steps
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def _time(self, name: str, run: Callable[[], object], warmup: int = 1, **more: object) -> None:
        self.results.add(name, **measure(run, self.device, warmup, self.repeats), **more)

    # Peers

    def consisid_eager(self) -> None:
        """Diffusers' ConsisID as it comes."""
        transformer = models.consisid_transformer(self.size, self.device, self.dtype)
        inputs = self._inputs() | models.consisid_inputs(self.size, self.device, self.dtype)
        self._time("consisid_eager", lambda: transformer(**inputs))

    def consisid_compiled(self) -> None:
        """The same with each block compiled."""
        transformer = _compile(models.consisid_transformer(self.size, self.device, self.dtype))
        inputs = self._inputs() | models.consisid_inputs(self.size, self.device, self.dtype)
        self._time("consisid_compiled", lambda: transformer(**inputs))

    def cogvideox_eager(self) -> None:
        """Diffusers' CogVideoX-5B-I2V, which has no identity."""
        transformer, inputs = models.cogvideox_transformer(self.size, self.device, self.dtype), self._inputs()
        self._time("cogvideox_eager", lambda: transformer(**inputs))

    def cogvideox_compiled(self) -> None:
        """The same with each block compiled."""
        transformer = _compile(models.cogvideox_transformer(self.size, self.device, self.dtype))
        inputs = self._inputs()
        self._time("cogvideox_compiled", lambda: transformer(**inputs))

    # One step of ours

    def ours_eager(self) -> None:
        """The paper's network, nothing switched on."""
        self._ours("ours_eager", Acceleration())

    def ours_exact(self) -> None:
        """Compiled and tuned blocks, the fastest attention kernel."""
        self._ours("ours_exact", EXACT)

    def ours_exact_identity_off(self) -> None:
        """The same without identity: what the adapter costs is the difference."""
        self._ours("ours_exact_identity_off", EXACT, has_identity=False)

    def ours_fp8(self) -> None:
        """The exact one with float8 linear layers."""
        self._ours("ours_fp8", FP8)

    def released_exact(self) -> None:
        """The authors' network in our code, as `ours_exact`."""
        self._ours("released_exact", EXACT, kind="released")

    def released_fp8(self) -> None:
        """The authors' network in our code, as `ours_fp8`."""
        self._ours("released_fp8", FP8, kind="released")

    def _ours(self, name: str, options: Acceleration, has_identity: bool = True, kind: Kind = "paper") -> None:
        transformer = models.our_transformer(self.size, self.device, self.dtype, kind)
        inputs = self._inputs()
        if has_identity:
            tokens = models.identity_tokens(self.size, self.device, self.dtype, kind=kind)
            inputs["identity_key_values"] = transformer.project_identity(tokens)
        expected = transformer(**inputs)[0]
        used = accelerate(transformer, options)
        start = time.perf_counter()
        error = relative_error(transformer(**inputs)[0], expected)
        first_s = time.perf_counter() - start
        run = measure(lambda: transformer(**inputs), self.device, warmup=1, repeats=self.repeats)
        self.results.add(name, **run, relative_error=error, first_step_s=first_s, options=used.model_dump())

    def rounding(self) -> None:
        """How far a step of each kind is from the same weights and inputs in float32."""
        transformer = models.our_transformer(self.size, self.device, self.dtype).float()
        inputs = {
            name: value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for name, value in self._inputs().items()
        }
        tokens = models.identity_tokens(self.size, self.device, self.dtype)
        expected = transformer(**inputs, identity_tokens=tokens.float())[0]
        errors = {}
        for name, options in (("eager", Acceleration()), ("exact", EXACT), ("fp8", FP8)):
            del transformer
            torch.compiler.reset()
            transformer = models.our_transformer(self.size, self.device, self.dtype)
            accelerate(transformer, options)
            errors[name] = relative_error(transformer(**self._inputs(), identity_tokens=tokens)[0], expected)
        self.results.add("rounding", **errors)

    # Whole videos

    def denoise_exact(self) -> None:
        """All steps of a video, from the person's pictures to latents, exact."""
        self._denoise("denoise_exact", EXACT)

    def denoise_cached(self) -> None:
        """The same with float8, every other step extrapolated, and the last steps without guidance."""
        cached = FP8.model_copy(update={"cache": "taylor", "cache_interval": 2})
        self._denoise("denoise_cached", cached, guidance_interval=GUIDED)

    def _denoise(self, name: str, options: Acceleration, guidance_interval: tuple[float, float] = (0.0, 1.0)) -> None:
        pipeline = models.whole_pipeline(self.size, self.device, self.dtype, has_text_encoder=False)
        accelerate(pipeline.transformer, options)
        models.denoise(pipeline, self.size, self.device, 8, guidance_interval=guidance_interval)
        synchronize(self.device)
        start = time.perf_counter()
        models.denoise(pipeline, self.size, self.device, self.steps, guidance_interval=guidance_interval)
        synchronize(self.device)
        seconds = time.perf_counter() - start
        self.results.add(
            name, seconds=seconds, steps=self.steps, options=options.model_dump(), guidance_interval=guidance_interval
        )

    # Memory plans

    def memory_fast(self) -> None:
        """Peak memory of a whole call of two steps, from the prompt to the frames."""
        self._memory("fast")

    def memory_balanced(self) -> None:
        """The same with one network at a time on the GPU."""
        self._memory("balanced")

    def memory_low(self) -> None:
        """The same with weights streamed in."""
        self._memory("low")

    def _memory(self, plan: MemoryPlan) -> None:
        pipeline = models.whole_pipeline(self.size, self.device, self.dtype).to("cpu")
        _free(self.device)
        accelerate(pipeline.transformer, Acceleration(attention="auto"), self.device)
        apply_plan(pipeline, plan, self.device)
        marks: list[float] = []

        def mark(_: object, __: int, ___: object, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            synchronize(self.device)
            marks.append(time.perf_counter())
            return tensors

        start = time.perf_counter()
        pipeline(
            "a person smiles",
            identity_inputs=models.random_person(pipeline),
            num_inference_steps=3,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
            callback_on_step_end=mark,
        )
        end = time.perf_counter()
        self.results.add(
            f"memory_{plan}",
            **peak_memory(self.device),
            seconds_per_step=(marks[-1] - marks[0]) / (len(marks) - 1),
            before_and_first_step_s=marks[0] - start,
            after_last_step_s=end - marks[-1],
        )

    # The VAE

    def vae_decode(self) -> None:
        """Latents to frames in one piece."""
        self._decode("vae_decode", is_tiled=False)

    def vae_decode_tiled(self) -> None:
        """Latents to frames in tiles."""
        self._decode("vae_decode_tiled", is_tiled=True)

    def _decode(self, name: str, is_tiled: bool) -> None:
        vae = models.video_vae(self.size, self.device, self.dtype)
        if is_tiled:
            vae.enable_tiling()
        latents = self._inputs()["hidden_states"][:1, :, : vae.config.latent_channels].transpose(1, 2)
        self._time(name, lambda: decode_video(vae, latents))

    def _inputs(self) -> dict[str, object]:
        return models.step_inputs(self.size, self.device, self.dtype)


ROWS = (
    "consisid_eager",
    "ours_exact",
    "ours_fp8",
    "ours_exact_identity_off",
    "released_exact",
    "released_fp8",
    "denoise_cached",
    "denoise_exact",
    "memory_balanced",
    "memory_low",
    "cogvideox_compiled",
    "consisid_compiled",
    "ours_eager",
    "cogvideox_eager",
    "vae_decode",
    "vae_decode_tiled",
    "rounding",
    "memory_fast",
)
"""Most important first: a run may be cut."""


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _compile(transformer: nn.Module) -> nn.Module:
    for block in transformer.transformer_blocks:
        block.compile(fullgraph=True)
    return transformer


@torch.no_grad()
def main() -> None:
    """Measure the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--add", action="store_true", help="Keep the rows that --out has from other commits.")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=f"Of: {', '.join(ROWS)}.")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="Tiny networks, to try the script.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    results = Results(arguments.out, device, arguments.add)
    benchmark = Benchmark(TINY if arguments.tiny else TRUE_SIZE, device, results, arguments.repeats, arguments.steps)
    failed = []
    for name in ROWS:
        if name in arguments.only:
            try:
                getattr(benchmark, name)()
            except Exception as error:  # whatever it is, the rows after it are worth having
                traceback.print_exc()
                results.add(name, failed=f"{type(error).__name__}: {error}"[:500])
                failed.append(name)
            torch.compiler.reset()
            _free(device)
    say(f"written to {arguments.out}")
    if failed:
        raise SystemExit(f"These rows failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
