"""What diffusers' group offloading must be told of our transformer, whose blocks also work outside their `forward`."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from fantasyid.core.upstream import offloading_group


def bring_in_for_projection(block: nn.Module, layers: Sequence[nn.Module]) -> None:
    """Bring a block in while its identity keys and values are computed, once per video and outside its `forward`.

    Args:
        block: A block whose weights diffusers offloads with those of its group.
        layers: Those of it that are called then, in the order of the calls.
    """
    group = offloading_group(block)

    def bring_in(*_: Any) -> None:
        group.onload_()
        if group.stream is not None:
            group.stream.synchronize()

    def send_back(*_: Any) -> None:
        group.offload_()

    layers[0].register_forward_pre_hook(bring_in)
    layers[-1].register_forward_hook(send_back)
