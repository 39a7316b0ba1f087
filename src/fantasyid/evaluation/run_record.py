"""What is kept of a run beside its videos: all that is needed to start it again, and who started it with what."""

import hashlib
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from fantasyid import __version__
from fantasyid.core.code_fingerprint import code_fingerprint
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.faults import first_fault
from fantasyid.core.input_files import check_input_file
from fantasyid.core.output_files import write_file
from fantasyid.evaluation.metrics.registry import all_metrics
from fantasyid.evaluation.run_config import RunConfig

_FILE = "run.json"
_PACKAGES = (
    *("av", "diffusers", "dlib-bin", "face-recognition-models", "numpy", "onnxruntime", "opencv-python-headless"),
    *("scipy", "torch", "torch-fidelity", "torchmetrics", "transformers"),
)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunStart(_Record):
    """One start of a run."""

    at: AwareDatetime
    command: tuple[str, ...]
    """The arguments as typed; empty when called from Python."""
    versions: dict[str, str]
    """Of Python, this package and those that it measures with, as far as they are installed."""
    code_sha256: str
    """Of the code that runs and measures, with all that it imports; each video's own hash has the code that made it."""


class RunRecord(_Record):
    """All starts of a run."""

    format: Literal[1] = 1
    config: RunConfig
    """Of the last start."""
    base: Path
    """What the config's paths are relative to."""
    starts: tuple[RunStart, ...]
    """In their order."""


def record_start(out: Path, config: RunConfig, base: Path, command: Sequence[str]) -> None:
    """Write down that a run is started, below its earlier starts.

    Args:
        out: Folder of the run, which exists.
        config: What is evaluated.
        base: What its paths are relative to.
        command: The arguments as typed.

    Raises:
        InvalidRequestError: What is there was written by another version.
    """
    before = read_run_record(out).starts if (out / _FILE).exists() else ()
    start = RunStart(
        at=datetime.now(UTC).replace(microsecond=0),
        command=tuple(command),
        versions=_installed(),
        code_sha256=_code_sha256(),
    )
    record = RunRecord(config=config, base=base.resolve(), starts=(*before, start))
    write_file(out / _FILE, record.model_dump_json(indent=2).encode())


def read_run_record(out: Path) -> RunRecord:
    """Read what is written down of a run.

    Args:
        out: Its folder.

    Raises:
        InvalidRequestError: It is none, or of another version.
    """
    path = out / _FILE
    check_input_file(path, "run's")
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        where, said = first_fault(error, "its content")
        raise InvalidRequestError(
            f"{path} is no record of a run that this version reads ({where}: {said}); remove it and start "
            "`fantasyid evaluate run` again, which makes nothing again."
        ) from error


def _code_sha256() -> str:
    modules = {"fantasyid.evaluation.run", *(type(metric).__module__ for metric in all_metrics())}
    return hashlib.sha256(" ".join(sorted(map(code_fingerprint, modules))).encode()).hexdigest()


def _installed() -> dict[str, str]:
    found = {"fantasyid": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # of an extra that this run does without
            continue
    return found
