"""`fantasyid serve` and `fantasyid worker`: videos over HTTP, made here or on other machines."""

import logging
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fantasyid.cli.addresses import is_this_machine, listen
from fantasyid.cli.progress import ConsoleProgress, quieten_libraries
from fantasyid.cli.signals import handled
from fantasyid.cli.signing import Sign, SignWith, signing_key
from fantasyid.core.choices import Device, Dtype, MemoryPlanChoice
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.id_files import read_ids
from fantasyid.core.input_files import check_input_file
from fantasyid.core.optional import require
from fantasyid.core.output_files import make_folder
from fantasyid.generation.request import SPEED_PRESETS, ModelRequest

# Commands import what they need when they run.
if TYPE_CHECKING:
    from fastapi import FastAPI

    from fantasyid.core.credentials import SigningKey
    from fantasyid.serving.api import Served

ADDRESS, MODEL, LIMITS = "Where", "Model and machine", "Limits"
_LAST_ANSWERS_S = 10
"""How long answers may still take when the server is told to end; an open page asks for one without end."""

Outputs = Annotated[
    Path, typer.Option(help="Folder of the videos and, without --queue, of the queue; made if it is not there.")
]
Queue = Annotated[
    str | None,
    typer.Option(help="Redis that holds the queue, redis://HOST:6379/0, for several machines. Default: a file."),
]


