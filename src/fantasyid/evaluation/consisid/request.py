"""What diffusers' ConsisID is asked for; the defaults are those of its pipeline."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fantasyid.core.bounds import DENOISING_STEPS, GUIDANCE_SCALE, NUM_FRAMES, PIXELS_PER_SIDE

_PATCH = 16
"""Pixels of a side that the VAE and the transformer make one of."""
_FRAMES = 8
"""Frames of two latent frames: of an odd number of those the VAE makes one frame of the first, of an even one four."""

Side = Annotated[int, Field(ge=_PATCH, le=PIXELS_PER_SIDE.high, multiple_of=_PATCH)]


def _can_be_made(num_frames: int) -> int:
    if num_frames % _FRAMES != 1:
        raise ValueError(f"{num_frames} frames cannot be made; it must be 1 more than a multiple of {_FRAMES}")
    return num_frames


class ConsisIDRequest(BaseModel):
    """How a system of a run makes its videos with ConsisID."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    folder: Path
    """Where its weights lie, as published for diffusers, with `face_encoder` in it; nothing is downloaded."""
    num_inference_steps: Annotated[int, Field(ge=DENOISING_STEPS.low, le=DENOISING_STEPS.high)] = 50
    """Steps of denoising."""
    guidance_scale: Annotated[float, Field(ge=GUIDANCE_SCALE.low, le=GUIDANCE_SCALE.high)] = 6.0
    """How strongly the prompt is followed; off at 1 and below."""
    height: Side = 480
    """Pixels, a multiple of 16."""
    width: Side = 720
    """Pixels, a multiple of 16."""
    num_frames: Annotated[int, Field(ge=1 + _FRAMES, le=NUM_FRAMES.high), AfterValidator(_can_be_made)] = 49
    """Frames at 8 per second; 1 more than a multiple of 8."""
