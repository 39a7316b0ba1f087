"""What diffusers' common tests check of every pipeline, on ours.

Their `PipelineTesterMixin` is not part of the installed package; its checks are written here anew, each once. What
other files check is not repeated:

- saving and loading, without optional components, too: `test_pipeline.py`, "Saving and loading"
- output types and shapes, dict and tuple: `test_pipeline.py::test_output_types_agree`
- a batch is what single calls make, several videos per prompt: `test_pipeline.py`, `test_shapes.py`
- callbacks see, replace and stop: `test_pipeline.py`, "Callbacks"; `test_requests.py`
- offloading of models, layers and groups, layerwise casting, attention slicing, xformers: `test_memory.py`
- bfloat16 without NaN: `test_pipeline.py::test_bfloat16`
- first-block and Taylor caches, compiled blocks: `test_acceleration.py`

What does not apply:

- Pickled weights (`safe_serialization=False`) and Flax, ONNX or single files: only safetensors are read.
- `variant=`: a folder holds one set of weights, and `torch_dtype` says in which type they are loaded.
- `torch_dtype` by component: the transformer, VAE and identity networks keep to one, or to float32 where they must.
- `DiffusionPipeline.from_pretrained` of our folder: diffusers knows only its own classes by name.
- `from_pipe` of another pipeline's: no other has identity networks.
- `pipe.guidance_scale` after a call: a call keeps it on its own copy, since threads may share a pipeline.
- Prompts that are too long are refused, and cut only where `truncate_prompt` asks for it.
- Attention processors to set: the transformer's are chosen by `pipelines.acceleration`.
- Fused projections, IP adapters, FreeU, and what pipelines of pictures have.
- SeaCache and TextKVCache: our steps do not tell them what they need; they change nothing then, as diffusers warns.
- What needs an accelerator (float16 on it, `to("cuda")`): see `docs/benchmarks.md`.
"""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FasterCacheConfig, PyramidAttentionBroadcastConfig
from diffusers.hooks import MagCacheConfig
from torch import nn

from fantasyid.core.errors import InvalidRequestError, MissingWeightsError
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.tiny import tiny_face_vision
from tests.tiny_pipeline import tiny_person, tiny_pipeline, tiny_vae


@pytest.fixture
def pipeline() -> FantasyIDPipeline:
    return tiny_pipeline()


def run(pipeline: FantasyIDPipeline, **call: Any) -> torch.Tensor:
    asked: dict[str, Any] = {
        "prompt": "a person smiles",
        "identity_inputs": tiny_person(),
        "generator": torch.Generator().manual_seed(0),
        "num_inference_steps": 4,
        "output_type": "latent",
    }
    frames: torch.Tensor = pipeline(**asked | call).frames
    return frames


def networks(pipeline: FantasyIDPipeline) -> dict[str, nn.Module]:
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}


def test_the_call_takes_what_pipelines_of_videos_take() -> None:
    parameters = inspect.signature(FantasyIDPipeline.__call__).parameters
    asked = {"prompt", "negative_prompt", "height", "width", "num_frames", "guidance_scale", "prompt_embeds"}
    optional = {"num_inference_steps", "num_videos_per_prompt", "generator", "latents", "output_type", "return_dict"}
    callbacks = {"callback_on_step_end", "callback_on_step_end_tensor_inputs", "negative_prompt_embeds", "image"}
    assert asked | optional | callbacks <= set(parameters)
    assert all(parameters[name].default is not inspect.Parameter.empty for name in optional)


def test_components_are_those_it_was_made_of_and_make_it_again(pipeline: FantasyIDPipeline) -> None:
    again = FantasyIDPipeline(**pipeline.components, guidance_drops_identity=True)
    assert set(again.components) == set(inspect.signature(FantasyIDPipeline).parameters) - {
        *("guidance_drops_identity", "default_num_inference_steps", "default_guidance_scale", "fps"),
        *("keep_expression_and_pose", "follows_vertices"),
    }
    assert all(again.components[name] is part for name, part in pipeline.components.items())
    again.set_progress_bar_config(disable=True)
    assert torch.equal(run(again, guidance_scale=3.0), run(pipeline))


def test_from_pipe_shares_networks_and_settings() -> None:
    pipeline = tiny_pipeline(default_guidance_scale=2.0)
    other = FantasyIDPipeline.from_pipe(pipeline)
    other.set_progress_bar_config(disable=True)
    assert all(other.components[name] is part for name, part in networks(pipeline).items())
    assert dict(other.config) == dict(pipeline.config)
    assert torch.equal(run(other), run(pipeline))


def test_to_device_and_dtype_move_all_networks(pipeline: FantasyIDPipeline) -> None:
    assert {part.dtype for part in networks(pipeline).values()} == {torch.float32}
    pipeline.to("cpu", torch.float16)
    assert {part.dtype for part in networks(pipeline).values()} == {torch.float16}
    assert {part.device.type for part in networks(pipeline).values()} == {"cpu"}
    assert torch.isfinite(run(pipeline)).all()


def test_float16_is_saved_and_loaded(pipeline: FantasyIDPipeline, tmp_path: Path) -> None:
    pipeline.to(torch.float16).save_pretrained(tmp_path)
    loaded = FantasyIDPipeline.from_pretrained(tmp_path, torch_dtype=torch.float16)
    for name, part in networks(loaded).items():
        # The identity encoder keeps to float32; see `IdentityEncoder`.
        assert part.dtype == (torch.float32 if name == "identity_encoder" else torch.float16), name
        for key, weight in networks(pipeline)[name].state_dict().items():
            assert torch.equal(part.state_dict()[key].to(weight.dtype), weight), (name, key)
    loaded.set_progress_bar_config(disable=True)
    torch.testing.assert_close(run(loaded), run(pipeline), rtol=0, atol=1e-2)