def serve(
    outputs: Outputs = Path("videos"),
    queue: Queue = None,
    worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Make the videos in this process, or leave it to others.")
    ] = True,
    page: Annotated[
        bool | None,
        typer.Option(
            "--page/--no-page",
            help="Show the page of `fantasyid ui` at /, with the same model. Default: with the worker.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is all.", rich_help_panel=ADDRESS)
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.", rich_help_panel=ADDRESS)] = 8000,
    api_keys: Annotated[
        Path | None,
        typer.Option(help="File of keys, one a line: only who sends one is served.", rich_help_panel=ADDRESS),
    ] = None,
    model: Annotated[
        str, typer.Option(help="mini (built in), a folder, or a name on the Hugging Face Hub.", rich_help_panel=MODEL)
    ] = "mini",
    device: Annotated[Device, typer.Option(help="Where to compute.", rich_help_panel=MODEL)] = "auto",
    dtype: Annotated[
        Dtype, typer.Option(help="Precision. Auto: bfloat16 where the machine has it.", rich_help_panel=MODEL)
    ] = "auto",
    plan: Annotated[
        MemoryPlanChoice, typer.Option(help="GPU memory, see `fantasyid generate`.", rich_help_panel=MODEL)
    ] = "auto",
    preset: Annotated[
        Literal["exact", "fast"], typer.Option(help="Speed, see `fantasyid generate`.", rich_help_panel=MODEL)
    ] = "exact",
    max_queue: Annotated[
        int, typer.Option(help="Videos that may wait; more are refused.", rich_help_panel=LIMITS)
    ] = 50,
    max_upload_mb: Annotated[int, typer.Option(help="Megabytes of a photo.", rich_help_panel=LIMITS)] = 20,
    max_megapixels: Annotated[int, typer.Option(help="Megapixels of a photo.", rich_help_panel=LIMITS)] = 50,
    keep_hours: Annotated[
        int | None,
        typer.Option(
            help="Delete a video and its photo so long after it ended, a character so long after its last video was "
            "asked for. Default: never.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    sign: Sign = False,
    sign_with: SignWith = None,
) -> None:
    """Make videos for programs: the Videos API, for OpenAI's and other clients, on this machine.

    [bold]Examples[/bold]

      fantasyid serve

      fantasyid serve --host 0.0.0.0 --api-keys keys.txt --keep-hours 24

      fantasyid serve --no-worker --queue redis://10.0.0.5:6379/0 --outputs /mnt/videos
    """
    progress = ConsoleProgress()
    if page and not worker:
        raise InvalidRequestError("--page needs the model in this process; leave out --no-worker, or --page.")
    page = worker if page is None else page
    if not worker and (sign or sign_with is not None):
        raise InvalidRequestError("Who makes the videos signs them; give --sign to `fantasyid worker`.")
    keys = _read_keys(api_keys)
    uvicorn = require("uvicorn", "serve", "answer over HTTP")
    require("fastapi", "serve", "answer over HTTP")
    if page:
        require("gradio", "ui", "show the page (--no-page leaves it out)")
    listener = listen("The server", host, port)
    with progress.stage("Starting"):
        from fantasyid.serving.api import create_app
        from fantasyid.serving.service import Limits
        from fantasyid.serving.set_up import open_service, set_up

        quieten_libraries()
        key = signing_key(sign, sign_with)
    # Workers may be started elsewhere.
    name = str(Path(model).resolve()) if Path(model).is_dir() else model
    fields: dict[str, Any] = {"name": name, "device": device, "dtype": dtype, "memory_plan": plan}
    asked = ModelRequest.model_validate({**fields, **SPEED_PRESETS[preset].get("model", {})})
    limits = Limits(max_queue, max_upload_mb, max_megapixels, keep_hours)
    service = open_service(outputs, queue, limits)
    served = set_up(service, asked, keys=keys, with_worker=worker, signing_key=key, progress=progress)
    if not keys and not is_this_machine(host):
        progress.note("Warning: whoever reaches this address can make videos and see all; see --api-keys.")
    _log_videos()
    app = create_app(served, _clean_page_up(served) if page else None)
    if page:
        app = _with_page(app, served, key)
    config = uvicorn.Config(app, server_header=False, timeout_graceful_shutdown=_LAST_ANSWERS_S)
    server = uvicorn.Server(config)
    also = f", the page at http://{host}:{port}" if page else ""
    progress.note(f"Serving at http://{host}:{port}/v1{also} until Ctrl-C; videos go to {outputs}.")
    server.run(sockets=[listener])


def work(
    outputs: Outputs = Path("videos"), queue: Queue = None, sign: Sign = False, sign_with: SignWith = None
) -> None:
    """Make the videos that servers accept, on this machine, until it is stopped.

    Server and workers share --queue, and --outputs is one folder that all of them see, with file locks. A model that is
    a folder lies at the same path on each.

    [bold]Example[/bold]

      fantasyid worker --queue redis://10.0.0.5:6379/0 --outputs /mnt/videos
    """
    with ConsoleProgress().stage("Starting"):
        from fantasyid.serving.set_up import open_service
        from fantasyid.serving.worker import Worker

        quieten_libraries()
        key = signing_key(sign, sign_with)
    _log_videos()
    worker = Worker(open_service(outputs, queue), key)
    with handled((signal.SIGINT, signal.SIGTERM), lambda *_: worker.tell_to_stop()):
        worker.run()


def _with_page(app: "FastAPI", served: "Served", key: "SigningKey | None") -> "FastAPI":
    """The page at /, with the model of the server's own worker; where there are keys, one of them opens it.

    Visitors see the videos of their own visit alone: behind a proxy, all come from this machine.
    """
    import gradio

    from fantasyid.serving.guards import KeyCheck
    from fantasyid.ui.page import build_page, page_options
    from fantasyid.ui.settings import PageSettings

    assert served.worker is not None
    keep_hours = served.service.limits.keep_hours
    folder = _page_folder(served)
    settings = PageSettings(folder, served.model, shows_all=False, signing_key=key, keep_hours=keep_hours)
    blocks = build_page(settings, served.worker.studio(served.model))
    options = page_options()
    if served.keys:
        check = KeyCheck(served.keys)
        options["auth"] = lambda _, password: check.knows(password.encode())
        options["auth_message"] = "The password is an API key of this server; the name may be any."
    mounted: FastAPI = gradio.mount_gradio_app(app, blocks, path="/", **options)
    return mounted


def _page_folder(served: "Served") -> Path:
    folder = served.service.store.folder.resolve() / "page"
    make_folder(folder)
    return folder


def _clean_page_up(served: "Served") -> Callable[[], None] | None:
    """What deletes the page's videos as old as the API's are when they go."""
    keep_hours = served.service.limits.keep_hours
    if keep_hours is None:
        return None
    from fantasyid.ui.shelf import Shelf

    return partial(Shelf(_page_folder(served)).expire, keep_hours)


def _log_videos() -> None:
    """Have a line on stderr for each video that ends, and each fault."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("fantasyid.serving").setLevel(logging.INFO)


def _read_keys(file: Path | None) -> frozenset[str]:
    if file is None:
        return frozenset()
    check_input_file(file, "key")
    keys = frozenset(read_ids(file))
    if not keys:
        raise InvalidRequestError(f"{file} holds no key; write one a line, or leave --api-keys out.")
    return keys
