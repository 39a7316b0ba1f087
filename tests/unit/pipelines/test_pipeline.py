"""The pipeline on tiny real models: what each switch does, what is refused, and that saving loses nothing."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXImageToVideoPipeline, DDIMScheduler
from PIL import Image

from fantasyid.checkpoints.builtin import COMPONENTS, load_builtin, save_builtin
from fantasyid.conditioning.identity import IdentityInputs
from fantasyid.core.checkpoint import verify_packed
from fantasyid.core.errors import (
    CorruptWeightsError,
    InvalidRequestError,
    MissingWeightsError,
    NoFaceError,
    TopologyMismatchError,
)
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.tiny import noise, tiny_base
from tests.tiny_pipeline import SCHEDULER_CONFIG, tiny_person, tiny_pipeline, tiny_pipeline_transformer


@pytest.fixture
def pipeline() -> FantasyIDPipeline:
    return tiny_pipeline()


def run(pipeline: FantasyIDPipeline, seed: int = 0, **call: Any) -> torch.Tensor:
    arguments = {"prompt": "a person smiles", "identity_inputs": tiny_person(), "output_type": "latent", **call}
    frames = pipeline(generator=torch.Generator().manual_seed(seed), **arguments).frames
    assert isinstance(frames, torch.Tensor)
    return frames


# What comes out


def test_output_types_agree(pipeline: FantasyIDPipeline) -> None:
    array = pipeline("smile", generator=torch.Generator().manual_seed(0), output_type="np").frames
    assert array.shape == (1, 9, 32, 32, 3)
    assert array.min() >= 0
    assert array.max() <= 1
    tensor = run(pipeline, prompt="smile", identity_inputs=None, output_type="pt")
    np.testing.assert_allclose(tensor.permute(0, 1, 3, 4, 2).numpy(), array, atol=1e-6)
    images = pipeline("smile", generator=torch.Generator().manual_seed(0)).frames
    assert isinstance(images[0][0], Image.Image)
    np.testing.assert_allclose(np.asarray(images[0][8]) / 255, array[0, 8], atol=1 / 255)
    assert run(pipeline).shape == (1, 3, 4, 4, 4)
    (frames,) = pipeline("smile", generator=torch.Generator().manual_seed(0), output_type="pt", return_dict=False)
    assert torch.equal(frames, tensor)


def test_same_seed_same_frames_and_another_seed_others(pipeline: FantasyIDPipeline) -> None:
    assert torch.equal(run(pipeline, seed=3), run(pipeline, seed=3))
    assert not torch.equal(run(pipeline, seed=3), run(pipeline, seed=4))


def test_videos_of_a_batch_are_those_made_one_by_one(pipeline: FantasyIDPipeline) -> None:
    start = noise(4, 3, 4, 4, 4)
    people = tiny_person(people=2)
    batch = run(pipeline, prompt=["smile", "turn left"], identity_inputs=people, num_videos_per_prompt=2, latents=start)
    second = IdentityInputs(people.reference_image[1:], people.face_crop[1:], people.vertices[1:], "tiny")
    alone = run(pipeline, prompt="turn left", identity_inputs=second, latents=start[2:3])
    torch.testing.assert_close(batch[2:3], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(batch[2], batch[3], atol=1e-2)
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    pair = pipeline("smile", num_videos_per_prompt=2, generator=generators, output_type="latent").frames
    torch.testing.assert_close(pair[1:], run(pipeline, 6, prompt="smile", identity_inputs=None), atol=1e-4, rtol=1e-4)


def test_size_frames_and_steps_follow_the_call_or_the_model(pipeline: FantasyIDPipeline) -> None:
    steps: list[int] = []

    def count(_: Any, step: int, __: Any, tensors: Any) -> Any:
        steps.append(step)
        return tensors

    latents = run(pipeline, identity_inputs=None, num_frames=1, height=48, width=16, callback_on_step_end=count)
    assert latents.shape == (1, 1, 4, 6, 2)
    assert steps == [0, 1, 2]
    run(pipeline, num_inference_steps=5, callback_on_step_end=count)
    assert steps[3:] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("scheduler", [None, CogVideoXDPMScheduler(**SCHEDULER_CONFIG)])
def test_both_schedulers_denoise(scheduler: Any) -> None:
    pipeline = tiny_pipeline(**({} if scheduler is None else {"scheduler": scheduler}))
    latents = run(pipeline, num_inference_steps=4)
    assert torch.isfinite(latents).all()
    assert torch.equal(latents, run(pipeline, num_inference_steps=4))


def test_bfloat16() -> None:
    pipeline = tiny_pipeline()
    expected = run(pipeline, num_inference_steps=1)
    pipeline.transformer.to(torch.bfloat16)
    pipeline.vae.to(torch.bfloat16)
    latents = run(pipeline, num_inference_steps=1)
    assert latents.dtype == torch.float32
    assert (latents - expected).abs().max() < 0.1 * expected.abs().max()
    assert torch.isfinite(run(pipeline, output_type="pt", num_inference_steps=1)).all()


@pytest.mark.parametrize("scheduler_class", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
def test_with_the_reference_alone_it_is_diffusers_image_to_video(scheduler_class: Any) -> None:
    pipeline = tiny_pipeline(guidance_drops_identity=False, scheduler=scheduler_class(**SCHEDULER_CONFIG))
    # Upstream draws the reference latent from the VAE's distribution and we take its mode; without variance both agree.
    moments = pipeline.vae.encoder.conv_out.conv
    torch.nn.init.zeros_(moments.weight[4:])
    torch.nn.init.constant_(moments.bias[4:], -30)
    names = ("tokenizer", "text_encoder", "vae", "transformer", "scheduler")
    upstream = CogVideoXImageToVideoPipeline(**{name: getattr(pipeline, name) for name in names})
    upstream.set_progress_bar_config(disable=True)
    states, negative = pipeline.encode_prompt("a person smiles", "blurry")
    call = {
        "num_frames": 9,
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "latents": noise(1, 3, 4, 4, 4),
        "output_type": "latent",
    }
    expected = upstream(
        image=(tiny_person().reference_image + 1) / 2,
        prompt_embeds=states,
        negative_prompt_embeds=negative,
        generator=torch.Generator().manual_seed(0),
        **call,
    ).frames
    generator_after_reference = torch.Generator().manual_seed(0)
    torch.randn(1, 4, 1, 4, 4, generator=generator_after_reference)
    actual = pipeline(
        prompt_embeds=states,
        negative_prompt_embeds=negative,
        identity_inputs=tiny_person(),
        use_identity_tokens=False,
        generator=generator_after_reference,
        **call,
    ).frames
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


# The person


def test_each_switch_changes_the_video_and_both_off_is_plain_text_to_video(pipeline: FantasyIDPipeline) -> None:
    nobody = run(pipeline, identity_inputs=None)
    assert torch.equal(run(pipeline, use_reference=False, use_identity_tokens=False), nobody)
    reference_only = run(pipeline, use_identity_tokens=False)
    tokens_only = run(pipeline, use_reference=False)
    videos = [nobody, reference_only, tokens_only, run(pipeline)]
    for index, video in enumerate(videos):
        for other in videos[:index]:
            assert (video - other).abs().max() > 1e-3


def test_the_reference_stands_beside_every_frame_where_the_transformer_was_trained_so() -> None:
    first, every = (
        tiny_pipeline(transformer=tiny_pipeline_transformer(reference_in_all_frames=in_all)) for in_all in (False, True)
    )
    assert not torch.equal(run(first), run(every))
    assert torch.equal(run(first, use_reference=False), run(every, use_reference=False))


def test_each_way_in_carries_its_own_inputs(pipeline: FantasyIDPipeline) -> None:
    one, other = tiny_person(), tiny_person(seed=9)
    other_reference = replace(one, reference_image=other.reference_image)
    other_face = replace(one, face_crop=other.face_crop)
    other_shape = replace(one, vertices=other.vertices)
    tokens = run(pipeline, use_reference=False)
    assert torch.equal(run(pipeline, use_reference=False, identity_inputs=other_reference), tokens)
    for changed in (other_face, other_shape):
        assert not torch.equal(run(pipeline, use_reference=False, identity_inputs=changed), tokens)
        assert torch.equal(
            run(pipeline, use_identity_tokens=False, identity_inputs=changed), run(pipeline, use_identity_tokens=False)
        )
    assert not torch.equal(
        run(pipeline, use_identity_tokens=False, identity_inputs=other_reference),
        run(pipeline, use_identity_tokens=False),
    )


def test_identity_scale_zero_is_no_tokens_and_more_is_more(pipeline: FantasyIDPipeline) -> None:
    without = run(pipeline, use_identity_tokens=False)
    torch.testing.assert_close(run(pipeline, identity_scale=0.0), without)
    weak, strong = (
        (
            run(pipeline, identity_scale=scale, num_inference_steps=1)
            - run(pipeline, use_identity_tokens=False, num_inference_steps=1)
        ).norm()
        for scale in (0.1, 0.5)
    )
    assert 0 < weak < strong


def test_guidance_drops_identity_as_the_model_was_trained() -> None:
    """With a prompt equal to the null text, only a dropped identity makes guidance matter."""
    keeps, drops = tiny_pipeline(guidance_drops_identity=False), tiny_pipeline(guidance_drops_identity=True)
    for switches in ({"use_reference": False}, {"use_identity_tokens": False}):
        unguided = run(keeps, prompt="", guidance_scale=1.0, **switches)
        torch.testing.assert_close(
            run(keeps, prompt="", guidance_scale=4.0, **switches), unguided, atol=1e-4, rtol=1e-4
        )
        assert (run(drops, prompt="", guidance_scale=4.0, **switches) - unguided).abs().max() > 1e-2


def test_identity_is_encoded_and_projected_once() -> None:
    pipeline = tiny_pipeline()
    calls: list[str] = []
    pipeline.identity_encoder.register_forward_hook(lambda *_: calls.append("encoder"))
    pipeline.transformer.transformer_blocks[0].injection.attention.to_k.register_forward_hook(
        lambda *_: calls.append("keys")
    )
    pipeline.face_vision.register_forward_hook(lambda *_: calls.append("vision"))
    run(pipeline, num_inference_steps=4)
    assert sorted(calls) == ["encoder", "keys", "vision"]


def test_identity_inputs_are_left_as_they_were(pipeline: FantasyIDPipeline) -> None:
    inputs = tiny_person()
    before = [tensor.clone() for tensor in (inputs.reference_image, inputs.face_crop, inputs.vertices)]
    run(pipeline, identity_inputs=inputs)
    for tensor, copy in zip((inputs.reference_image, inputs.face_crop, inputs.vertices), before, strict=True):
        assert torch.equal(tensor, copy)


def test_vertices_of_another_mesh_are_refused(pipeline: FantasyIDPipeline) -> None:
    with pytest.raises(TopologyMismatchError, match=r"mesh other.* on tiny"):
        run(pipeline, identity_inputs=tiny_person(topology_hash="other"))


def test_without_identity_components_the_reference_still_works() -> None:
    pipeline = tiny_pipeline(identity_encoder=None, face_vision=None, face_reader_model=None)
    assert torch.isfinite(run(pipeline, use_identity_tokens=False)).all()
    with pytest.raises(MissingWeightsError, match="no identity_encoder and no face_vision; pass use_identity_tokens"):
        run(pipeline)
    with pytest.raises(MissingWeightsError, match="no face_reader_model"):
        pipeline("smile", image=np.zeros((64, 64, 3), np.uint8), use_identity_tokens=False)


def test_a_text_to_video_base_takes_tokens_only() -> None:
    transformer = tiny_pipeline_transformer(in_channels=4)
    pipeline = tiny_pipeline(transformer=transformer)
    assert torch.isfinite(run(pipeline, use_reference=False)).all()
    with pytest.raises(InvalidRequestError, match=r"takes 4 latent channels.*use_reference=False"):
        run(pipeline)


def test_a_base_without_injection_says_so() -> None:
    transformer = tiny_pipeline_transformer(identity_token_dim=None, injection_dim=None)
    with pytest.raises(MissingWeightsError, match="no injection in its transformer"):
        run(tiny_pipeline(transformer=transformer))


# Text


def test_prompt_and_negative_prompt_matter(pipeline: FantasyIDPipeline) -> None:
    plain = run(pipeline)
    assert not torch.equal(run(pipeline, prompt="a person frowns"), plain)
    assert not torch.equal(run(pipeline, negative_prompt="blurry"), plain)
    assert torch.equal(run(pipeline, negative_prompt=""), plain)
    assert torch.equal(run(pipeline, negative_prompt="blurry", guidance_scale=1.0), run(pipeline, guidance_scale=1.0))


def test_given_states_equal_the_prompt(pipeline: FantasyIDPipeline) -> None:
    states, negative = pipeline.encode_prompt("a person smiles", "blurry")
    given = run(pipeline, prompt=None, prompt_embeds=states, negative_prompt_embeds=negative)
    assert torch.equal(given, run(pipeline, negative_prompt="blurry"))


# Callbacks


def test_the_callback_sees_and_replaces_tensors(pipeline: FantasyIDPipeline) -> None:
    seen: list[tuple[int, set[str], torch.Tensor]] = []

    def replace_last(_: FantasyIDPipeline, step: int, __: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append((step, set(tensors), tensors["latents"]))
        return {"latents": torch.full_like(tensors["latents"], 0.5)} if step == 2 else {}

    names = ["latents", "prompt_embeds"]
    latents = run(pipeline, callback_on_step_end=replace_last, callback_on_step_end_tensor_inputs=names)
    assert [step for step, _, _ in seen] == [0, 1, 2]
    assert seen[0][1] == set(names)
    assert torch.equal(seen[2][2], run(pipeline))
    assert (latents == 0.5).all()


@pytest.mark.parametrize("scheduler", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
def test_the_callback_sees_what_the_latents_are_taken_to_become(scheduler: Any) -> None:
    pipeline = tiny_pipeline(scheduler=scheduler(**SCHEDULER_CONFIG))
    seen: list[torch.Tensor] = []

    def look(_: FantasyIDPipeline, __: int, ___: torch.Tensor, tensors: dict[str, Any]) -> None:
        seen.append(tensors["pred_original_sample"])

    latents = run(pipeline, callback_on_step_end=look, callback_on_step_end_tensor_inputs=["pred_original_sample"])
    assert [tensor.shape for tensor in seen] == [latents.shape] * 3
    assert not torch.allclose(seen[0], latents, atol=1e-2)
    torch.testing.assert_close(seen[-1], latents)  # the last step leaves no noise
    assert torch.equal(latents, run(pipeline))


def test_a_callback_can_stop_early(pipeline: FantasyIDPipeline) -> None:
    steps: list[int] = []

    def stop(running: FantasyIDPipeline, step: int, _: torch.Tensor, __: Any) -> dict[str, Any]:
        steps.append(step)
        running._interrupt = True
        return {}

    run(pipeline, callback_on_step_end=stop)
    assert steps == [0]
    run(pipeline)
    assert not pipeline.interrupt


# What is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"prompt": None}, "prompt or prompt_embeds"),
        ({"prompt": []}, "empty"),
        ({"prompt": ["a", "b"], "negative_prompt": ["c"]}, "1 negative prompts for 2"),
        ({"prompt": "word " * 12}, "14 tokens and this model takes at most 12"),
        ({"num_frames": 8}, "num_frames is 8; this model makes 1, 9"),
        ({"num_frames": 5}, "num_frames is 5"),
        ({"num_frames": 17}, "num_frames is 17"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"height": 36}, "32x36 must be in multiples of 8"),
        ({"width": 0}, "0x32"),
        ({"height": 48}, "reference picture is 32x32; it must have the video's size, 32x48"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0; it must be at least 1"),
        ({"num_inference_steps": 1001}, "at most 1000"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt is 0"),
        ({"output_type": "gif"}, "'gif'; it can be pil, np, pt, latent"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, r"\['noise'\]"),
        ({"image": "photo.jpg"}, "image or identity_inputs"),
        ({"identity_inputs": tiny_person(people=2)}, "2 people do not fit 1 prompts"),
        ({"latents": torch.zeros(1, 3, 4, 4, 5)}, "latents are"),
        ({"negative_prompt": "a", "negative_prompt_embeds": torch.zeros(1, 12, 20)}, "not both"),
        (
            {"prompt": None, "prompt_embeds": torch.zeros(1, 12, 20), "negative_prompt_embeds": torch.zeros(1, 9, 20)},
            "same shape",
        ),
    ],
)
def test_bad_requests_are_refused_by_name(pipeline: FantasyIDPipeline, call: dict[str, Any], message: str) -> None:
    denoised: list[int] = []
    pipeline.transformer.register_forward_hook(lambda *_: denoised.append(1))
    with pytest.raises(InvalidRequestError, match=message):
        run(pipeline, **call)
    assert not denoised


def test_generators_must_fit_the_videos(pipeline: FantasyIDPipeline) -> None:
    with pytest.raises(InvalidRequestError, match="1 generators for 2 videos"):
        pipeline("smile", num_videos_per_prompt=2, generator=[torch.Generator()])


def test_learned_positions_allow_one_size() -> None:
    transformer = tiny_pipeline_transformer(use_learned_positional_embeddings=True)
    with pytest.raises(InvalidRequestError, match="32x48; this model's learned positions allow 32x32 only"):
        tiny_pipeline(transformer=transformer)("smile", height=48)


def test_the_plain_base_transformer_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"CogVideoXTransformer3DModel; wrap it with .*from_base"):
        run(tiny_pipeline(transformer=tiny_base()))


def test_other_schedulers_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="is a DDIMScheduler; use CogVideoXDDIMScheduler or"):
        run(tiny_pipeline(scheduler=DDIMScheduler()))


# Saving and loading


def test_save_and_load_gives_the_same_frames(tmp_path: Path) -> None:
    pipeline = tiny_pipeline(default_guidance_scale=2.5, fps=12)
    pipeline.save_pretrained(tmp_path)
    loaded = FantasyIDPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.config.guidance_drops_identity is True
    assert (loaded.config.default_guidance_scale, loaded.config.fps) == (2.5, 12)
    assert torch.equal(run(loaded), run(pipeline))


def test_a_name_is_looked_up_on_the_hub_and_else_refused(tmp_path: Path) -> None:
    snapshot = tmp_path / "cache" / "models--owner--person" / "snapshots" / ("0" * 40)
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    offline = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    loaded = FantasyIDPipeline.from_pretrained("owner/person", **offline)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(run(loaded), run(pipeline))
    for name in ("owner/other", str(tmp_path / "nothing")):
        with pytest.raises(MissingWeightsError, match="neither 'mini', nor a folder, nor to be had"):
            FantasyIDPipeline.from_pretrained(name, **offline)


def test_save_and_load_without_optional_components(tmp_path: Path) -> None:
    tiny_pipeline(identity_encoder=None, face_vision=None, face_reader_model=None).save_pretrained(tmp_path)
    loaded = FantasyIDPipeline.from_pretrained(tmp_path)
    assert loaded.identity_encoder is None
    assert loaded.face_reader_model is None


def packed(folder: Path) -> FantasyIDPipeline:
    pipeline = tiny_pipeline()
    save_builtin(pipeline, folder)
    return pipeline


def test_packed_round_trip_is_close_and_complete(tmp_path: Path) -> None:
    pipeline = packed(tmp_path)
    text = {"tokenizer": pipeline.tokenizer, "text_encoder": pipeline.text_encoder}
    loaded = FantasyIDPipeline(**load_builtin(tmp_path, **text))
    loaded.set_progress_bar_config(disable=True)
    for name in COMPONENTS:
        original, copy = getattr(pipeline, name), getattr(loaded, name)
        assert not copy.training
        assert {key for key, tensor in copy.state_dict().items() if tensor.is_meta} == set()
        for key, buffer in original.named_buffers():
            assert torch.equal(dict(copy.named_buffers())[key], buffer), key
    expected = run(pipeline)
    assert (run(loaded) - expected).norm() < 0.1 * expected.norm()
    half = load_builtin(tmp_path, torch.bfloat16, **text)
    assert half["transformer"].dtype == half["vae"].dtype == torch.bfloat16
    assert half["identity_encoder"].dtype == torch.float32


def test_packed_folder_with_faults_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"pipeline\.json.*pip install"):
        load_builtin(tmp_path)
    packed(tmp_path)
    with pytest.raises(InvalidRequestError, match=r"\['unet'\]"):
        load_builtin(tmp_path, unet=None)
    manifest = verify_packed(tmp_path, "face_vision")
    (tmp_path / "face_vision" / manifest.shards[0].file).unlink()
    with pytest.raises(MissingWeightsError, match="face_vision"):
        load_builtin(tmp_path)
    (tmp_path / "face_vision").rename(tmp_path / "away")
    (tmp_path / "face_reader_model").rename(tmp_path / "face_vision")
    with pytest.raises(CorruptWeightsError, match="holds a FaceReaderModel, not a FaceVisionModel"):
        load_builtin(tmp_path)


# The photo


def test_a_photo_without_a_face_is_refused(pipeline: FantasyIDPipeline) -> None:
    with pytest.raises(NoFaceError):
        pipeline("smile", image=np.full((200, 200, 3), 127, np.uint8))


def test_no_face_library_is_loaded_when_the_person_is_given() -> None:
    """Training machines have no dlib, and neither av, rich nor typer."""
    code = (
        "import sys\n"
        "for name in ('dlib', '_dlib_pybind11', 'av', 'rich', 'typer'): sys.modules[name] = None\n"
        "import fantasyid.pipelines.fantasyid\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