def test_a_batch_of_unequal_prompts_with_a_generator_each(pipeline: FantasyIDPipeline) -> None:
    prompts = ["a person smiles", "a person", "a person smiles and " * 9]
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    with pytest.warns(UserWarning, match="left out is"):
        batch = run(pipeline, prompt=prompts, generator=generators, truncate_prompt=True)
    assert len(batch) == 3
    torch.testing.assert_close(batch[:1], run(pipeline), rtol=1e-4, atol=1e-4)


def test_a_callback_gets_all_tensors_and_may_raise_guidance_at_every_step(pipeline: FantasyIDPipeline) -> None:
    scales: list[float] = []

    def more(running: FantasyIDPipeline, step: int, _: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        assert set(tensors) == set(FantasyIDPipeline._callback_tensor_inputs)
        running._guidance_scale += 1.0
        scales.append(running.guidance_scale)
        return tensors

    names = FantasyIDPipeline._callback_tensor_inputs
    raised = run(pipeline, guidance_scale=2.0, callback_on_step_end=more, callback_on_step_end_tensor_inputs=names)
    assert scales == [3.0, 4.0, 5.0, 6.0]
    assert not torch.equal(raised, run(pipeline, guidance_scale=2.0))


def test_prompts_are_encoded_by_themselves_and_used_without_the_encoder(
    pipeline: FantasyIDPipeline, tmp_path: Path
) -> None:
    """As one does where not all networks fit in memory."""
    pipeline.save_pretrained(tmp_path)
    others = dict.fromkeys(("vae", "transformer", "identity_encoder", "face_vision", "face_reader_model"))
    text_only = FantasyIDPipeline.from_pretrained(tmp_path, **others)
    with pytest.raises(InvalidRequestError, match="pass max_sequence_length"):
        text_only.encode_prompt("a person smiles")
    states, negative = text_only.encode_prompt("a person smiles", "blurry", max_sequence_length=12)
    without_text = FantasyIDPipeline.from_pretrained(tmp_path, tokenizer=None, text_encoder=None)
    without_text.set_progress_bar_config(disable=True)
    given = {"prompt": None, "prompt_embeds": states, "negative_prompt_embeds": negative}
    assert torch.equal(run(without_text, **given), run(pipeline, negative_prompt="blurry"))
    del given["negative_prompt_embeds"]
    assert torch.equal(run(without_text, **given, guidance_scale=1.0), run(pipeline, guidance_scale=1.0))
    for asked in ({}, given):
        with pytest.raises(MissingWeightsError, match=r"no tokenizer and no text_encoder; pass prompt_embeds"):
            run(without_text, **asked)
    with pytest.raises(MissingWeightsError, match="no vae and no transformer; load all of it"):
        run(text_only)
    without_text.save_pretrained(tmp_path / "without")
    assert FantasyIDPipeline.from_pretrained(tmp_path / "without").text_encoder is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tokenizer", "use PreTrainedTokenizerBase"),
        ("text_encoder", "use PreTrainedModel"),
        ("vae", "use AutoencoderKLCogVideoX"),
        ("identity_encoder", "use IdentityEncoder or ReleasedIdentityEncoder"),
        ("face_reader_model", "use FaceReaderModel"),
    ],
)
def test_a_component_in_anothers_place_is_refused(name: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"The {name} is a FaceVisionModel; {says}"):
        tiny_pipeline(**{name: tiny_face_vision()})
    with pytest.raises(InvalidRequestError, match="The face_vision is a AutoencoderKLCogVideoX"):
        tiny_pipeline(face_vision=tiny_vae())


def test_pyramid_attention_broadcast_asks_the_pipeline_for_the_time(pipeline: FantasyIDPipeline) -> None:
    plain, asked = run(pipeline), []

    def now() -> torch.Tensor:
        asked.append(pipeline.current_timestep)
        return asked[-1]

    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(100, 800),
        current_timestep_callback=now,
    )
    pipeline.transformer.enable_cache(config)
    repeated = run(pipeline)
    pipeline.scheduler.set_timesteps(4)
    layers = len(asked) // 4
    assert torch.equal(torch.stack(asked), pipeline.scheduler.timesteps.repeat_interleave(layers))
    assert pipeline.current_timestep is None
    assert 0 < (repeated - plain).norm() < 0.2 * plain.norm()
    assert torch.equal(run(pipeline), repeated), "the cache of one video reached the next"
    pipeline.transformer.disable_cache()
    assert torch.equal(run(pipeline), plain)


def test_mag_cache_skips_by_the_ratios_that_it_was_given(pipeline: FantasyIDPipeline) -> None:
    plain = run(pipeline)
    pipeline.transformer.enable_cache(MagCacheConfig(threshold=10.0, num_inference_steps=4, mag_ratios=[1.0] * 4))
    skipped = run(pipeline)
    assert 0 < (skipped - plain).norm() < 0.5 * plain.norm()
    assert torch.equal(run(pipeline), skipped)
    pipeline.transformer.disable_cache()
    assert torch.equal(run(pipeline), plain)


def test_a_cache_that_parts_the_branches_of_guidance_is_refused(pipeline: FantasyIDPipeline) -> None:
    with pytest.raises(InvalidRequestError, match="FasterCache leaves out a branch of guidance"):
        pipeline.transformer.enable_cache(FasterCacheConfig(current_timestep_callback=lambda: 0))
    assert not pipeline.transformer.is_cache_enabled
