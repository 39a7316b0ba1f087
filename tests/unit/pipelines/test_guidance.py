"""What either branch of guidance is told, with the video computed from videos without guidance."""

from typing import Any

import pytest
import torch

from fantasyid.pipelines.conditions import PersonNetworks, encode_person
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.tiny import noise
from tests.tiny_pipeline import tiny_person, tiny_pipeline

PROMPT, NEGATIVE, SCALE = "a person smiles", "blurry", 3.0
SWITCHES: list[dict[str, Any]] = [{}, {"use_reference": False}, {"use_identity_tokens": False}]


def one_step(pipeline: FantasyIDPipeline, **call: Any) -> torch.Tensor:
    """Latents after one DDIM step from fixed noise: linear in what the network predicts."""
    arguments = {"num_inference_steps": 1, "latents": noise(1, 3, 4, 4, 4), "output_type": "latent", **call}
    frames = pipeline(**arguments).frames
    assert isinstance(frames, torch.Tensor)
    return frames


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("drops", [True, False])
def test_guidance_leads_from_the_negative_branch_to_the_positive_one(drops: bool, switches: dict[str, Any]) -> None:
    """N + scale * (P - N), where P knows prompt and person, and N the person only if guidance does not drop it."""
    pipeline = tiny_pipeline(guidance_drops_identity=drops)
    person = {"identity_inputs": tiny_person(), "identity_scale": 0.6, **switches}
    nobody: dict[str, Any] = {}
    positive = one_step(pipeline, prompt=PROMPT, guidance_scale=1.0, **person)
    negative = one_step(pipeline, prompt=NEGATIVE, guidance_scale=1.0, **(nobody if drops else person))
    guided = one_step(pipeline, prompt=PROMPT, negative_prompt=NEGATIVE, guidance_scale=SCALE, **person)
    assert (positive - one_step(pipeline, prompt=PROMPT, guidance_scale=1.0)).abs().max() > 1e-2
    torch.testing.assert_close(guided, negative + SCALE * (positive - negative), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("drops", [True, False])
def test_steps_outside_the_guided_interval_know_the_person(drops: bool) -> None:
    pipeline = tiny_pipeline(guidance_drops_identity=drops)
    call = {"prompt": PROMPT, "identity_inputs": tiny_person(), "identity_scale": 0.6}
    unguided = one_step(pipeline, **call, guidance_scale=1.0)
    outside = one_step(pipeline, **call, guidance_scale=SCALE, guidance_interval=(0.0, 0.0))
    torch.testing.assert_close(outside, unguided, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_the_identity_scale_counts_with_and_without_guidance(guidance_scale: float) -> None:
    pipeline = tiny_pipeline()
    call = {"prompt": PROMPT, "identity_inputs": tiny_person(), "guidance_scale": guidance_scale}
    without, *scaled = (one_step(pipeline, **call, identity_scale=scale).float() for scale in (0.0, 0.1, 0.5, 1.0))
    torch.testing.assert_close(without, one_step(pipeline, **call, use_identity_tokens=False))
    added = [float((video - without).norm()) for video in scaled]
    assert 0 < added[0] < added[1] < added[2]


def test_a_pipeline_that_is_told_nothing_takes_50_steps() -> None:
    """Paper 4.1; the built-in model has a number of its own."""
    told = tiny_pipeline()
    modules = {name: getattr(told, name) for name in told.components}
    pipeline = FantasyIDPipeline(**modules)
    pipeline.set_progress_bar_config(disable=True)
    steps: list[int] = []

    def count(_: Any, step: int, __: Any, tensors: Any) -> Any:
        steps.append(step)
        return tensors

    one_step(pipeline, prompt=PROMPT, num_inference_steps=None, callback_on_step_end=count)
    assert steps == list(range(50))


def test_identity_tokens_are_the_encoders_of_this_face_and_this_head() -> None:
    pipeline, people = tiny_pipeline(), tiny_person(people=2)
    networks = PersonNetworks.chosen(pipeline.components, use_reference=True, use_identity_tokens=True)
    conditions = encode_person(people, networks, 4, torch.device("cpu"), torch.float32)
    faces = pipeline.face_vision(people.face_crop).tokens
    expected = pipeline.identity_encoder(faces, people.vertices)
    torch.testing.assert_close(conditions.tokens, expected.repeat_interleave(2, dim=0))
    mode = pipeline.vae.encode(people.reference_image[:, :, None]).latent_dist.mode() * 0.7
    torch.testing.assert_close(conditions.reference, mode.transpose(1, 2).repeat_interleave(2, dim=0))
