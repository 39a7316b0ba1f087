"""What the networks are told when a video is made (paper 3.1 and 4.1)."""

from tests.mutants.mutation import Mutation

_CONTRACT = "tests/unit/pipelines/test_diffusers_contract.py::"
_ENCODED = "tests/unit/pipelines/test_guidance.py::test_identity_tokens_are_the_encoders_of_this_face_and_this_head"
_GUIDANCE = "tests/unit/pipelines/test_guidance.py::test_guidance_leads_from_the_negative_branch_to_the_positive_one"
_OUTSIDE = "tests/unit/pipelines/test_guidance.py::test_steps_outside_the_guided_interval_know_the_person"
_REFERENCE = "tests/unit/conditioning/test_latents.py::test_reference_follows_the_scaling_rule_and_is_deterministic"
_SCALE = "tests/unit/pipelines/test_guidance.py::test_the_identity_scale_counts_with_and_without_guidance"
_STANDS_FIRST = "tests/unit/conditioning/test_latents.py::test_reference_stands_in_the_first_frame_only"
_STEPS = "tests/unit/pipelines/test_guidance.py::test_a_pipeline_that_is_told_nothing_takes_50_steps"
_VAE = "tests/unit/conditioning/test_latents.py::test_video_round_trip_has_the_shapes_of_mini"
_PIPELINE, _LATENTS = "pipelines/fantasyid.py", "conditioning/latents.py"
_SAMPLING, _CONDITIONS = "pipelines/sampling.py", "pipelines/conditions.py"

