"""`fantasyid evaluate run | table | report`: several systems on the same people, prompts and seeds, in tables."""

import logging
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.faults import first_fault
from fantasyid.core.optional import require

# The libraries behind take seconds to import; the functions below import them, so that --help doesn't.
if TYPE_CHECKING:
    from fantasyid.evaluation.consisid.person import ReadPeople
    from fantasyid.evaluation.consisid.request import ConsisIDRequest
    from fantasyid.evaluation.run import MakerFactory
    from fantasyid.evaluation.run_config import RunConfig, RunRow, System
    from fantasyid.generation.request import GenerationRequest

_OF_THE_ROW = ("prompt", "seed", "num_videos")

Config = Annotated[Path, typer.Argument(help="YAML file; see docs/evaluation.md.")]
Out = Annotated[Path, typer.Option(help="Folder of the videos, of what was measured of each, and of the tables.")]


def run(
    config: Config,
    out: Out,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with models of its own.")] = 1,
) -> None:
    """Make and judge the videos that CONFIG describes, then write the tables.

    What is there of the same model, photo, prompt, code and judge is not made again: an interrupted run is started
    again. A video that fails, or a number that cannot be had of one, is told in the tables and is tried again the next
    time; the exit code is 1 then.
    """
    from fantasyid.evaluation.run import run as run_all
    from fantasyid.evaluation.run_config import read_run_config, run_rows
    from fantasyid.generation.request import as_text

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asked, base = read_run_config(config), config.parent
    rows = list(run_rows(asked, base))
    command = tuple(as_text(argument) for argument in sys.argv[1:])
    items = run_all(asked, rows, base, out, makers_of(asked, rows[0], base), workers, command)
    _write_tables(config, out)
    if failed := sum(item.failure is not None for item in items):
        typer.echo(f"{failed} of {len(items)} videos failed; the tables say why.", err=True)
    if missing := sum(kept.failure is not None for item in items for kept in item.measured.values()):
        typer.echo(f"{missing} numbers of single videos could not be measured; the tables say why.", err=True)
    if failed or missing:
        raise typer.Exit(1)


def table(config: Config, out: Out) -> None:
    """Write the tables of a finished run again: table.md, table.tex and table.json in OUT."""
    _write_tables(config, out)


