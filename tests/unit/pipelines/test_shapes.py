"""Bases, sizes and numbers of videos: the whole pipeline against diffusers', and what is refused."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from diffusers import CogVideoXImageToVideoPipeline, CogVideoXPipeline

from fantasyid.conditioning.identity import IdentityInputs
from fantasyid.core.errors import InvalidRequestError
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.tiny import noise
from tests.tiny_pipeline import tiny_person, tiny_pipeline, tiny_pipeline_transformer

COMPONENTS = ("tokenizer", "text_encoder", "vae", "transformer", "scheduler")
VERSION_1_5 = {"patch_size": 2, "patch_size_t": 2, "patch_bias": False, "sample_width": 8, "sample_height": 8}
BASES: dict[str, dict[str, Any]] = {
    "1.0 5B": {"in_channels": 4},
    "1.0 2B": {"in_channels": 4, "use_rotary_positional_embeddings": False},
    "1.5": {"in_channels": 4, **VERSION_1_5},
    "1.0 5B I2V": {"use_learned_positional_embeddings": True},
    "1.5 I2V": {"ofs_embed_dim": 12, **VERSION_1_5},
}


def base_pipeline(base: str) -> FantasyIDPipeline:
    """A tiny pipeline on a base, guidance as upstream has it."""
    transformer = tiny_pipeline_transformer(**BASES[base])
    return tiny_pipeline(transformer=transformer, guidance_drops_identity=False)


@pytest.mark.parametrize("base", ["1.0 5B", "1.0 2B", "1.5", "1.0 5B I2V", "1.5 I2V"])
def test_without_identity_the_whole_pipeline_is_diffusers(base: str) -> None:
    pipeline = base_pipeline(base)
    config, is_i2v, padding = pipeline.transformer.config, "I2V" in base, 1 if "1.5" in base else 0
    height, width = (32, 32) if config.use_learned_positional_embeddings else (32, 16)
    states, negative = pipeline.encode_prompt("a person smiles", "blurry")
    call: dict[str, Any] = {
        "num_frames": 17,
        "height": height,
        "width": width,
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "prompt_embeds": states,
        "negative_prompt_embeds": negative,
        "latents": noise(1, 5 + padding, 4, height // 8, width // 8),
        "output_type": "latent",
    }
    components = {name: getattr(pipeline, name) for name in COMPONENTS}
    # Lengths that the sample size does not name: upstream takes any, ours what the model was trained for.
    pipeline.transformer.register_to_config(sample_frames=17)
    if is_i2v:
        # Upstream draws the reference latent from the VAE's distribution and we take its mode: leave no variance.
        moments = pipeline.vae.encoder.conv_out.conv
        torch.nn.init.zeros_(moments.weight[4:])
        torch.nn.init.constant_(moments.bias[4:], -30)
        person = tiny_person()
        image = torch.nn.functional.interpolate(person.reference_image, (height, width))
        person = IdentityInputs(image, person.face_crop, person.vertices, person.topology_hash)
        upstream = CogVideoXImageToVideoPipeline(**components)
        upstream.set_progress_bar_config(disable=True)
        expected = upstream(image=(image + 1) / 2, **call).frames
        actual = pipeline(identity_inputs=person, use_identity_tokens=False, **call).frames
    else:
        upstream = CogVideoXPipeline(**components)
        upstream.set_progress_bar_config(disable=True)
        expected = upstream(**call).frames
        actual = pipeline(**call).frames
    assert actual.shape == (1, 5, 4, height // 8, width // 8)
    torch.testing.assert_close(actual, expected[:, padding:], atol=1e-4, rtol=1e-4)


def test_identity_and_frames_work_on_temporal_patches() -> None:
    pipeline = base_pipeline("1.5 I2V")
    person = tiny_person()
    call = {"num_frames": 17, "height": 32, "width": 32, "num_inference_steps": 1}
    frames = [
        pipeline(
            "smile", identity_inputs=person, identity_scale=scale, output_type="pt",
            generator=torch.Generator().manual_seed(0), **call,
        ).frames
        for scale in (0.0, 1.0)
    ]  # fmt: skip
    assert frames[0].shape == (1, 17, 3, 32, 32)
    assert not torch.allclose(*frames, atol=1e-3)


@pytest.mark.parametrize(
    ("base", "call", "message"),
    [
        ("1.5", {"num_frames": 25}, "num_frames is 25; this model makes 1, 9, 17\\."),
        ("1.0 5B", {"num_frames": 17}, "num_frames is 17; this model makes 1, 9\\."),
        ("1.5", {"height": 80}, "The size is 64x80; this model's positions end at 64x64"),
        ("1.5", {"width": 24}, "multiples of 16 pixels"),
        ("1.0 5B I2V", {"height": 48}, "learned positions allow 32x32 only"),
    ],
)
def test_other_shapes_are_refused_with_those_allowed(base: str, call: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        base_pipeline(base)("smile", **call)


def one(person: IdentityInputs, index: int) -> IdentityInputs:
    """One of several people."""
    values = {field.name: getattr(person, field.name) for field in fields(person)}
    return IdentityInputs(**{k: v[index : index + 1] if isinstance(v, torch.Tensor) else v for k, v in values.items()})


def test_several_videos_of_several_prompts_are_those_made_one_by_one() -> None:
    pipeline, people = tiny_pipeline(), tiny_person(people=2)
    prompts, negatives = ["smile", "turn left"], ["blurry", "dark"]
    together = pipeline(
        prompts,
        negative_prompt=negatives,
        identity_inputs=people,
        num_videos_per_prompt=2,
        generator=[torch.Generator().manual_seed(seed) for seed in range(4)],
        output_type="latent",
    ).frames
    for video in range(4):
        alone = pipeline(
            prompts[video // 2],
            negative_prompt=negatives[video // 2],
            identity_inputs=one(people, video // 2),
            generator=torch.Generator().manual_seed(video),
            output_type="latent",
        ).frames
        torch.testing.assert_close(together[video : video + 1], alone, atol=1e-4, rtol=1e-4)


def test_people_must_be_one_or_one_per_prompt() -> None:
    with pytest.raises(InvalidRequestError, match="2 people do not fit 4 prompts"):
        tiny_pipeline()(["a", "b", "c", "d"], identity_inputs=tiny_person(people=2))