CONDITIONING = (
    Mutation(
        "latents are scaled to unit variance",
        _LATENTS,
        "return normalise_latents(vae, _mode(vae, video))",
        "return _mode(vae, video)",
        _VAE,
    ),
    Mutation("latents are not drawn at random", _LATENTS, "latent_dist.mode()", "latent_dist.sample()", _VAE),
    Mutation(
        "latents are scaled back",
        _LATENTS,
        "latents / vae.config.scaling_factor",
        "latents * vae.config.scaling_factor",
        _VAE,
    ),
    Mutation(
        "reference latents are scaled",
        _LATENTS,
        "    return normalise_latents(vae, latents)\n",
        "    return latents / float(vae.config.scaling_factor)\n",
        _REFERENCE,
    ),
    Mutation(
        "the reference stands beside the first frame",
        _LATENTS,
        "conditions[:, : None if in_all_frames else 1] = reference",
        "conditions[:, -1:] = reference",
        _STANDS_FIRST,
    ),
    Mutation(
        "the reference stands beside the first frame only",
        _LATENTS,
        "conditions[:, : None if in_all_frames else 1] = reference",
        "conditions[:, :] = reference",
        _STANDS_FIRST,
    ),
    Mutation(
        "padding of a prompt is silent",
        "conditioning/text.py",
        'states * rearrange(attention_mask, "b n -> b n 1").to(states.dtype)',
        "states",
        "tests/unit/conditioning/test_text.py::test_padding_has_no_states_and_no_influence",
    ),
    Mutation(
        "the face crop is cut by five points",
        "conditioning/identity.py",
        "warp(photos, face_transform(landmarks), side)",
        "warp(photos, portrait_transform(landmarks), side)",
        "tests/unit/conditioning/test_identity.py::test_crops_show_the_face_where_the_networks_expect_it",
    ),
)
PIPELINES = (
    Mutation(
        "guidance leads away from the negative branch",
        _SAMPLING,
        "negative + state.guidance_scale * (positive - negative)",
        "positive + state.guidance_scale * (negative - positive)",
        _GUIDANCE,
    ),
    Mutation(
        "guidance starts from the negative branch",
        _SAMPLING,
        "negative + state.guidance_scale * (positive - negative)",
        "positive + state.guidance_scale * (positive - negative)",
        _GUIDANCE,
    ),
    Mutation(
        "the negative branch comes first",
        _SAMPLING,
        "torch.cat([state.negative_prompt_embeds, text])",
        "torch.cat([text, state.negative_prompt_embeds])",
        _GUIDANCE,
    ),
    Mutation(
        "guidance's positive branch has the reference",
        _SAMPLING,
        "torch.zeros_like(reference) if drops_identity else reference, reference]",
        "torch.zeros_like(reference) if drops_identity else reference, torch.zeros_like(reference)]",
        _GUIDANCE,
    ),
    Mutation(
        "guidance's negative branch drops the reference if the model was trained so",
        _SAMPLING,
        "torch.zeros_like(reference) if drops_identity else reference, reference]",
        "reference, reference]",
        _GUIDANCE,
    ),
    Mutation(
        "guidance's negative branch keeps the reference if the model was trained so",
        _SAMPLING,
        "torch.zeros_like(reference) if drops_identity else reference, reference]",
        "torch.zeros_like(reference), reference]",
        _GUIDANCE,
    ),
    Mutation(
        "guidance's positive branch has the identity",
        _SAMPLING,
        "scale[: tokens.shape[0]] = 0",
        "scale[:] = 0",
        _GUIDANCE,
    ),
    Mutation(
        "guidance's negative branch drops the identity if the model was trained so",
        _SAMPLING,
        "scale[: tokens.shape[0]] = 0",
        "pass",
        _GUIDANCE,
    ),
    Mutation(
        "the identity is dropped on the negative side",
        _SAMPLING,
        "scale[: tokens.shape[0]] = 0",
        "scale[tokens.shape[0] :] = 0",
        _GUIDANCE,
    ),
    Mutation(
        "both branches have identity tokens",
        _SAMPLING,
        "tokens = torch.cat([tokens, tokens])",
        "tokens = torch.cat([tokens, torch.zeros_like(tokens)])",
        _GUIDANCE,
    ),
    Mutation(
        "the identity scale counts with guidance",
        _SAMPLING,
        "tokens.new_full((2 * tokens.shape[0],), identity_scale)",
        "tokens.new_full((2 * tokens.shape[0],), 1.0)",
        _SCALE,
    ),
    Mutation(
        "the identity scale counts without guidance",
        _SAMPLING,
        "scale: float | Tensor = identity_scale",
        "scale: float | Tensor = 1.0",
        _SCALE,
    ),
    Mutation(
        "unguided steps have the reference",
        _SAMPLING,
        "reference = reference.chunk(2)[1]",
        "reference = reference.chunk(2)[0]",
        _OUTSIDE,
    ),
    Mutation(
        "unguided steps have the identity",
        _SAMPLING,
        "scale = scale.chunk(2)[1]",
        "scale = scale.chunk(2)[0]",
        _OUTSIDE,
    ),
    Mutation(
        "full size takes 50 steps",
        _PIPELINE,
        "default_num_inference_steps: int = 50",
        "default_num_inference_steps: int = 25",
        _STEPS,
    ),
    Mutation(
        "what fills up the latents is cut off at their start",
        "pipelines/stages.py",
        "return latents[:, plan.padding :]",
        "return latents",
        "tests/unit/pipelines/test_shapes.py::test_without_identity_the_whole_pipeline_is_diffusers",
    ),
    Mutation(
        "step caches are told the time",
        _SAMPLING,
        "            before_step(timestep)",
        "            before_step(timesteps[0])",
        f"{_CONTRACT}test_pyramid_attention_broadcast_asks_the_pipeline_for_the_time",
    ),
    Mutation(
        "a cache that parts the branches of guidance is refused",
        "models/transformer.py",
        "if isinstance(config, FasterCacheConfig)",
        "if False",
        f"{_CONTRACT}test_a_cache_that_parts_the_branches_of_guidance_is_refused",
    ),
    Mutation(
        "parts in each other's place are refused",
        "pipelines/checks.py",
        "not isinstance(component, _CLASSES[name])",
        "False",
        f"{_CONTRACT}test_a_component_in_anothers_place_is_refused",
    ),
    Mutation(
        "face tokens are of the face crop",
        _CONDITIONS,
        "networks.face_vision(inputs.face_crop.to(device))",
        "networks.face_vision(inputs.reference_image.to(device))",
        _ENCODED,
    ),
    Mutation(
        "videos of one prompt stand side by side",
        _CONDITIONS,
        '"b k d -> (b n) k d"',
        '"b k d -> (n b) k d"',
        _ENCODED,
    ),
    Mutation(
        "the reference latent is of the portrait",
        _CONDITIONS,
        "reference_latents(networks.vae, inputs.reference_image.to(device))",
        "reference_latents(networks.vae, inputs.face_crop.to(device))",
        _ENCODED,
    ),
    Mutation(
        "of several processes the first error is told",
        "pipelines/parallel.py",
        'first.open("x", encoding="utf-8")',
        'first.open("w", encoding="utf-8")',
        "tests/unit/pipelines/test_parallel.py::test_two_devices_make_the_video_of_one_and_the_first_error_is_told",
    ),
)
