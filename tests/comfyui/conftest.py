"""The nodes, loaded as ComfyUI loads them, and a tiny model among its models."""

import asyncio
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from tests.end_to_end.test_cli_generate import model

__all__ = ["model"]  # a fixture

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "comfyui"


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A public-domain portrait as a file."""
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(astronaut()).save(path)
    return path


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    """The same as ComfyUI's IMAGE."""
    return torch.from_numpy(astronaut().astype(np.float32) / 255)[None]


@pytest.fixture(scope="module")
def package(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The folder, imported by its path; ComfyUI's models are in a folder of the test, a tiny one of ours among them."""
    before = set(sys.modules)
    if importlib.util.find_spec("comfy_api") is None:
        sys.path.insert(0, str(Path(__file__).parent / "host"))
    folder_paths = importlib.import_module("folder_paths")
    folder_paths.models_dir = str(tmp_path_factory.mktemp("models"))
    shutil.copytree(model, Path(folder_paths.models_dir) / "fantasyid" / "tiny")
    name = str(FOLDER).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(
        name, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    yield package
    sys.path[:] = [place for place in sys.path if place != str(Path(__file__).parent / "host")]
    for module in set(sys.modules) - before:
        if module.startswith(name) or module.partition(".")[0] in ("comfy", "comfy_api", "folder_paths"):
            del sys.modules[module]


@pytest.fixture(scope="module")
def nodes(package: ModuleType) -> dict[str, Any]:
    """The nodes by their ids, after ComfyUI's start."""

    async def start() -> list[Any]:
        extension = await package.comfy_entrypoint()
        await extension.on_load()
        nodes: list[Any] = await extension.get_node_list()
        return nodes

    return {node.GET_SCHEMA().node_id.removeprefix("FantasyID_"): node for node in asyncio.run(start())}


@pytest.fixture(scope="module")
def loaded(nodes: dict[str, Any]) -> Any:
    """The tiny model, as Load FantasyID gives it."""
    with torch.inference_mode():
        return nodes["Load"].execute("tiny", "cpu", "float32", "auto", "exact").result[0]


@pytest.fixture(scope="module")
def person(nodes: dict[str, Any], loaded: Any, image: torch.Tensor) -> Any:
    """Who the photo shows, as Read Person gives them."""
    with torch.inference_mode():
        return nodes["ReadPerson"].execute(loaded, image, 0, "of the model").result[0]
