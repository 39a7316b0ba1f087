"""Bounds on the numbers a user gives, the same for the command line and for Python."""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from fantasyid.core.errors import InvalidRequestError


@dataclass(frozen=True)
class Bounds:
    """The smallest and the largest value allowed."""

    low: int
    high: int


GUIDANCE_SCALE = Bounds(0, 100)
"""Off at 1 and below; models are used at 2 to 12."""
IDENTITY_SCALE = Bounds(0, 10)
"""0 is no identity tokens, 1 what the model was trained with."""
LORA_SCALE = Bounds(-10, 10)
"""1 is what the adapter was trained with; below 0 it works the other way round."""
SEED = Bounds(0, 2**64 - 1)
"""What `torch.Generator.manual_seed` takes."""
VIDEOS_PER_PROMPT = Bounds(1, 100)
PIXELS_PER_SIDE = Bounds(1, 4096)
DENOISING_STEPS = Bounds(1, 1000)
NUM_FRAMES = Bounds(1, 1000)
FRAMES_PER_SECOND = Bounds(1, 120)
FACE_INDEX = Bounds(0, 1000)
NUM_GPUS = Bounds(1, 64)
CACHE_INTERVAL = Bounds(2, 1000)


def check_number(name: str, value: Any, bounds: Bounds) -> None:
    """Refuse what is no finite number within bounds.

    Args:
        name: What the user calls the number.
        value: What was given.
        bounds: What is allowed.

    Raises:
        InvalidRequestError: The message names the value and the bounds.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not bounds.low <= value <= bounds.high:  # NaN lies in no bounds
        raise InvalidRequestError(f"{name} is {value!r}; it must be a number from {bounds.low} to {bounds.high}.")


def check_shares(name: str, interval: Any) -> None:
    """Refuse what is not a share of the steps, from and to.

    Args:
        name: What the user calls it.
        interval: What was given.

    Raises:
        InvalidRequestError: The message names the value.
    """
    is_pair = isinstance(interval, tuple | list) and len(interval) == 2
    if not is_pair or not 0 <= interval[0] <= interval[1] <= 1:
        raise InvalidRequestError(f"{name} is {interval}; it must be two rising shares of the steps within 0..1.")


def check_integer(name: str, value: Any, bounds: Bounds) -> None:
    """Refuse what is no whole number within bounds.

    Args:
        name: What the user calls the number.
        value: What was given.
        bounds: What is allowed, whole numbers.

    Raises:
        InvalidRequestError: The message names the value and the bounds.
    """
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or not bounds.low <= value <= bounds.high:
        raise InvalidRequestError(
            f"{name} is {value!r}; it must be at least {bounds.low} and at most {bounds.high}, a whole number."
        )
