"""What can be asked of a pipeline beside the video itself: how it is made faster. Imported in no time."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fantasyid.core.choices import AttentionChoice, CacheKind
from fantasyid.core.errors import InvalidRequestError


class Acceleration(BaseModel):
    """What to speed up; the defaults change nothing, not even by a bit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    compile: bool = False
    """Compile the blocks, with kernels of our own on GPUs: exact up to rounding; the first step takes longer."""
    tune: bool = False
    """Let the compiler search for the fastest form of each kernel: a first step of about 40 s instead of 5, once per
    machine, since what it finds is kept on disk."""
    attention: AttentionChoice | None = None
    """Attention kernel: exact up to rounding; `auto` takes the fastest there is, None what PyTorch takes."""
    fp8: bool = False
    """Linear layers of the blocks in 8-bit floating point, scaled by row; the transformer can't be saved afterwards."""
    cache: CacheKind | None = None
    """Skip steps whose outcome can be told from earlier ones.

    `first-block` repeats what the blocks added last time while the first block's own addition changes little; `taylor`
    extrapolates the output linearly, computing every `cache_interval`-th step.
    """
    cache_threshold: Annotated[float, Field(gt=0)] = 0.1
    """Relative change of the first block's addition below which `first-block` skips."""
    cache_interval: Annotated[int, Field(ge=2)] = 3
    """`taylor` computes one of so many steps."""

    @model_validator(mode="after")
    def _check(self) -> "Acceleration":
        if self.tune and not self.compile:
            raise InvalidRequestError("tune chooses among compiled kernels, and compile is off; switch it on too.")
        return self
