"""Turn measured results into docs/benchmarks.md and its picture.

python -m benchmarks.report benchmarks/results/NAME.json [NAME_OF_SEVERAL_GPUS.json]
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

Rows = dict[str, dict[str, Any]]

STEPS = {
    "authors_eager": "the authors' code, as it comes",
    "consisid_eager": "diffusers ConsisID, as it comes",
    "cogvideox_eager": "diffusers CogVideoX-5B-I2V (no identity), as it comes",
    "authors_compiled": "the authors' code, blocks compiled",
    "consisid_compiled": "diffusers ConsisID, blocks compiled",
    "cogvideox_compiled": "diffusers CogVideoX-5B-I2V (no identity), blocks compiled",
    "ours_eager": "ours, nothing switched on",
    "ours_exact": "ours, exact",
    "ours_exact_identity_off": "ours, exact, identity off",
    "ours_fp8": "ours, fp8",
    "released_exact": "the released network in ours, exact",
    "released_fp8": "the released network in ours, fp8",
}
VIDEOS = {"denoise_exact": "ours, exact", "denoise_cached": "ours, fp8 + step cache + guidance interval"}
PLANS = {"memory_fast": "fast", "memory_balanced": "balanced", "memory_low": "low"}
VAE = {"vae_decode": "in one piece", "vae_decode_tiled": "in tiles"}
LAYOUTS = {
    "guidance": "guidance's branches apart",
    "ulysses": "tokens, Ulysses",
    "ring": "tokens, ring",
    "uneven": "tokens, Ulysses, 464x720 (not divisible)",
}
MODES = {
    "eager": "eager",
    "fast": "exact (compiled)",
    "eager_released": "released network, eager",
    "fast_released": "released network, exact (compiled)",
}
INTRODUCTION = """# Benchmarks

Measured by `benchmarks/one_gpu.py` and `benchmarks/two_gpus.py`, written by `benchmarks/report.py` from the JSON files
in `benchmarks/results/`. All networks have their true sizes (CogVideoX-5B-I2V: 6.4 billion parameters with the paper's
injection, whose queries are half as wide as its values) and random weights, in bfloat16; a step denoises both branches
of guidance of 49 frames of 480x720. Times are medians of single steps between CUDA events after warm-up, all of one
table from one run on one machine.

Exact means: compiled blocks, tuned where the JSON says so, and the fastest attention kernel (named there), nothing
approximated; fp8 has float8 linear layers besides. The peers are compiled as PyTorch does it unasked. Clock and power
are the GPU's means while the steps were timed: at its power limit it lowers its clock, so a step is as fast as it is
frugal. The relative error is that of a step's output against the same network with nothing switched on, on the same
inputs, both in bfloat16: random weights and guidance amplify rounding. "Taken from the GPU" includes what PyTorch's
allocator keeps for reuse while the card has room. The authors' code is not part of this repository: it was timed in the
same run from outside it.
"""


def main() -> None:
    """Write the page and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="Files of the benchmark scripts.")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    parts = [INTRODUCTION]
    for path in arguments.results:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows: Rows = {name: row for name, row in content["rows"].items() if "failed" not in row}
        parts.append(_machine(path, content))
        if any(name in rows for name in STEPS):
            picture = arguments.docs / "images" / "benchmarks.png"
            _plot(rows, picture)
            parts.append(f"![Seconds per step]({picture.relative_to(arguments.docs)})\n")
        parts += [
            part
            for part in (_steps(rows), _rounding(rows), _videos(rows), _memory(rows), _vae(rows), _devices(rows))
            if part
        ]
    (arguments.docs / "benchmarks.md").write_text("\n".join(parts), encoding="utf-8")


def _machine(path: Path, content: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(content["versions"].items()) if version)
    added: dict[str, list[str]] = {}
    for name, row in content["rows"].items():
        if "commit" in row:
            added.setdefault(f"{row['date']}, commit {str(row['commit'])[:12]}", []).append(name)
    others = "".join(f" Of {origin}: {', '.join(names)}." for origin, names in added.items())
    return (
        f"## {content['hardware']}\n\n{content['date']}, commit {str(content['commit'])[:12]}, driver "
        f"{content['driver']}, {versions} (`{path.name}`).{others}\n"
    )


