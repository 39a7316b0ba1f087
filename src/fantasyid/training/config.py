"""Settings of a training stage, read from a preset file."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fantasyid.core.errors import InvalidRequestError


class OptimiserConfig(BaseModel):
    """How weights are changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(gt=0)
    """Most steps taken."""
    minutes: float = Field(gt=0)
    """Most minutes taken; the learning rate falls to zero at whichever end comes first."""
    batch_size: int = Field(gt=0)
    """Samples a step."""
    learning_rate: float = Field(gt=0)
    """Peak, after the warm-up."""
    warmup_steps: int = Field(default=200, ge=0)
    """Steps of linear warm-up."""
    cooldown: float = Field(default=1.0, gt=0, le=1)
    """Last share of the run over which a cosine takes the learning rate to zero; 1 is a plain cosine."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's, on weights with two dimensions or more."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Of the averaged weights, which are the result."""
    compile: bool = False
    """torch.compile, per repeated block where the model has them."""


class StageConfig(BaseModel):
    """One stage of training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimiser: OptimiserConfig
    """How weights are changed."""
    model: dict[str, Any]
    """Arguments of the model's class."""
    objective: dict[str, Any] = Field(default_factory=dict)
    """Fields of the stage's own objective; see its module."""
    seed: int = 0
    """Of initial weights, batches and noise."""


def load_stage(path: Path) -> StageConfig:
    """Read a preset file.

    Raises:
        InvalidRequestError: The file is missing, or a field of it is wrong.
    """
    try:
        return StageConfig.model_validate(yaml.safe_load(path.read_text()))
    except FileNotFoundError as error:
        raise InvalidRequestError(f"The preset {path} does not exist; see configs/train.") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise InvalidRequestError(f"The preset {path} is not valid: {error}") from error
