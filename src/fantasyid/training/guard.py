"""Looking at every step before it changes the weights: no number that is none, and no spike."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

_REMEMBERED = 200
_NEEDED = 20
_WINDOW, _MOST_SKIPPED = 100, 5


@dataclass(frozen=True)
class Verdict:
    """What becomes of a step.

    Attributes:
        is_taken: Whether its update is made.
        fault: Why the run must stop, or None.
    """

    is_taken: bool
    fault: str | None = None


class Guard:
    """Judges steps by their loss and their gradient's norm.

    Args:
        spike_factor: A norm above so many times the median of the last 200 leaves the update out, and the sixth within
            100 steps ends the run; None takes every finite one.
        norms: Of the last steps that were taken, oldest first.
        skipped: Steps that were left out.
    """

    def __init__(self, spike_factor: float | None, norms: Sequence[float] = (), skipped: Sequence[int] = ()) -> None:
        self.spike_factor = spike_factor
        self.norms = deque(norms, maxlen=_REMEMBERED)
        self.skipped = list(skipped)

    def judge(self, step: int, loss: float, norm: float) -> Verdict:
        """What becomes of a step, counted from 0."""
        if not math.isfinite(loss + norm):
            return Verdict(False, f"The loss of step {step + 1} is {loss} and its gradient's norm {norm}")
        if self.spike_factor is None:
            return Verdict(True)
        if len(self.norms) >= _NEEDED and norm > self.spike_factor * median(self.norms):
            self.skipped.append(step)
            recent = sum(step - other < _WINDOW for other in self.skipped)
            if recent > _MOST_SKIPPED:
                return Verdict(False, f"{recent} of the last {_WINDOW} steps had a gradient far above the others'")
            return Verdict(False)
        self.norms.append(norm)
        return Verdict(True)
