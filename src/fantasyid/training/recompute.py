"""Activations that are computed again for the gradient, because keeping them all would fill a GPU."""

from functools import partial
from typing import Any, Literal

from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from fantasyid.core.upstream import ATTENTION_OPERATIONS
from fantasyid.models.transformer import FantasyIDTransformer3DModel

Recompute = Literal["nothing", "blocks", "all_but_attention"]


def recompute(transformer: FantasyIDTransformer3DModel, what: Recompute) -> None:
    """Keep of every block its inputs alone, or what attention gave too, which costs most to compute again.

    Gradients are the same bits.
    """
    if what == "blocks":
        transformer.enable_gradient_checkpointing(_again)
    elif what == "all_but_attention":
        contexts = partial(create_selective_checkpoint_contexts, _policy)
        transformer.enable_gradient_checkpointing(partial(_again, context_fn=contexts))


def _again(block: nn.Module, *inputs: Any, **options: Any) -> Any:
    return checkpoint(block, *inputs, use_reentrant=False, **options)


def _policy(_: Any, operation: Any, *arguments: Any, **named: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in ATTENTION_OPERATIONS else CheckpointPolicy.PREFER_RECOMPUTE