def report(
    finished: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="File to write, such as report.html.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write RUN as one page that needs nothing else: tables, plots, the best and worst videos, how to repeat it."""
    for package in ("jinja2", "matplotlib"):
        require(package, "report", "write the page of a run")

    from fantasyid.core.output_files import check_outputs, write_together
    from fantasyid.evaluation.page.page import report_page

    check_outputs([out], overwrite=overwrite)
    page = report_page(finished)
    with write_together([out], overwrite=overwrite) as (made,):
        made.write_text(page, encoding="utf-8")
    typer.echo(f"The page is {out}.")


def _write_tables(config: Path, out: Path) -> None:
    from fantasyid.core.output_files import write_together
    from fantasyid.evaluation.run import read_items
    from fantasyid.evaluation.run_config import read_run_config, run_rows
    from fantasyid.evaluation.table_forms import to_latex, to_markdown
    from fantasyid.evaluation.tables import build_table

    asked = read_run_config(config)
    numbers = build_table(asked, read_items(out, list(run_rows(asked, config.parent))))
    files = [out / f"table.{form}" for form in ("md", "tex", "json")]
    with write_together(files, overwrite=True) as (markdown, latex, plain):
        markdown.write_text(to_markdown(numbers), encoding="utf-8")
        latex.write_text(to_latex(numbers), encoding="utf-8")
        plain.write_text(numbers.model_dump_json(indent=2) + "\n", encoding="utf-8")
    typer.echo(to_markdown(numbers))


def makers_of(config: "RunConfig", row: "RunRow", base: Path) -> dict[str, "MakerFactory"]:
    """Who makes the videos of each system that needs them made.

    Args:
        config: What is evaluated.
        row: Any of its rows.
        base: What its paths are relative to.

    Raises:
        FantasyIDError: A request cannot be used, or something is missing; so nothing is made in vain before.
    """
    makers: dict[str, MakerFactory] = {}
    for system in config.systems:
        if system.request is not None:
            makers[system.name] = partial(StudioMaker, system_request(system, row))
        elif system.consisid is not None:
            makers[system.name] = partial(ConsisIDMaker, system.consisid, base)
            makers[system.name]()  # it looks for all that it needs and loads nothing yet
    return makers


def system_request(system: "System", row: "RunRow") -> "GenerationRequest":
    """What a system asks for in every row; its prompt, photo and seed are those of the given one.

    Raises:
        InvalidRequestError: A field is unknown, wrong, or the row's own.
    """
    from pydantic import ValidationError

    from fantasyid.generation.request import GenerationRequest

    fields: dict[str, Any] = dict(system.request or {})
    person = fields.pop("person", None) or {}
    taken = [name for name in _OF_THE_ROW if name in fields] + [f"person.{name}" for name in person if name == "photos"]
    if taken:
        raise InvalidRequestError(
            f"The system {system.name} gives {taken[0]}, which is each video's own; leave it out."
        )
    try:
        own = {"prompt": row.text, "seed": row.seed, "person": {**person, "photos": [row.photo]}}
        return GenerationRequest.model_validate(fields | own)
    except ValidationError as error:
        where, said = first_fault(error)
        raise InvalidRequestError(
            f"The request of the system {system.name} cannot be used ({where}: {said}); correct it."
        ) from error


@dataclass
class StudioMaker:
    """Makes the videos of this package's models.

    Args:
        request: What every video is asked for with, but for its prompt, photo and seed.
    """

    request: "GenerationRequest"

    def __post_init__(self) -> None:
        from fantasyid.generation.studio import Studio

        self.studio = Studio(self.request.model)

    def made_of(self, row: "RunRow") -> str:
        """Hash of the model as it is used, of its code, of the photo and of the request."""
        import hashlib

        from fantasyid.core.code_fingerprint import code_fingerprint
        from fantasyid.core.input_files import file_sha256

        asked = self.studio.complete(self._of(row)).model_dump(mode="json")
        asked["person"].pop("photos")  # a photo counts by what it shows, not by where it lies
        parts = (
            str(asked),
            file_sha256(row.photo),
            self.studio.weights_sha256,
            code_fingerprint("fantasyid.generation.studio"),
        )
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def make(self, row: "RunRow", path: Path) -> None:
        """Write the video, its record and its contact sheet."""
        (video,) = self.studio.videos(self._of(row))
        video.save(path, overwrite=True)

    def _of(self, row: "RunRow") -> "GenerationRequest":
        assert self.request.person is not None, "the request is of a person"
        person = self.request.person.model_copy(update={"photos": (row.photo,)})
        return self.request.model_copy(update={"prompt": row.text, "seed": row.seed, "person": person})


@dataclass
class ConsisIDMaker:
    """Makes the videos of diffusers' ConsisID.

    Args:
        request: How.
        base: What its folder is relative to.
        read_people: Makes what reads people; None is ConsisID's own.

    Raises:
        FantasyIDError: Weights or packages are missing.
    """

    request: "ConsisIDRequest"
    base: Path
    read_people: "ReadPeople | None" = None

    def __post_init__(self) -> None:
        from fantasyid.evaluation.consisid.person import FaceUtilsReader
        from fantasyid.evaluation.consisid.pipeline import ConsisID
        from fantasyid.generation.machine import choose_device

        used = choose_device("auto", "auto")
        self.consisid = ConsisID(
            self.request, self.base / self.request.folder, *used, self.read_people or FaceUtilsReader
        )

    def made_of(self, row: "RunRow") -> str:
        """Hash of the weights as they are used, of the code, of the photo, of the prompt and of the seed."""
        import hashlib

        from fantasyid.core.input_files import file_sha256

        parts = (self.consisid.fingerprint, file_sha256(row.photo), str(row.seed), row.text)
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def make(self, row: "RunRow", path: Path) -> None:
        """Write the video."""
        self.consisid.save(path, row.photo, row.text, row.seed)
