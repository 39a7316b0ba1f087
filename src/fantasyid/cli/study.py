"""`fantasyid study`: a user study of videos, from the pages that people rate to the table (docs/user-study.md)."""

import csv
import io
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import typer

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.optional import require

study_app = typer.Typer(
    help="Have people rate videos of several systems, side by side and blind; the paper's Table 1.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
Ratings = Annotated[Path, typer.Argument(help="File of `study serve`; it may be at work.")]


@study_app.command()
def serve(
    videos: Annotated[
        Path, typer.Argument(help="Folder with items.csv, the photos, and a folder of videos for each system.")
    ],
    ratings: Annotated[Path, typer.Option(help="File of the ratings; those that are there stay.")] = Path("ratings.db"),
    pages: Annotated[int | None, typer.Option(help="Pages for one rater. Default: every item.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of that address; 0 takes a free one.")] = 8000,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Programs will rate: said on every page, in the CSV and in the table.")
    ] = False,
) -> None:
    """Serve the pages of a study, until Ctrl+C.

    [bold]Example[/bold]

      fantasyid study serve videos --ratings ratings.db --pages 15 --host 0.0.0.0
    """
    for package in ("fastapi", "uvicorn"):
        require(package, "study", "serve a study")
    if not videos.is_dir():
        raise InvalidRequestError(f"There is no folder {videos}; check the path of the videos.")

    from fantasyid.study.plan import read_plan
    from fantasyid.study.server import serve as serve_pages
    from fantasyid.study.store import RatingStore

    store = RatingStore.begin(ratings, read_plan(videos, pages, simulated))
    serve_pages(store, videos, host, port, lambda address: typer.echo(f"Raters begin at {address}"))


@study_app.command()
def table(
    ratings: Ratings,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of Markdown.")] = False,
) -> None:
    """Print mean scores with intervals, and how far the raters agree.

    [bold]Example[/bold]

      fantasyid study table ratings.db
    """
    from fantasyid.study.store import RatingStore
    from fantasyid.study.table import make_table

    store = RatingStore(ratings)
    made = make_table(store.plan, store.ratings())
    typer.echo(made.model_dump_json(indent=2) if as_json else made.as_markdown())


@study_app.command()
def export(
    ratings: Ratings,
    out: Annotated[Path, typer.Option(help="CSV to write, one row for each score.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write all ratings as a CSV.

    [bold]Example[/bold]

      fantasyid study export ratings.db --out ratings.csv
    """
    from fantasyid.core.output_files import check_outputs, write_file
    from fantasyid.study.store import Rating, RatingStore

    check_outputs([out], overwrite=overwrite, inputs=[ratings])
    store = RatingStore(ratings)
    text = io.StringIO()
    rows = csv.DictWriter(text, [*(field.name for field in fields(Rating)), "simulated"])
    rows.writeheader()
    rows.writerows(asdict(rating) | {"simulated": int(store.plan.simulated)} for rating in store.ratings())
    write_file(out, text.getvalue().encode())
    typer.echo(f"Written to {out}.")
