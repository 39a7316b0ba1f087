"""Time one denoising step on several GPUs against one of them.

torchrun --nproc-per-node 2 -m benchmarks.two_gpus --out benchmarks/results/NAME.json

Every process builds the same random transformer at its true size. `single` is one GPU while the others wait; each other
row names how the GPUs share the step, and carries its speed-up and its relative error against `single`; `uneven` is
Ulysses at 464x720, whose tokens cannot be halved, and carries the error only.
"""

import argparse
import time
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import torch
import torch.distributed as dist

from benchmarks.measure import Results, measure, relative_error, say, synchronize
from benchmarks.models import (
    EXACT,
    TINY,
    TRUE_SIZE,
    Kind,
    Size,
    denoise,
    identity_tokens,
    our_transformer,
    step_inputs,
    whole_pipeline,
)
from fantasyid.core.errors import InvalidRequestError
from fantasyid.pipelines.acceleration import accelerate
from fantasyid.pipelines.options import Acceleration
from fantasyid.pipelines.parallel import DeviceGroup, ParallelLayout, connect, process_rank

UNEVEN = {"sample_height": 58, "use_learned_positional_embeddings": False}
"""A size whose 29 rows of patches cannot be halved."""


class Step:
    """One denoising step of both branches of guidance, shared by the devices of a group as the pipeline shares it.

    Args:
        size: Of the network.
        group: None computes it on this device alone.
        device: Of this process.
        dtype: Of the network.
        is_fast: Whether to compile the blocks and use the fastest attention kernel.
        kind: Of the injection.
    """

    def __init__(
        self, size: Size, group: DeviceGroup | None, device: torch.device, dtype: torch.dtype, is_fast: bool, kind: Kind
    ) -> None:
        self.group = group
        self.transformer = our_transformer(size, device, dtype, kind)
        self.inputs = step_inputs(size, device, dtype)
        tokens = identity_tokens(size, device, dtype, kind=kind)
        cos, _ = self.inputs["image_rotary_emb"]
        lengths = cos.shape[0], self.inputs["encoder_hidden_states"].shape[1]
        options = EXACT if is_fast else Acceleration(attention="auto")
        if device.type == "cpu":
            options = options.model_copy(update={"attention": "native"})
        self.options = accelerate(self.transformer, options)
        if group is not None:
            group.split_tokens(self.transformer, lengths)
        self.inputs["identity_key_values"] = self.transformer.project_identity(tokens)

    @torch.no_grad()
    def __call__(self) -> torch.Tensor:
        """Predict; both branches on every device."""
        if self.group is None:
            prediction: torch.Tensor = self.transformer(**self.inputs)[0]
            return prediction
        return self.group.predict_branches(self.transformer, self.inputs)


def measure_video(
    size: Size, group: DeviceGroup, device: torch.device, dtype: torch.dtype, steps: int
) -> dict[str, float | int]:
    """Denoise a whole video with the pipeline on every device by itself, then on all together."""
    pipeline = whole_pipeline(size, device, dtype, has_text_encoder=False)
    accelerate(pipeline.transformer, EXACT)
    seconds, videos = [], []
    for is_shared in (False, True):
        if is_shared:
            pipeline.enable_parallelism(group)
        denoise(pipeline, size, device, 2)
        synchronize(device)
        dist.barrier()
        start = time.perf_counter()
        videos.append(denoise(pipeline, size, device, steps))
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": seconds[1],
        "single_seconds": seconds[0],
        "speed_up": seconds[0] / seconds[1],
        "steps": steps,
        "relative_error": relative_error(videos[1], videos[0]),
    }


@torch.no_grad()
def main() -> None:
    """Measure the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--add", action="store_true", help="Keep the rows that --out has from other commits.")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="Tiny networks, to try the script.")
    parser.add_argument("--layouts", nargs="+", default=["guidance", "ulysses", "ring", "uneven"])
    parser.add_argument("--kind", default="paper", choices=get_args(Kind), help="Of the injection.")
    parser.add_argument("--modes", nargs="*", default=["eager", "fast"])
    parser.add_argument("--video-steps", type=int, default=0, help="Also denoise a video of so many steps, exact.")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    if arguments.device == "cpu":
        torch.accelerator.device_count = lambda: 1  # diffusers divides by it
    device = connect(arguments.device)
    devices = dist.get_world_size()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    size = TINY if arguments.tiny else TRUE_SIZE
    layouts = {
        "guidance": ParallelLayout.for_devices(devices, has_guidance=True),
        "ulysses": ParallelLayout(ulysses=devices),
        "ring": ParallelLayout(ring=devices),
        "uneven": ParallelLayout(ulysses=devices),
    }
    results = Results(arguments.out, device, arguments.add) if process_rank() == 0 else None
    for mode in arguments.modes:
        ending = mode if arguments.kind == "paper" else f"{mode}_{arguments.kind}"
        make = partial(Step, device=device, dtype=dtype, is_fast=mode == "fast", kind=arguments.kind)
        alone = make(size, None)
        expected = alone()
        single: dict[str, object] = {}
        if results is not None:
            single = measure(alone, device, warmup=1, repeats=arguments.repeats)
            single["options"] = alone.options.model_dump()
            results.add(f"single_{ending}", **single)
        for name in arguments.layouts:
            torch.compiler.reset()
            is_uneven = name == "uneven"
            shape = replace(size, base=size.base | UNEVEN) if is_uneven else size
            if is_uneven:
                expected = make(shape, None)()
            alone = None
            synchronize(device)
            dist.barrier()
            try:
                step = make(shape, DeviceGroup(layouts[name], device))
                error = relative_error(step(), expected)
                row = measure(step, device, warmup=1, repeats=arguments.repeats)
            except (RuntimeError, ValueError, TypeError, AssertionError, InvalidRequestError) as failure:
                # One layout that cannot run here must not lose the others; every process fails alike.
                traceback.print_exc(limit=-6)
                row, error = {"failed": f"{type(failure).__name__}: {failure}"[:500]}, float("nan")
            else:
                row["relative_error"] = error
            if results is not None:
                if "seconds" in row and not is_uneven:
                    row["speed_up"] = single["seconds"] / row["seconds"]
                results.add(f"{name}_{devices}_{ending}", **row)
            step = None
    if arguments.video_steps:
        torch.compiler.reset()
        group = DeviceGroup(layouts["guidance"], device)
        video = measure_video(size, group, device, dtype, arguments.video_steps)
        if results is not None:
            results.add(f"video_{devices}", **video)
    if results is not None:
        say(f"written to {arguments.out}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
