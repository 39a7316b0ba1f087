"""How the nodes behave in ComfyUI: progress, Cancel, memory, what is run again, and what the registry is told."""

import gc
import importlib
import os
import re
import tomllib
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from fantasyid import __version__
from tests.comfyui.conftest import FOLDER
from tests.comfyui.test_inputs import PROMPT, defaults, given


@pytest.fixture
def asked(loaded: Any, person: Any) -> dict[str, Any]:
    return {"model": loaded, "person": person, "prompt": PROMPT, "steps": 8}


@pytest.fixture
def told(package: ModuleType) -> Iterator[list[tuple[int, int, Any]]]:
    """What ComfyUI's progress bar is told: steps done, all steps, and the picture so far."""
    told: list[tuple[int, int, Any]] = []
    utils = importlib.import_module("comfy.utils")
    utils.set_progress_bar_global_hook(lambda value, total, preview, node_id=None: told.append((value, total, preview)))
    yield told
    utils.set_progress_bar_global_hook(None)


def test_the_bar_shows_every_step_and_five_looks(nodes: dict[str, Any], asked: dict[str, Any], told: list[Any]) -> None:
    shown = given(nodes["Generate"], asked)
    looks = [preview for *_, preview in told if preview is not None]
    assert [(done, total) for done, total, preview in told if preview is None] == [(step, 8) for step in range(1, 9)]
    assert len(looks) == 5
    for form, picture, largest in looks:
        assert (form, picture.size, largest) == ("JPEG", (3 * 128, 128), None)
    told.clear()
    hidden = given(nodes["Generate"], {**asked, "preview": False})
    assert not [preview for *_, preview in told if preview is not None]
    assert np.array_equal(shown["frames"], hidden["frames"])


def test_cancel_ends_the_video_at_its_next_step_and_the_next_one_is_made(
    nodes: dict[str, Any], asked: dict[str, Any]
) -> None:
    management, utils = importlib.import_module("comfy.model_management"), importlib.import_module("comfy.utils")
    done: list[int] = []

    def press_cancel(value: int, total: int, preview: Any, node_id: Any = None) -> None:
        done.append(value)
        management.interrupt_current_processing(value == 2)

    utils.set_progress_bar_global_hook(press_cancel)
    with pytest.raises(management.InterruptProcessingException):
        given(nodes["Generate"], {**asked, "preview": False})
    utils.set_progress_bar_global_hook(None)
    assert done == [1, 2]
    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        given(nodes["ReadPerson"], {"model": asked["model"], "image": torch.zeros(1, 64, 64, 3)})
    assert given(nodes["Generate"], {**asked, "steps": 1})["record"].num_inference_steps == 1


def load(nodes: dict[str, Any], device: str = "cpu") -> Any:
    values = {**defaults(nodes["Load"]), "model": "tiny", "precision": "float32", "device": device}
    return nodes["Load"].execute(**values).result[0]


def test_a_model_that_comfyui_forgets_is_gone(nodes: dict[str, Any]) -> None:
    model = load(nodes)
    networks = weakref.ref(model._studio.pipeline.transformer)
    del model
    gc.collect()
    assert networks() is None


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_model_that_is_not_kept_is_given_up_and_loaded_again(
    nodes: dict[str, Any], person: Any, usual: dict[str, Any], cancelled: bool
) -> None:
    model, management = load(nodes), importlib.import_module("comfy.model_management")
    asked = {"model": model, "person": person, "prompt": PROMPT, "steps": 1, "preview": False}
    networks = weakref.ref(model._studio.pipeline.transformer)
    if cancelled:
        management.interrupt_current_processing()
        with pytest.raises(management.InterruptProcessingException):
            given(nodes["Generate"], {**asked, "keep_model": False})
    else:
        given(nodes["Generate"], {**asked, "keep_model": False})
    gc.collect()
    assert networks() is None
    assert np.array_equal(given(nodes["Generate"], asked)["frames"], usual["frames"])


@pytest.fixture(scope="module")
def usual(nodes: dict[str, Any], loaded: Any, person: Any) -> dict[str, Any]:
    return given(nodes["Generate"], {"model": loaded, "person": person, "prompt": PROMPT, "steps": 1, "preview": False})


def test_other_models_leave_the_gpu_before_ours_comes(
    nodes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, package: ModuleType
) -> None:
    calls: list[str] = []
    kinds = importlib.import_module(f"{package.__name__}.kinds")
    monkeypatch.setattr(kinds, "unload_all_models", lambda: calls.append("unload"))
    monkeypatch.setattr(kinds, "soft_empty_cache", lambda: calls.append("empty"))
    load(nodes, "cpu")
    assert calls == []
    load(nodes, "auto")
    assert calls == ["unload", "empty"]


def test_a_folder_that_has_changed_is_loaded_again(nodes: dict[str, Any]) -> None:
    node, values = nodes["Load"], defaults(nodes["Load"])
    before = node.fingerprint_inputs(**{**values, "model": "tiny"})
    assert before == node.fingerprint_inputs(**{**values, "model": "tiny"})
    index = next(path for path, *_ in before if path.endswith("transformer/config.json"))
    os.utime(index, ns=(0, 0))
    assert before != node.fingerprint_inputs(**{**values, "model": "tiny"})
    assert node.fingerprint_inputs(**values) == node.fingerprint_inputs(**values)


def test_what_the_registry_is_told_is_so() -> None:
    told = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    assert told["project"]["version"] == __version__
    assert told["project"]["dependencies"] == [f"fantasyid>={__version__}"]
    assert (FOLDER / "requirements.txt").read_text().split() == told["project"]["dependencies"]
    assert set(told["tool"]["comfy"]) == {"PublisherId", "DisplayName"}


def test_the_page_names_every_node_and_input(nodes: dict[str, Any]) -> None:
    page = (FOLDER.parent / "docs" / "comfyui.md").read_text()
    for node in nodes.values():
        schema = node.GET_SCHEMA()
        (section,) = re.findall(rf"^### {re.escape(schema.display_name)}\n(.*?)(?=^##)", page, re.MULTILINE | re.DOTALL)
        rows = set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))
        assert rows == {asked.id for asked in schema.inputs} | {out.display_name for out in schema.outputs}
