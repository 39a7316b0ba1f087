"""Taking out of identity tokens what all people have in common, so that what is injected tells people apart."""

import torch
from torch import Tensor, nn


class PopulationNorm(nn.Module):
    """Subtract the population's mean token by token, and divide by the spread of what is left.

    An encoder that learns from the denoising loss alone makes its tokens one constant for everybody: F_l normalises
    what it attends to, so a part common to all people stays large, its gradient is the same for all samples, and the
    person's part drowns. In training the mean is that of the batch, as in batch normalisation, so a common part gets no
    gradient from what follows; `drift` keeps it small. Afterwards it is what `measure` found, which must be of the
    weights that are used: a mean that is off by a hundredth of the tokens drowned the person again.

    Args:
        num_tokens: N.
        dim: Width of the tokens.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, num_tokens: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_tokens, dim))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalise tokens (B, N, dim); in training mode over the batch, which then must hold at least two people."""
        mean, spread = _statistics(tokens) if self.training else (self.mean, self.spread)
        return (tokens - mean) / spread

    @torch.no_grad()
    def measure(self, tokens: Tensor) -> None:
        """Take mean and spread from the tokens (B, N, dim) of many people."""
        mean, spread = _statistics(tokens)
        self.mean.copy_(mean)
        self.spread.copy_(spread)


def drift(tokens: Tensor) -> Tensor:
    """What keeps tokens (B, N, dim) from running away where normalisation hides it: mean square of the common part,
    and square of the logarithm of the spread."""
    mean, spread = _statistics(tokens)
    return mean.square().mean() + spread.log().square()


def token_spread(tokens: Tensor) -> Tensor:
    """How much of tokens (B, N, dim) differs between people: root mean square of what does over that of the whole."""
    _, spread = _statistics(tokens.float())
    return spread / tokens.float().square().mean().sqrt()


def _statistics(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The mean person (N, dim), and the root mean square of what people differ by."""
    assert len(tokens) > 1, "the mean of one person is that person; take more"
    mean = tokens.mean(dim=0)
    return mean, ((tokens - mean).square().mean() + 1e-12).sqrt()
