"""What diffusers' group offloading must be told of our transformer, whose blocks also work outside their `forward`."""

from typing import Any

from torch import nn

from fantasyid.core.upstream import offloading_group


def bring_in_for_projection(block: nn.Module) -> None:
    """Bring a block in while its identity keys and values are computed, once per video and outside its `forward`.

    Args:
        block: A `FantasyIDBlock` with an injection, whose weights diffusers offloads with those of its group.
    """
    group = offloading_group(block)

    def bring_in(*_: Any) -> None:
        group.onload_()
        if group.stream is not None:
            group.stream.synchronize()

    def send_back(*_: Any) -> None:
        group.offload_()

    attention: Any = block.injection.attention  # type: ignore[union-attr]
    getattr(attention, "norm_identity", attention.to_k).register_forward_pre_hook(bring_in)
    attention.to_v.register_forward_hook(send_back)
