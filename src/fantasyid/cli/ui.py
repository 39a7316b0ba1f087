"""`fantasyid ui`: the page in a browser."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fantasyid.cli.addresses import is_this_machine, listen
from fantasyid.cli.progress import quieten_libraries
from fantasyid.cli.signing import Sign, SignWith, signing_key
from fantasyid.core.choices import Device, Dtype, MemoryPlanChoice
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.optional import require
from fantasyid.core.output_files import check_outputs, make_folder
from fantasyid.generation.request import SPEED_PRESETS, ModelRequest


def ui(
    folder: Annotated[
        Path, typer.Option(help="Where videos, records and photos are kept; made if it is not there.")
    ] = Path("fantasyid-videos"),
    model: Annotated[str, typer.Option(help="mini (built in), a folder, or a name on the Hugging Face Hub.")] = "mini",
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Precision. Auto: bfloat16 where the machine has it.")] = "auto",
    plan: Annotated[
        MemoryPlanChoice, typer.Option(help="GPU memory: balanced fits 24 GB, low 10 GB. Auto: the first that fits.")
    ] = "auto",
    preset: Annotated[
        Literal["exact", "fast", "draft"],
        typer.Option(help="Speed at full size on a GPU, as for `fantasyid generate`."),
    ] = "exact",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in, who see their own videos only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    sign: Sign = False,
    sign_with: SignWith = None,
) -> None:
    """Open the page: a photo and a sentence become a video, with nothing to type here.

    It runs until Ctrl+C. Nothing leaves this machine.

    [bold]Examples[/bold]

      fantasyid ui

      fantasyid ui --folder videos --model acvlab/FantasyID --preset fast
    """
    listen("The page", host, port).close()  # only Gradio itself can take it for good
    require("gradio", "ui", "show the page")
    make_folder(folder)
    check_outputs([folder / "video.mp4"], overwrite=True)
    key = signing_key(sign, sign_with)
    fields: dict[str, Any] = dict(SPEED_PRESETS[preset])
    asked = {**fields.pop("model", {}), "name": model, "device": device, "dtype": dtype, "memory_plan": plan}

    from fantasyid.ui.page import build_page, page_options
    from fantasyid.ui.settings import PageSettings

    quieten_libraries()
    shows_all = is_this_machine(host)
    settings = PageSettings(folder.resolve(), ModelRequest(**asked), shows_all=shows_all, signing_key=key, **fields)
    page = build_page(settings)
    try:
        page.launch(
            server_name=host, server_port=port, inbrowser=open_browser, quiet=True, prevent_thread_lock=True,
            share=False, **page_options(),
        )  # fmt: skip
    except OSError as error:
        raise InvalidRequestError(
            f"The page cannot listen on {host}:{port} ({error}); choose another --port."
        ) from error
    typer.echo(f"The page is at {page.local_url} and ends with Ctrl+C; videos go to {settings.folder}.")
    page.block_thread()
