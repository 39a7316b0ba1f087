"""Denoising as plain functions: noise in, latents out, and nothing kept between two calls."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from diffusers.utils.torch_utils import randn_tensor
from einops import repeat
from torch import Tensor

from fantasyid.conditioning.latents import offset, with_reference
from fantasyid.core.errors import NotFiniteError
from fantasyid.core.upstream import reset_step_cache
from fantasyid.models.injection import IdentityKeyValues
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.pipelines.parallel import DeviceGroup

Scheduler: TypeAlias = CogVideoXDDIMScheduler | CogVideoXDPMScheduler
Generators: TypeAlias = torch.Generator | list[torch.Generator] | None


@dataclass(frozen=True, eq=False)
class IdentityConditions:
    """What the network is told about the person, computed once per video.

    Attributes:
        reference: Reference latent (B, 1, C, h, w), or None when it is switched off.
        tokens: Identity tokens (B, N, D), or None when they are switched off.
    """

    reference: Tensor | None
    tokens: Tensor | None


@dataclass(frozen=True, eq=False)
class PersonBranches:
    """The person as the transformer takes it, for one branch of guidance or for both, the negative first.

    Attributes:
        reference: Reference latents (B or 2B, 1, C, h, w), or None.
        key_values: Keys and values of the identity tokens, or None.
        identity_scale: Factor on what the tokens add, one for all or (2B,).
    """

    reference: Tensor | None
    key_values: IdentityKeyValues | None
    identity_scale: float | Tensor

    def positive(self) -> "PersonBranches":
        """Of both branches, the one that guidance leads towards."""
        reference, key_values, scale = self.reference, self.key_values, self.identity_scale
        if reference is not None:
            reference = reference.chunk(2)[1]
        if key_values is not None:
            key_values = IdentityKeyValues(
                *(tuple(x.chunk(2)[1] for x in part) for part in (key_values.keys, key_values.values))
            )
        if isinstance(scale, Tensor):
            scale = scale.chunk(2)[1]
        return PersonBranches(reference, key_values, scale)


@dataclass(frozen=True, eq=False)
class Denoiser:
    """What stays the same over the denoising steps.

    Attributes:
        transformer: The network.
        rotary: Position code, from `conditioning.latents.rotary_embedding`.
        guided: The person in both branches of guidance; in one where there is no guidance.
        unguided: The person in the positive branch alone.
        devices: Who shares the work, or None.
    """

    transformer: FantasyIDTransformer3DModel
    rotary: tuple[Tensor, Tensor] | None
    guided: PersonBranches
    unguided: PersonBranches
    devices: DeviceGroup | None


@dataclass(frozen=True, eq=False)
class SamplingState:
    """What changes from step to step.

    Attributes:
        latents: (B, T, C, h, w).
        prompt_embeds: (B, L, D).
        negative_prompt_embeds: (B, L, D), or None without guidance.
        guidance_scale: Of the next steps.
        pred_original_sample: (B, T, C, h, w), what the last step takes the latents to become; None before the first.
        stop: Whether this was the last step.
    """

    latents: Tensor
    prompt_embeds: Tensor
    negative_prompt_embeds: Tensor | None
    guidance_scale: float
    pred_original_sample: Tensor | None = None
    stop: bool = False


AfterStep = Callable[[int, Tensor, SamplingState], SamplingState]
"""Called with the step, its time and the state; what it returns is the state that goes on."""


def own_scheduler(scheduler: Scheduler, steps: int, device: torch.device) -> Scheduler:
    """Copy a scheduler and set its times, so that no two calls share them.

    Args:
        scheduler: Is left as it is.
        steps: Denoising steps.
        device: Where the times are needed.
    """
    own = deepcopy(scheduler)
    own.set_timesteps(steps, device=device)
    return own


def starting_latents(
    transformer: FantasyIDTransformer3DModel,
    scheduler: Scheduler,
    shape: tuple[int, int, int, int, int],
    generator: Generators,
    device: torch.device,
    latents: Tensor | None = None,
) -> Tensor:
    """Draw the noise a video starts from, or take what is given.

    Args:
        transformer: Decides the dtype.
        scheduler: Decides the standard deviation.
        shape: (B, T, C, h, w).
        generator: One, or one per video.
        device: Where the result is needed.
        latents: Noise of this shape to use instead.

    Returns:
        Latents in the dtype they keep through all steps, times the standard deviation the scheduler starts with:
        float32, and with the released checkpoint the transformer's, to which its authors round them.
    """
    dtype = transformer.latents_dtype
    if latents is None:
        latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
    started: Tensor = latents.to(device, dtype) * float(scheduler.init_noise_sigma)
    return started


def person_branches(
    transformer: FantasyIDTransformer3DModel,
    identity: IdentityConditions,
    identity_scale: float,
    has_negative: bool,
    drops_identity: bool,
) -> PersonBranches:
    """Prepare the person for all steps; keys and values are computed here, once per video.

    Args:
        transformer: The network.
        identity: The person.
        identity_scale: Factor on what the tokens add.
        has_negative: Whether there is a negative branch.
        drops_identity: Whether the negative branch has no person.
    """
    reference, tokens = identity.reference, identity.tokens
    scale: float | Tensor = identity_scale
    if has_negative:
        if reference is not None:
            reference = torch.cat([torch.zeros_like(reference) if drops_identity else reference, reference])
        if tokens is not None:
            scale = tokens.new_full((2 * tokens.shape[0],), identity_scale)
            if drops_identity:
                scale[: tokens.shape[0]] = 0
            tokens = torch.cat([tokens, tokens])
    key_values = None if tokens is None else transformer.project_identity(tokens)
    return PersonBranches(reference, key_values, scale)


def denoise(
    denoiser: Denoiser,
    scheduler: Scheduler,
    state: SamplingState,
    generator: Generators,
    guidance_interval: tuple[float, float],
    after_step: AfterStep,
    before_step: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Turn noise into latents.

    Args:
        denoiser: What stays the same.
        scheduler: Of this call alone, from `own_scheduler`.
        state: Noise, text and guidance at the start.
        generator: Source of the noise that the scheduler adds.
        guidance_interval: Share of the steps that are guided, from and to; the others compute one branch.
        after_step: Sees each step and may change what goes on.
        before_step: Told the time of each step before it is computed.

    Returns:
        Latents (B, T, C, h, w).

    Raises:
        NotFiniteError: The first step or the last gave numbers that are not finite.
    """
    timesteps = scheduler.timesteps
    was_guided: bool | None = None
    for step, timestep in enumerate(timesteps):
        is_guided = guidance_interval[0] <= step / len(timesteps) < guidance_interval[1]
        if is_guided != was_guided:
            # What a cache holds is of another batch, or of an earlier call that was cut off.
            reset_step_cache(denoiser.transformer)
            was_guided = is_guided
        if before_step is not None:
            before_step(timestep)
        prediction = predict(denoiser, scheduler, state, timestep, is_guided)
        if isinstance(scheduler, CogVideoXDPMScheduler):
            before = timesteps[step - 1] if step > 0 else None
            stepped, estimate = scheduler.step(
                prediction,
                state.pred_original_sample,
                timestep,
                before,
                state.latents,
                generator=generator,
                return_dict=False,
            )
        else:
            stepped, estimate = scheduler.step(prediction, timestep, state.latents, return_dict=False)
        if step == 0:
            check_finite(stepped, f"The first of {len(timesteps)} steps of the transformer")
        state = replace(state, latents=stepped.to(state.latents.dtype), pred_original_sample=estimate)
        state = after_step(step, timestep, state)
        if denoiser.devices is not None:
            state = replace(state, latents=denoiser.devices.share(state.latents))
        if state.stop:
            break
    check_finite(state.latents, f"{len(timesteps)} steps of the transformer")
    return state.latents


