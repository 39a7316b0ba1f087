"""Timing, peak memory and the file of results that the benchmark scripts share."""

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, BinaryIO

import torch

PACKAGES = ("torch", "triton", "diffusers", "transformers", "torchao", "fa3-fwd", "cache-dit", "einops")


class Results:
    """A JSON file of measured rows, written anew after each of them: a run that is cut keeps what it has measured.

    Rows that the file already has from the same machine, software and commit stay, so several scripts can add to it;
    those of anything else are dropped, unless they are to be added to.

    Args:
        path: File to write.
        device: What is measured on.
        is_addition: Whether to keep rows of other commits too, each with its `commit` and `date`.

    Raises:
        ValueError: Rows are to be added to those of another machine or other software.
    """

    def __init__(self, path: Path, device: torch.device, is_addition: bool = False) -> None:
        self.path = path
        self.content: dict[str, Any] = {**_describe(device), "rows": {}}
        if not path.exists():
            return
        before = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in ("hardware", "driver", "versions") if before[key] != self.content[key]]
        if is_addition and differing:
            raise ValueError(f"{path} was measured with another {' and '.join(differing)}; write to another file")
        if not differing and before["commit"] == self.content["commit"]:
            self.content["rows"] = before["rows"]
        elif is_addition:
            origin = {"commit": before["commit"], "date": before["date"]}
            self.content["rows"] = {name: {**origin, **row} for name, row in before["rows"].items()}

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
        for many in ("seconds_all", "videos"):
            shown.pop(many, None)
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
        `seconds` (the median), `seconds_all`, `warmup_s`, and of the timed calls `peak_memory` and `mean_readings`.
    """
    with gpu_readings(device) as readings:
        start = time.perf_counter()
        for _ in range(warmup):
            run()
        synchronize(device)
        warmup_s = time.perf_counter() - start
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        begin = os.fstat(readings.fileno()).st_size
        seconds = [_time_once(run, device) for _ in range(repeats)]
        seen = mean_readings(readings, begin)
    return {
        "seconds": statistics.median(seconds),
        "seconds_all": seconds,
        "warmup_s": warmup_s,
        **peak_memory(device),
        **seen,
    }


def _time_once(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000


@contextmanager
def gpu_readings(device: torch.device) -> Iterator[BinaryIO]:
    """Read a GPU's clock and power five times a second, in a process of its own so that nothing timed waits for it.

    Args:
        device: Which GPU.

    Yields:
        The file that the process writes to; it stays empty on a CPU or where there is no `nvidia-smi`.
    """
    with tempfile.TemporaryFile() as file:
        if device.type != "cuda" or shutil.which("nvidia-smi") is None:
            yield file
            return
        gpu = f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}"
        wanted = ("--query-gpu=clocks.sm,power.draw", "--format=csv,noheader,nounits", "--loop-ms=200")
        with subprocess.Popen(("nvidia-smi", gpu, *wanted), stdout=file, stderr=subprocess.DEVNULL) as process:
            try:
                yield file
            finally:
                process.terminate()


def mean_readings(file: BinaryIO, begin: int) -> dict[str, float]:
    """Average what `gpu_readings` wrote after the byte `begin`.

    Args:
        file: Of `gpu_readings`.
        begin: Its size when what is of interest began.

    Returns:
        `clock_mhz` of the multiprocessors and `power_w`, or nothing where nothing was read.
    """
    size = os.fstat(file.fileno()).st_size
    # The process writes at the file's offset, so it must stay. The outer lines may be cut, or of before.
    lines = os.pread(file.fileno(), size - begin, begin).decode().splitlines()[1:-1]
    readings = [line.split(", ") for line in lines if re.fullmatch(r"[\d.]+, [\d.]+", line)]
    if not readings:
        return {}
    clock, power = (statistics.mean(map(float, column)) for column in zip(*readings, strict=True))
    return {"clock_mhz": clock, "power_w": power}


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

    installed = {item.name.lower().replace("_", "-"): item.version for item in distributions()}
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
