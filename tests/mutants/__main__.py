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
from collections.abc import Sequence
from multiprocessing.pool import Pool

from tests.mutants.catalogue import MUTATIONS
from tests.mutants.mutation import Mutation, attempt, attempt_unbroken

# Loaded once; each trial is a fork of the process that did.
_LIBRARIES = [
    "accelerate",
    "cv2",
    "diffusers.models.autoencoders.autoencoder_kl_cogvideox",
    "diffusers.models.transformers.cogvideox_transformer_3d",
    "diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video",
    "diffusers.schedulers.scheduling_dpm_cogvideox",
    "dlib",
    "pydantic",
    "pytest",
    "safetensors.torch",
    "scipy.spatial",
    "skimage.data",
    "torch",
    "torch._dynamo",
    "transformers.models.bert.modeling_bert",
    "trimesh",
]


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
        if report := _fails_unbroken(pool, chosen):
            print(report)  # noqa: T201
            return 1
        alive = 0
        for mutation, trial in zip(chosen, pool.imap(attempt, chosen), strict=True):
            alive += not trial.killed
            print("killed  " if trial.killed else "ALIVE   ", mutation.breaks, trial.report, flush=True)  # noqa: T201
    print(f"{len(chosen) - alive} of {len(chosen)} mutations are seen by the test that guards against them.")  # noqa: T201
    return int(alive > 0)


def _fails_unbroken(pool: Pool, chosen: Sequence[Mutation]) -> str:
    """Run the tests of the mutations without any, file by file; what pytest says if one fails, else nothing."""
    tests: dict[str, set[str]] = defaultdict(set)
    for mutation in chosen:
        tests[mutation.test.partition("::")[0]].add(mutation.test)
    trials = pool.imap_unordered(attempt_unbroken, [sorted(names) for names in tests.values()])
    return next((trial.report for trial in trials if trial.report), "")


if __name__ == "__main__":
    sys.exit(main())