def predict(
    denoiser: Denoiser, scheduler: Scheduler, state: SamplingState, timestep: Tensor, is_guided: bool
) -> Tensor:
    """Predict the velocity (B, T, C, h, w) in float32, both branches of guidance in one batch."""
    transformer, text, person = denoiser.transformer, state.prompt_embeds, denoiser.unguided
    if state.negative_prompt_embeds is not None and is_guided:
        text, person = torch.cat([state.negative_prompt_embeds, text]), denoiser.guided
    repeats = text.shape[0] // state.latents.shape[0]
    noisy = scheduler.scale_model_input(state.latents, timestep).to(text.dtype)
    hidden_states = repeat(noisy, "b t c h w -> (n b) t c h w", n=repeats)
    arguments: dict[str, Any] = {
        "hidden_states": with_reference(transformer.config, hidden_states, person.reference),
        "encoder_hidden_states": text,
        "timestep": timestep.expand(text.shape[0]),
        "ofs": offset(transformer.config, noisy),
        "image_rotary_emb": denoiser.rotary,
        "identity_key_values": person.key_values,
        "identity_scale": person.identity_scale,
        "return_dict": False,
    }
    with transformer.cache_context("cond_uncond"):
        if denoiser.devices is not None and repeats == 2:
            prediction = denoiser.devices.predict_branches(transformer, arguments)
        else:
            prediction = transformer(**arguments)[0]
    prediction = prediction.float()
    if repeats == 1:
        return prediction
    negative, positive = prediction.chunk(2)
    return negative + state.guidance_scale * (positive - negative)


def check_finite(tensor: Tensor, source: str) -> None:
    """Refuse numbers that are not finite, before they become a video.

    Args:
        tensor: What to look at.
        source: What gave it, as the beginning of a sentence.

    Raises:
        NotFiniteError: There is NaN or an infinity.
    """
    if not torch.isfinite(tensor).all():
        raise NotFiniteError(
            f"{source} gave numbers that are not finite, so there is no video; weights that are damaged and numbers "
            "that overflow do that: check the weights (`fantasyid doctor`, or download them again), and compute in "
            "float32 or bfloat16."
        )
