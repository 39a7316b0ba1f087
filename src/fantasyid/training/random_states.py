"""Where the random numbers of a stage come from, kept so that a resumed run draws what an unbroken one would."""

from typing import Any

import numpy as np
import torch

from fantasyid.core.errors import InvalidRequestError


class RandomStates:
    """The states of the objective's own generator and of PyTorch's default ones, on the CPU and on the model's device.

    Nothing in a stage draws from anywhere else. Fresh weights are drawn from PyTorch's default generators too, so a
    state must be loaded after they are made.

    Args:
        own: What the objective draws from.
        device: Where the model is.
    """

    def __init__(self, own: np.random.Generator | torch.Generator, device: torch.device) -> None:
        self._own, self._device = own, device

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors on the CPU, by name."""
        own = self._own.get_state() if isinstance(self._own, torch.Generator) else self._own.bit_generator.state
        states = {"own": own, "cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        return states

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Go on where `state_dict` was called.

        Raises:
            InvalidRequestError: It was called on another kind of device, whose numbers cannot be drawn here.
        """
        here, there = "cuda" if self._device.type == "cuda" else "cpu", "cuda" if "cuda" in states else "cpu"
        if here != there:
            raise InvalidRequestError(
                f"The run to be continued drew its random numbers on {there}, this one would on {here}; continue it "
                f"with --device {there}, or start anew in another folder."
            )
        if isinstance(self._own, torch.Generator):
            self._own.set_state(states["own"])
        else:
            self._own.bit_generator.state = states["own"]
        torch.set_rng_state(states["cpu"])
        if here == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self._device)
