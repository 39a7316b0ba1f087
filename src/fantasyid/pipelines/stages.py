"""The stages of a video: the pipeline runs all of them in a call, diffusers' modular blocks one by one.

Networks and settings come from `parts`: a `FantasyIDPipeline`, or a `ModularPipeline` of the same components.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from diffusers import AutoencoderKLCogVideoX, DiffusionPipeline, ModularPipeline
from diffusers.video_processor import VideoProcessor
from einops import rearrange, repeat

from fantasyid.conditioning.identity import IdentityInputs, IdentityPreparation, PhotoStyle, read_identity
from fantasyid.conditioning.latents import decode_video, padding_frames, rotary_embedding
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.imaging import Photo
from fantasyid.core.upstream import execution_device
from fantasyid.face.align import FACE_SIZE
from fantasyid.face.reader import FaceReader
from fantasyid.pipelines import checks, sampling
from fantasyid.pipelines.conditions import PersonNetworks, encode_person, prompt_states
from fantasyid.pipelines.parallel import DeviceGroup

Parts: TypeAlias = DiffusionPipeline | ModularPipeline
TextStates: TypeAlias = tuple[torch.Tensor, torch.Tensor | None]


@dataclass(frozen=True)
class VideoPlan:
    """A call that can be met, with the model's own values where it named none.

    Attributes:
        prompts: How many.
        videos: To be made, a multiple of `prompts`.
        num_inference_steps: Denoising steps.
        guidance_scale: Off at 1 and below.
        guidance_interval: Share of the steps that are guided, from and to.
        identity_scale: Factor on what the identity tokens add.
        use_reference: Whether the reference latent is used, where there is a person.
        use_identity_tokens: As `use_reference`, of the identity tokens.
        height: Pixels.
        width: Pixels.
        padding: Latent frames before the first, which are cut off at the end.
        shape: Of the latents, (B, T, C, h, w) with the padding.
    """

    prompts: int
    videos: int
    num_inference_steps: int
    guidance_scale: float
    guidance_interval: tuple[float, float]
    identity_scale: float
    use_reference: bool
    use_identity_tokens: bool
    height: int
    width: int
    padding: int
    shape: tuple[int, int, int, int, int]


def pixels_per_latent(vae: AutoencoderKLCogVideoX) -> int:
    """By how much a VAE makes each side smaller."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def identity_preparation(parts: Parts, height: int | None = None, width: int | None = None) -> IdentityPreparation:
    """How the networks want a photo prepared.

    Args:
        parts: The networks.
        height: Of the video in pixels; the model's own by default.
        width: As `height`.
    """
    config, factor = parts.transformer.config, pixels_per_latent(parts.vae)
    height = config.sample_height * factor if height is None else height
    width = config.sample_width * factor if width is None else width
    style: PhotoStyle = "portrait" if parts.identity_encoder is None else parts.identity_encoder.photo_style
    face_size = FACE_SIZE if parts.face_vision is None else parts.face_vision.config.image_size
    return IdentityPreparation(style, (height, width), face_size)


