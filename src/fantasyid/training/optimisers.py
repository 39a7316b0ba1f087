"""Which optimiser changes which weights."""

from collections.abc import Sequence

from torch import Tensor
from torch.optim import AdamW, Optimizer

from fantasyid.training.config import OptimiserConfig
from fantasyid.training.groups import TrainedGroup, optimiser_groups
from fantasyid.training.lora import is_adapter
from fantasyid.training.muon import Muon


def is_by_muon(name: str, weight: Tensor) -> bool:
    """Whether Muon changes a weight of a `VideoModel`, where it is asked for.

    It does matrices inside of the transformer's blocks, but for those that make the norms' gains out of the time and
    the thin ones of a LoRA.
    """
    is_in_block = name.startswith("transformer.transformer_blocks.") and weight.ndim == 2
    return is_in_block and ".norm" not in name and not is_adapter(name)


def make_optimisers(groups: Sequence[TrainedGroup], config: OptimiserConfig) -> list[Optimizer]:
    """One optimiser for all weights, or two that share them.

    Args:
        groups: What is trained.
        config: Which of them.
    """

    def by_muon(name: str, weight: Tensor) -> bool:
        return config.method == "muon" and is_by_muon(name, weight)

    made: list[Optimizer] = []
    if matrices := optimiser_groups(groups, by_muon):
        made.append(Muon(matrices))
    if rest := optimiser_groups(groups, lambda name, weight: not by_muon(name, weight)):
        made.append(AdamW(rest, lr=0.0, betas=(0.9, config.beta2), fused=rest[0]["params"][0].is_cuda))
    return made
