"""Requests that no video can come of are refused by name, and numbers that are not finite never become frames."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fantasyid.core.errors import (
    FantasyIDError,
    FantasyIDWarning,
    ImpossibleHeadError,
    InvalidRequestError,
    NotFiniteError,
)
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.tiny import noise, tiny_identity_encoder
from tests.tiny_pipeline import tiny_person, tiny_pipeline

NAN, INF = float("nan"), float("inf")
TURN = torch.tensor([1.0, 1.0, -1.0])
STATES = noise(1, 12, 20)


@pytest.fixture
def pipeline() -> FantasyIDPipeline:
    return tiny_pipeline()


def run(pipeline: FantasyIDPipeline, **call: Any) -> Any:
    arguments = {"prompt": "a person smiles", "identity_inputs": tiny_person(), "output_type": "latent", **call}
    return pipeline(**{"generator": torch.Generator().manual_seed(0), **arguments}).frames


def with_states(**states: torch.Tensor) -> dict[str, Any]:
    return {"prompt": None, "prompt_embeds": STATES, **states}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *[({"guidance_scale": value}, "guidance_scale is .* from 0 to 100") for value in (INF, NAN, 1e30, -1, "3")],
        *[({"identity_scale": value}, "identity_scale is .* from 0 to 10") for value in (INF, NAN, 1e30, -1, None)],
        *[({"num_inference_steps": value}, "num_inference_steps is .* at least 1") for value in (2.5, True, NAN)],
        *[({"num_videos_per_prompt": value}, "num_videos_per_prompt is .* most 100") for value in (10**9, 1.0)],
        *[({"num_frames": value}, "num_frames is .*; this model makes 1, 9") for value in (9.0, True, NAN)],
        ({"identity_inputs": None, "height": 10**6}, "height is 1000000; .* at most 4096"),
        ({"identity_inputs": None, "width": 32.0}, "width is 32.0"),
        *[({"guidance_interval": value}, "two rising shares") for value in ((NAN, 1), (0, INF), (0, 1, 1), 0.5)],
        ({"generator": 7}, r"generator is 7; it must be a torch.Generator, such as .*manual_seed\(7\)"),
        ({"generator": [7]}, "generator is 7; it must be a torch.Generator"),
        ({"prompt": 7}, "A prompt is a int; it must be a text"),
        ({"prompt": ["a", b"b"]}, "A prompt is a bytes"),
        ({"prompt": "caf\udce9"}, "a byte that is not UTF-8 at character 3"),
        ({"negative_prompt": "caf\udce9"}, "a byte that is not UTF-8"),
        ({"prompt": "a", "negative_prompt": ["a", "b", "c"]}, "3 negative prompts for 1 prompts"),
        ({"prompt": ["a", "b"], "negative_prompt": ["c"]}, "1 negative prompts for 2 prompts"),
        ({"negative_prompt": []}, "list of negative prompts is empty"),
        ({"negative_prompt_embeds": noise(3, 12, 20)}, "3 negative prompts for 1 prompts"),
        (with_states(negative_prompt=["a", "b"]), "2 negative prompts for 1 prompts"),
        (with_states(prompt_embeds=noise(12, 20)), r"prompt_embeds is \(12, 20\); it must be \(prompts, 12, 20\)"),
        (with_states(prompt_embeds=noise(1, 12, 21)), "prompt_embeds is"),
        (with_states(prompt_embeds=noise(1, 13, 20)), "prompt_embeds is"),
        (with_states(prompt_embeds=noise(0, 12, 20)), "prompt_embeds is"),
        (with_states(prompt_embeds=STATES.numpy()), "prompt_embeds is a ndarray; it must be a tensor"),
        (with_states(prompt_embeds=STATES * NAN), "prompt_embeds holds numbers that are not finite"),
        ({"negative_prompt_embeds": STATES * INF}, "negative_prompt_embeds holds numbers that are not finite"),
        ({"latents": noise(1, 3, 4, 4, 4) * NAN}, "latents holds numbers that are not finite"),
        ({"latents": noise(1, 3, 4, 4, 4).numpy()}, "latents are a ndarray"),
    ],
)
def test_requests_that_cannot_be_are_refused_before_any_work(
    pipeline: FantasyIDPipeline, call: dict[str, Any], message: str
) -> None:
    worked: list[int] = []
    for network in (pipeline.transformer, pipeline.text_encoder, pipeline.vae.encoder, pipeline.identity_encoder):
        network.register_forward_hook(lambda *_: worked.append(1))
    with pytest.raises(InvalidRequestError, match=message):
        run(pipeline, **call)
    assert not worked


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"vertices": 0.01 * tiny_person().vertices}, ImpossibleHeadError, "in metres; multiply"),
        ({"vertices": 0 * tiny_person().vertices}, ImpossibleHeadError, "in one point"),
        ({"vertices": NAN * tiny_person().vertices}, ImpossibleHeadError, "not finite"),
        (
            {"vertices": tiny_person().vertices[..., [0, 2, 1]] * torch.tensor([1, 1, -1])},
            ImpossibleHeadError,
            "90 deg",
        ),
        ({"vertices": tiny_person().vertices.flip(1)}, ImpossibleHeadError, "no head of this mesh"),
        ({"vertices": tiny_person().vertices[:, 1:]}, FantasyIDError, "59 vertices.* mesh of 60"),
        ({"face_crop": NAN * tiny_person().face_crop}, InvalidRequestError, "face crop holds numbers"),
        ({"reference_image": INF * tiny_person().reference_image}, InvalidRequestError, "reference picture holds"),
    ],
)
def test_a_person_that_cannot_be_is_refused(
    pipeline: FantasyIDPipeline, change: dict[str, Any], error: type[FantasyIDError], message: str
) -> None:
    person = replace(tiny_person(), **change)
    with pytest.raises(error, match=message):
        run(pipeline, identity_inputs=person)


def test_what_is_switched_off_is_not_asked_for(pipeline: FantasyIDPipeline) -> None:
    person = replace(tiny_person(), vertices=torch.zeros(1, 60, 3))
    assert torch.isfinite(run(pipeline, identity_inputs=person, use_identity_tokens=False)).all()
    faces_only = tiny_pipeline(identity_encoder=tiny_identity_encoder(use_vertices=False).eval())
    faces_only.identity_encoder.register_to_config(topology_hash="tiny")
    assert torch.isfinite(run(faces_only, identity_inputs=person)).all()


@pytest.mark.parametrize(
    ("component", "source"),
    [
        ("transformer", "The first of 3 steps of the transformer"),
        ("text_encoder", "The text encoder"),
        ("identity_encoder", "The identity encoder"),
        ("face_vision", "The identity encoder"),
        ("vae.encoder", "The VAE"),
        ("vae.decoder", "The VAE"),
    ],
)
def test_weights_with_nan_give_an_error_and_no_frames(pipeline: FantasyIDPipeline, component: str, source: str) -> None:
    network: Any = pipeline
    for name in component.split("."):
        network = getattr(network, name)
    weight = max(network.parameters(), key=torch.Tensor.numel)
    with torch.no_grad():
        weight.fill_(NAN)
    with pytest.raises(NotFiniteError, match=f"{source} gave numbers that are not finite"):
        run(pipeline, output_type="np")


def test_latents_that_stop_being_finite_are_an_error(pipeline: FantasyIDPipeline) -> None:
    def overflow(_: Any, step: int, __: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"latents": tensors["latents"] * (1e38 if step == 1 else 1)}

    with pytest.raises(NotFiniteError, match="3 steps of the transformer gave"):
        run(pipeline, callback_on_step_end=overflow)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (7, "returned a int; it can return None or a dict with latents"),
        ({"noise": noise(1)}, r"returned \['noise'\]"),
        ({"latents": noise(1, 3, 4, 4, 5)}, "latents are"),
    ],
)
def test_callbacks_that_return_something_else_are_refused(
    pipeline: FantasyIDPipeline, returned: Any, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        run(pipeline, callback_on_step_end=lambda *_: returned)


def test_a_callback_may_return_none(pipeline: FantasyIDPipeline) -> None:
    assert torch.equal(run(pipeline, callback_on_step_end=lambda *_: None), run(pipeline))


def test_large_seeds_are_seeds(pipeline: FantasyIDPipeline) -> None:
    videos = [run(pipeline, generator=torch.Generator().manual_seed(seed)) for seed in (0, 2**64 - 1)]
    assert not torch.equal(*videos)


def test_one_negative_text_serves_all_prompts(pipeline: FantasyIDPipeline) -> None:
    together = run(pipeline, prompt=["a", "b"], negative_prompt="c", latents=noise(2, 3, 4, 4, 4))
    listed = run(pipeline, prompt=["a", "b"], negative_prompt=["c", "c"], latents=noise(2, 3, 4, 4, 4))
    assert torch.equal(together, listed)
    assert together.shape[0] == 2


def test_doubtful_words_are_told_and_english_is_not(pipeline: FantasyIDPipeline) -> None:
    with pytest.warns(FantasyIDWarning, match="another script"):
        run(pipeline, prompt="мужчина")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FantasyIDWarning)
        run(pipeline, negative_prompt="blurry, low quality")


def test_long_prompts_are_cut_only_where_asked(pipeline: FantasyIDPipeline) -> None:
    with pytest.raises(InvalidRequestError, match="at most 12"):
        run(pipeline, prompt="smile " * 14)
    with pytest.warns(FantasyIDWarning, match="left out is: 'smile smile smile smile'"):
        cut = run(pipeline, prompt="smile " * 14, truncate_prompt=True)
    assert torch.equal(cut, run(pipeline, prompt="smile " * 10))


def test_frames_are_numbers(pipeline: FantasyIDPipeline) -> None:
    assert np.isfinite(run(pipeline, output_type="np")).all()
