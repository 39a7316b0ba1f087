"""Break the package in many small ways, one at a time, and see that for each the test that guards it fails.

Command: `python -m tests.mutants [--only WORDS]... [--jobs N]`

The mutations are those of `tests/mutants/catalogue`. Nothing but a copy in a temporary folder is changed. Every test is
run on an unbroken copy first. The exit code is 1 if a mutation survives or applies no longer.
"""

import argparse
import multiprocessing
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from tests.mutants.catalogue import MUTATIONS
from tests.mutants.mutation import Mutation, Trial, attempt, attempt_unbroken

# Loaded once; each trial is a fork of the process that did.
_LIBRARIES = ["torch", "pytest", "cv2", "scipy.spatial", "skimage.data", "pydantic", "safetensors.torch", "accelerate"]
_LIBRARIES += ["transformers.models.bert.modeling_bert", "diffusers.models.autoencoders.autoencoder_kl_cogvideox"]
_LIBRARIES += [
    "diffusers.models.transformers.cogvideox_transformer_3d",
    "diffusers.schedulers.scheduling_dpm_cogvideox",
]
_LIBRARIES += ["diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video", "torch._dynamo", "dlib", "trimesh"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutations and say what became of each.

    Returns:
        0 if the guarding test fails for every mutation, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="part of what a mutation breaks or of its file; all by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    options = parser.parse_args(arguments)
    words = options.only or [""]
    chosen = [each for each in MUTATIONS if any(word in f"{each.breaks} {each.file}" for word in words)]
    if not chosen:
        parser.error(f"no mutation has {' or '.join(words)} in its description or file")
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LIBRARIES)
    with context.Pool(options.jobs, maxtasksperchild=1) as pool:
        failures = _report(chosen, lambda function, tasks: pool.imap(function, tasks, chunksize=1))
    print(f"{len(chosen) - failures} of {len(chosen)} mutations are seen by the test that guards against them.")  # noqa: T201
    return int(failures > 0)


def _report(chosen: Sequence[Mutation], run: Callable[..., Any]) -> int:
    """Print one line for each mutation; how many were not killed."""
    tests = defaultdict(set)
    for mutation in chosen:
        tests[mutation.test.partition("::")[0]].add(mutation.test)
    for trial in run(attempt_unbroken, [sorted(names) for names in tests.values()]):
        if not trial.killed:
            sys.exit(trial.report)
    failures = 0
    trials: Sequence[Trial] = run(attempt, chosen)
    for mutation, trial in zip(chosen, trials, strict=True):
        failures += not trial.killed
        print("killed  " if trial.killed else "ALIVE   ", mutation.breaks, trial.report, flush=True)  # noqa: T201
    return failures


if __name__ == "__main__":
    sys.exit(main())
