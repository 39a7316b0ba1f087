"""The user's function that is called after each step, in diffusers' manner."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError
from fantasyid.pipelines.checks import CALLBACK_TENSORS, check_latents
from fantasyid.pipelines.sampling import AfterStep, SamplingState

StepTensors = Mapping[str, Tensor | None]
StepCallback = Callable[[Any, int, Tensor, dict[str, Tensor | None]], StepTensors | None]


def after_each_step(
    running: DiffusionPipeline, callback: StepCallback | None, tensor_inputs: list[str], advance: Callable[[], Any]
) -> AfterStep:
    """Make what `sampling.denoise` calls after each step.

    Args:
        running: The pipeline of this call alone; what the callback sets on it changes this call.
        callback: The user's function, or None.
        tensor_inputs: Names of the tensors it gets.
        advance: Moves the progress bar.
    """

    def after_step(step: int, timestep: Tensor, state: SamplingState) -> SamplingState:
        advance()
        if callback is None:
            return state
        tensors = {name: getattr(state, name) for name in CALLBACK_TENSORS}
        returned = callback(running, step, timestep, {name: tensors[name] for name in tensor_inputs})
        tensors |= _checked(returned, state.latents)
        return replace(state, **tensors, guidance_scale=running._guidance_scale, stop=running._interrupt)

    return after_step


def _checked(returned: Any, latents: Tensor) -> StepTensors:
    """The tensors to replace, by name; None replaces nothing."""
    if returned is None:
        return {}
    if not isinstance(returned, Mapping) or set(returned) - set(CALLBACK_TENSORS):
        what = sorted(returned) if isinstance(returned, Mapping) else f"a {type(returned).__name__}"
        raise InvalidRequestError(
            f"callback_on_step_end returned {what}; it can return None or a dict with {', '.join(CALLBACK_TENSORS)}."
        )
    if "latents" in returned:
        check_latents(returned["latents"], tuple(latents.shape))
    return returned
