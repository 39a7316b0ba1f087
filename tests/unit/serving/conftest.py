"""A server with a tiny model, and what is sent to it."""

import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from fastapi import FastAPI
from openai import OpenAI
from PIL import Image
from skimage.data import astronaut

from fantasyid.generation.request import ModelRequest
from fantasyid.serving.api import create_app
from fantasyid.serving.service import Limits, VideoService
from fantasyid.serving.set_up import open_service, set_up
from tests.tiny_photo_model import tiny_photo_pipeline

KEY = "a-key"
SOON = {"num_inference_steps": 2, "num_frames": 1}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The client says of its whole API that its maker has no server for it any more."""
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore:The Sora API"))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelRequest:
    """A saved model for 128 x 128 pixels and 9 frames that reads real photos."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_photo_pipeline().save_pretrained(folder)
    return ModelRequest(name=str(folder), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A public-domain portrait as a file."""
    content = io.BytesIO()
    Image.fromarray(astronaut()).save(content, "PNG")
    return content.getvalue()


@dataclass(frozen=True)
class Server:
    """A running server."""

    client: OpenAI
    url: str
    service: VideoService

    def create(self, prompt: str = "a woman smiles", photo: bytes | None = None, **more: Any) -> Any:
        """Ask for a video that is soon made: of few steps and one frame."""
        file = {} if photo is None else {"input_reference": ("photo.png", photo)}
        return self.client.videos.create(prompt=prompt, **file, extra_body={**SOON, **more})

    def wait(self, video: Any) -> Any:
        """Until a video has ended."""
        return self.client.videos.poll(video.id, poll_interval_ms=20)


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Run an app over HTTP, as users have it; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@contextmanager
def running(
    folder: Path, model: ModelRequest, *, worker: bool = True, keys: tuple[str, ...] = (), **limits: int
) -> Iterator[Server]:
    """A server on a folder."""
    service = open_service(folder, None, Limits(**limits))
    with served(create_app(set_up(service, model, keys=frozenset(keys), with_worker=worker))) as url:
        yield Server(OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0), url, service)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: ModelRequest) -> Iterator[Server]:
    """One that makes videos."""
    with running(tmp_path_factory.mktemp("server"), model) as one:
        yield one


@pytest.fixture
def serve(tmp_path: Path, model: ModelRequest) -> Iterator[Callable[..., Server]]:
    """Starts a server of another kind."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(running(tmp_path / "videos", model, **options))