def plan_video(
    parts: Parts,
    *,
    prompt: str | list[str] | None,
    image: Photo | None,
    negative_prompt: str | list[str] | None,
    num_inference_steps: int | None,
    guidance_scale: float | None,
    guidance_interval: tuple[float, float],
    identity_scale: float,
    use_reference: bool,
    use_identity_tokens: bool,
    num_frames: int | None,
    height: int | None,
    width: int | None,
    generator: sampling.Generators,
    num_videos_per_prompt: int,
    identity_inputs: IdentityInputs | None,
    latents: torch.Tensor | None,
    prompt_embeds: torch.Tensor | None,
    negative_prompt_embeds: torch.Tensor | None,
    output_type: str,
    tensor_inputs: Sequence[str] = ("latents",),
) -> VideoPlan:
    """Check a call before any work, and fill in what it leaves to the model.

    Args:
        parts: The networks.
        tensor_inputs: Names of the tensors that a callback wants.
        **asked: The others are those of `FantasyIDPipeline.__call__`.

    Raises:
        FantasyIDError: The call cannot be met; the message says why.
    """
    checks.check_networks(parts.components)
    config, factor = parts.transformer.config, pixels_per_latent(parts.vae)
    steps = parts.config.default_num_inference_steps if num_inference_steps is None else num_inference_steps
    guidance_scale = parts.config.default_guidance_scale if guidance_scale is None else guidance_scale
    num_frames = config.sample_frames if num_frames is None else num_frames
    height, width = identity_preparation(parts, height, width).reference_size
    prompts = checks.check_prompts(prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, config)
    checks.check_output(output_type, tensor_inputs)
    checks.check_numbers(
        steps, parts.scheduler, guidance_scale, guidance_interval, identity_scale, num_videos_per_prompt
    )
    if prompt_embeds is None or (guidance_scale > 1 and negative_prompt_embeds is None):
        checks.check_text_networks(parts.components)
    checks.check_size(config, parts.vae, factor, num_frames, height, width)
    videos = prompts * num_videos_per_prompt
    checks.check_generator(generator, videos)
    if image is not None or identity_inputs is not None:
        checks.check_ways_in(config, parts.components, use_reference, use_identity_tokens)
        checks.check_one_source(image, identity_inputs)
    latent_frames = (num_frames - 1) // parts.vae.config.temporal_compression_ratio + 1
    padding = padding_frames(config, latent_frames)
    shape = (videos, padding + latent_frames, parts.vae.config.latent_channels, height // factor, width // factor)
    if latents is not None:
        checks.check_latents(latents, shape)
        checks.check_given("latents", latents)
    return VideoPlan(
        prompts=prompts,
        videos=videos,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        guidance_interval=guidance_interval,
        identity_scale=identity_scale,
        use_reference=use_reference,
        use_identity_tokens=use_identity_tokens,
        height=height,
        width=width,
        padding=padding,
        shape=shape,
    )


def find_person(
    parts: Parts,
    plan: VideoPlan,
    image: Photo | None,
    identity_inputs: IdentityInputs | None,
    face_index: int | None,
    reader: Callable[[], FaceReader],
) -> IdentityInputs | None:
    """Read the photo, or take the person that was read before; all vertices are checked here.

    Args:
        parts: The networks.
        plan: Of the video.
        image: Photo of the person, or None.
        identity_inputs: A person already read, or one per prompt; or None.
        face_index: Which face of the photo; None takes the largest.
        reader: Gives what reads the photo.

    Returns:
        The person; None is nobody.

    Raises:
        FantasyIDError: The photo cannot be used, or the person does not fit.
    """
    if image is not None and (plan.use_reference or plan.use_identity_tokens):
        preparation = identity_preparation(parts, plan.height, plan.width)
        identity_inputs, _ = read_identity(image, reader(), face_index, preparation)
    if identity_inputs is not None:
        size = (plan.height, plan.width) if plan.use_reference else None
        encoder = parts.identity_encoder if plan.use_identity_tokens else None
        checks.check_person(identity_inputs, plan.prompts, size, encoder)
    return identity_inputs


def encode_prompt(
    parts: Parts,
    prompt: str | list[str] | None,
    negative_prompt: str | list[str] | None,
    do_classifier_free_guidance: bool,
    num_videos_per_prompt: int,
    prompt_embeds: torch.Tensor | None,
    negative_prompt_embeds: torch.Tensor | None,
    truncate: bool,
    max_sequence_length: int | None = None,
) -> TextStates:
    """Encode prompts to token states; arguments, result and errors are those of `FantasyIDPipeline.encode_prompt`."""
    device, length = execution_device(parts), max_sequence_length
    if length is None and parts.transformer is None:
        raise InvalidRequestError(
            "Without a transformer encode_prompt does not know how many tokens it takes; pass max_sequence_length, "
            "which is max_text_seq_length in the transformer's config.json."
        )
    if length is None:
        length = parts.transformer.config.max_text_seq_length
    dtype = (parts.text_encoder if parts.transformer is None else parts.transformer).dtype

    def encode(texts: str | list[str] | None) -> torch.Tensor:
        return prompt_states(parts.tokenizer, parts.text_encoder, length, texts, device, truncate)

    def place(states: torch.Tensor) -> torch.Tensor:
        return repeat(states.to(device, dtype), "b l d -> (b n) l d", n=num_videos_per_prompt)

    if prompt_embeds is None:
        prompt_embeds = encode(prompt)
    if not do_classifier_free_guidance:
        return place(prompt_embeds), None
    if negative_prompt_embeds is None:
        negative_prompt_embeds = encode(negative_prompt or "")
    if negative_prompt_embeds.shape[0] == 1:
        negative_prompt_embeds = negative_prompt_embeds.expand_as(prompt_embeds)
    return place(prompt_embeds), place(negative_prompt_embeds)


def tell_of_person(
    parts: Parts, plan: VideoPlan, inputs: IdentityInputs | None, has_negative: bool
) -> sampling.PersonBranches:
    """Compute what the transformer is told of the person, once and not at every step.

    Args:
        parts: The networks.
        plan: Of the video.
        inputs: From `find_person`.
        has_negative: Whether there is a negative branch.

    Raises:
        NotFiniteError: A network's weights are damaged.
    """
    networks = PersonNetworks.chosen(parts.components, plan.use_reference, plan.use_identity_tokens)
    dtype, drops = parts.transformer.dtype, parts.config.guidance_drops_identity
    identity = encode_person(inputs, networks, plan.videos, execution_device(parts), dtype)
    return sampling.person_branches(parts.transformer, identity, plan.identity_scale, has_negative, drops)


def denoise(
    parts: Parts,
    plan: VideoPlan,
    text: TextStates,
    person: sampling.PersonBranches,
    generator: sampling.Generators,
    latents: torch.Tensor | None,
    scheduler: sampling.Scheduler,
    after_step: sampling.AfterStep,
    before_step: Callable[[torch.Tensor], None] | None = None,
    devices: DeviceGroup | None = None,
) -> torch.Tensor:
    """Draw noise, or take what is given, and turn it into latents.

    Args:
        parts: The networks.
        plan: Of the video.
        text: From `encode_prompt`.
        person: From `tell_of_person`.
        generator: Source of all noise, one or one per video.
        latents: Noise of the plan's shape instead.
        scheduler: Of this call alone, from `sampling.own_scheduler`.
        after_step: Sees each step and may change what goes on.
        before_step: Told the time of each step before it is computed.
        devices: Who shares the work, or None.

    Returns:
        Latents (B, T, C, h, w), without the padding.

    Raises:
        NotFiniteError: A step gave numbers that are not finite.
    """
    device, transformer, (_, frames, _, rows, columns) = execution_device(parts), parts.transformer, plan.shape
    prompt_embeds, negative_prompt_embeds = text
    latents = sampling.starting_latents(transformer, parts.scheduler, plan.shape, generator, device, latents)
    if devices is not None:
        patch, patch_t = transformer.config.patch_size, transformer.config.patch_size_t or 1
        video_tokens = frames * rows * columns // patch**2 // patch_t
        devices.split_tokens(transformer, (video_tokens, prompt_embeds.shape[1]))
        latents = devices.share(latents)
    denoiser = sampling.Denoiser(
        transformer=transformer,
        rotary=rotary_embedding(transformer.config, frames, rows, columns, device),
        guided=person,
        unguided=person if negative_prompt_embeds is None else person.positive(),
        devices=devices,
    )
    start = sampling.SamplingState(latents, prompt_embeds, negative_prompt_embeds, plan.guidance_scale)
    latents = sampling.denoise(denoiser, scheduler, start, generator, plan.guidance_interval, after_step, before_step)
    return latents[:, plan.padding :]


def decode(parts: Parts, latents: torch.Tensor, output_type: str) -> Any:
    """Turn latents into frames.

    Args:
        parts: The networks.
        latents: From `denoise`.
        output_type: As in `FantasyIDPipelineOutput`.

    Raises:
        NotFiniteError: The VAE gave numbers that are not finite.
    """
    if output_type == "latent":
        return latents
    video = decode_video(parts.vae, rearrange(latents, "b t c h w -> b c t h w"))
    sampling.check_finite(video, "The VAE")
    processor = VideoProcessor(vae_scale_factor=pixels_per_latent(parts.vae))
    return processor.postprocess_video(video.float(), output_type=output_type)
