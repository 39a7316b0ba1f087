"""The pipeline as diffusers' modular blocks: the same frames, from a folder too, and refused as early."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ModularPipeline
from diffusers.modular_pipelines import InputParam, ModularPipelineBlocks, SequentialPipelineBlocks
from skimage.data import astronaut

from fantasyid.core.errors import InvalidRequestError
from fantasyid.pipelines.blocks import FantasyIDBlocks, save_blocks
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.tiny_pipeline import tiny_person, tiny_pipeline

CALL = {"prompt": "a person smiles", "negative_prompt": "blurry", "identity_inputs": tiny_person(), "output_type": "np"}


def blocks_of(pipeline: FantasyIDPipeline, blocks: SequentialPipelineBlocks | None = None) -> Any:
    modular = (blocks or FantasyIDBlocks()).init_pipeline()
    settings = {name: pipeline.config[name] for name in modular._config_specs}
    modular.update_components(**{name: pipeline.components[name] for name in modular.component_names}, **settings)
    return modular


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"identity_inputs": None, "guidance_scale": 1.0},
        {"use_reference": False, "num_videos_per_prompt": 2, "guidance_interval": (0.0, 0.5)},
        {"use_identity_tokens": False, "num_frames": 1, "num_inference_steps": 2},
        {"identity_scale": 0.5, "output_type": "latent"},
        {"prompt": ["smile", "turn left"], "negative_prompt": None, "height": 32, "width": 32},
    ],
    ids=str,
)
def test_blocks_make_the_pipelines_frames(asked: dict[str, Any]) -> None:
    pipeline = tiny_pipeline()
    expected = pipeline(**CALL | asked, generator=seeded()).frames
    frames = blocks_of(pipeline)(**CALL | asked, generator=seeded(), output="frames")
    assert np.array_equal(frames, expected)


def test_a_photo_is_read_as_the_pipeline_reads_it() -> None:
    pipeline = FantasyIDPipeline.from_pretrained("mini")
    pipeline.set_progress_bar_config(disable=True)
    call = {"prompt": "a woman smiles", "image": astronaut(), "num_inference_steps": 1, "num_frames": 1}
    expected = pipeline(**call, generator=seeded(), output_type="latent").frames
    made = blocks_of(pipeline)(**call, generator=seeded(), output_type="latent", output=["frames", "identity_inputs"])
    assert torch.equal(made["frames"], expected)
    assert made["identity_inputs"].vertices.shape[0] == 1


def test_a_call_is_refused_before_any_work() -> None:
    pipeline = tiny_pipeline()
    worked: list[str] = []
    for name in ("text_encoder", "transformer", "vae", "face_vision"):
        pipeline.components[name].register_forward_hook(lambda *_, name=name: worked.append(name))
    for wrong, says in (({"num_frames": 8}, "num_frames is 8"), ({"output_type": "gif"}, "output_type is 'gif'")):
        with pytest.raises(InvalidRequestError, match=says):
            blocks_of(pipeline)(**CALL | wrong)
    assert worked == []


def test_a_block_can_be_put_between() -> None:
    class Halve(ModularPipelineBlocks):
        @property
        def inputs(self) -> list[InputParam]:
            return [InputParam("latents", required=True)]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            state.set("latents", state.get("latents") / 2)
            return components, state

    pipeline, blocks = tiny_pipeline(), FantasyIDBlocks()
    call = CALL | {"output_type": "latent"}
    blocks.sub_blocks.insert("halve", Halve(), 4)
    halved = blocks_of(pipeline, blocks)(**call, generator=seeded(), output="frames")
    assert torch.equal(halved, pipeline(**call, generator=seeded()).frames / 2)


def test_every_input_is_documented() -> None:
    blocks = FantasyIDBlocks()
    parameters = set(inspect.signature(FantasyIDPipeline.__call__).parameters)
    own = {"self", "return_dict", "callback_on_step_end", "callback_on_step_end_tensor_inputs"}
    assert set(blocks.input_names) == parameters - own
    assert all(parameter.description for parameter in blocks.inputs)
    assert "Reads the person from the photo" in blocks.sub_blocks["read_identity"].doc


_IN_A_FRESH_PROCESS = """
import sys, numpy, torch
from diffusers import ModularPipeline
for folder in sys.argv[1:]:
    pipeline = ModularPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.load_components()
    call = torch.load(f"{folder}/call.pt", weights_only=False)
    numpy.save(f"{folder}/frames.npy", pipeline(**call, generator=torch.Generator().manual_seed(7), output="frames"))
"""


def test_folders_are_loaded_in_a_fresh_process_wherever_they_lie(tmp_path: Path) -> None:
    without = tiny_pipeline(identity_encoder=None, face_vision=None, face_reader_model=None)
    cases = {
        "whole": (tiny_pipeline(guidance_drops_identity=False, default_guidance_scale=2.5), CALL),
        "without": (without, CALL | {"use_identity_tokens": False, "num_inference_steps": 1}),
    }
    for name, (pipeline, call) in cases.items():
        save_blocks(pipeline, tmp_path / "written")
        folder = (tmp_path / "written").rename(tmp_path / name)
        assert str(tmp_path) not in (folder / "modular_model_index.json").read_text()
        torch.save(call, folder / "call.pt")
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", _IN_A_FRESH_PROCESS, *(str(tmp_path / name) for name in cases)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    for name, (pipeline, call) in cases.items():
        expected = pipeline(**call, generator=seeded()).frames
        assert np.array_equal(np.load(tmp_path / name / "frames.npy"), expected), name
        as_before = FantasyIDPipeline.from_pretrained(tmp_path / name)
        as_before.set_progress_bar_config(disable=True)
        assert np.array_equal(as_before(**call, generator=seeded()).frames, expected), name


def test_code_of_a_folder_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    save_blocks(tiny_pipeline(), tmp_path / "model")
    (tmp_path / "model" / "blocks.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        ModularPipeline.from_pretrained(tmp_path / "model")
    FantasyIDPipeline.from_pretrained(tmp_path / "model")
    assert not (tmp_path / "ran").exists()
