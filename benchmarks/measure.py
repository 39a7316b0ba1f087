"""Timing, peak memory and the file of results that the benchmark scripts share."""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "triton", "diffusers", "transformers", "torchao", "fa3-fwd", "cache-dit", "einops")


class Results:
    """A JSON file of measured rows, written anew after each of them: a run that is cut keeps what it has measured.

    Rows that the file already has from the same machine, software and commit stay, so several scripts can add to it.

    Args:
        path: File to write.
        device: What is measured on.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path = path
        self.content: dict[str, Any] = {**_describe(device), "rows": {}}
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            if {**before, "rows": {}, "date": ""} == {**self.content, "date": ""}:
                self.content["rows"] = before["rows"]

    def add(self, name: str, **values: Any) -> None:
        """Keep one measurement and print it.

        Args:
            name: Key of the row.
            **values: What was measured, as JSON can hold it.
        """
        self.content["rows"][name] = values
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in values.items()}
        shown.pop("seconds_all", None)
        say(f"{name}: {shown}")


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def measure(
    run: Callable[[], object], device: torch.device, warmup: int = 2, repeats: int = 5
) -> dict[str, float | list[float]]:
    """Time a function on a device, each call by itself, with CUDA's events where there are some.

    Args:
        run: What is timed.
        device: Where it runs.
        warmup: Calls before, which may compile; at least one.
        repeats: Calls that are timed.

    Returns:
        `seconds` (the median), `seconds_all`, `warmup_s`, and `peak_memory` of the timed calls.
    """
    start = time.perf_counter()
    for _ in range(warmup):
        run()
    synchronize(device)
    warmup_s = time.perf_counter() - start
    if device.type != "cuda":
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        return {"seconds": statistics.median(seconds), "seconds_all": seconds, "warmup_s": warmup_s}
    torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) / 1000)
    return {
        "seconds": statistics.median(seconds),
        "seconds_all": seconds,
        "warmup_s": warmup_s,
        **peak_memory(device),
    }


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> dict[str, float]:
    """Most memory since the last reset: `peak_gib` in tensors, `reserved_gib` taken from the GPU; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    allocated, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    return {"peak_gib": allocated / 2**30, "reserved_gib": reserved / 2**30}


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return float((actual.float() - expected.float()).norm() / expected.float().norm())


def _describe(device: torch.device) -> dict[str, Any]:
    def output(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    installed = {distribution.name: distribution.version for distribution in distributions()}
    versions = {"python": platform.python_version(), **{package: installed.get(package) for package in PACKAGES}}
    try:
        commit = output("git", "rev-parse", "HEAD")
    except (FileNotFoundError, subprocess.CalledProcessError):
        commit = None
    hardware, driver = platform.machine(), None
    if device.type == "cuda":
        hardware = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(device)}"
        driver = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()[0]
        versions["cuda"], versions["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    return {
        "hardware": hardware,
        "driver": driver,
        "versions": versions,
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
    }