def _table(title: str, head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    body = [f"| {' | '.join(line)} |" for line in lines]
    if not body:
        return ""
    return "\n".join([f"### {title}\n", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *body]) + "\n"


def _share(row: dict[str, Any], of: dict[str, Any] | None) -> str:
    return f"{row['seconds'] / of['seconds']:.2f}" if of else ""


def _steps(rows: Rows) -> str:
    return _table(
        "One step",
        ("what", "s", "authors' = 1", "ConsisID = 1", "peak GiB", "relative error", "MHz", "W"),
        (
            (
                label,
                f"{rows[name]['seconds']:.3f}",
                _share(rows[name], rows.get("authors_eager")),
                _share(rows[name], rows.get("consisid_eager")),
                f"{rows[name].get('peak_gib', float('nan')):.1f}",
                f"{rows[name]['relative_error']:.1%}" if "relative_error" in rows[name] else "",
                *(f"{rows[name][key]:.0f}" if key in rows[name] else "" for key in ("clock_mhz", "power_w")),
            )
            for name, label in STEPS.items()
            if name in rows
        ),
    )


def _videos(rows: Rows) -> str:
    authors = rows.get("authors_eager")

    def share(row: dict[str, Any]) -> str:
        return f"{row['seconds'] / (row['steps'] * authors['seconds']):.2f}" if authors else ""

    return _table(
        "Denoising a whole video",
        ("what", "steps", "s", "as many of the authors' steps = 1"),
        (
            (label, str(rows[name]["steps"]), f"{rows[name]['seconds']:.1f}", share(rows[name]))
            for name, label in VIDEOS.items()
            if name in rows
        ),
    )


def _memory(rows: Rows) -> str:
    return _table(
        "Memory plans: from the prompt to the frames, T5-XXL and VAE included",
        ("plan", "peak GiB of tensors", "peak GiB taken from the GPU", "s per step (eager)"),
        (
            (label, *(f"{rows[name][key]:.1f}" for key in ("peak_gib", "reserved_gib", "seconds_per_step")))
            for name, label in PLANS.items()
            if name in rows
        ),
    )


def _vae(rows: Rows) -> str:
    return _table(
        "Decoding 49 frames",
        ("VAE", "s", "peak GiB"),
        (
            (label, f"{rows[name]['seconds']:.2f}", f"{rows[name].get('peak_gib', float('nan')):.1f}")
            for name, label in VAE.items()
            if name in rows
        ),
    )


def _devices(rows: Rows) -> str:
    lines = []
    for mode, mode_label in MODES.items():
        if f"single_{mode}" not in rows:
            continue
        lines.append((mode_label, "one GPU", f"{rows[f'single_{mode}']['seconds']:.3f}", "1.00", ""))
        for name, row in rows.items():
            layout, _, rest = name.partition("_")
            if layout in LAYOUTS and rest.endswith(f"_{mode}") and "seconds" in row:
                speed_up = f"{row['speed_up']:.2f}" if "speed_up" in row else ""
                label = f"{rest.partition('_')[0]} GPUs: {LAYOUTS[layout]}"
                lines.append((mode_label, label, f"{row['seconds']:.3f}", speed_up, f"{row['relative_error']:.1%}"))
    for name, row in rows.items():
        if name.startswith("video_"):
            count = name.removeprefix("video_")
            what = f"{count} GPUs: guidance's branches apart, {row['steps']} steps by the pipeline"
            error = f"{row['relative_error']:.1%}"
            lines.append((MODES["fast"], what, f"{row['seconds']:.1f}", f"{row['speed_up']:.2f}", error))
    return _table("Several GPUs, one step", ("mode", "what", "s", "speed-up", "relative error"), lines)


def _rounding(rows: Rows) -> str:
    kinds = {"eager": "nothing switched on", "exact": "exact", "fp8": "fp8"}
    row = rows.get("rounding", {})
    return _table(
        "Rounding: relative error of one step against the same weights in float32",
        ("ours", "relative error"),
        ((label, f"{row[kind]:.2%}") for kind, label in kinds.items() if kind in row),
    )


def _plot(rows: Rows, path: Path) -> None:
    names = [name for name in STEPS if name in rows]
    seconds = [rows[name]["seconds"] for name in names]
    colours = ["#2b6cb0" if name.startswith(("ours", "released")) else "#a0aec0" for name in names]
    figure, axes = pyplot.subplots(figsize=(9, 0.42 * len(names) + 1), layout="constrained")
    bars = axes.barh([STEPS[name] for name in names], seconds, color=colours)
    axes.bar_label(bars, [f"{value:.2f} s" for value in seconds], padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(seconds))
    axes.set_xlabel("seconds per step, 49 x 480 x 720, bfloat16")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
