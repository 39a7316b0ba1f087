"""Taking out of identity tokens what all people have in common, so that what is injected tells people apart."""

import torch
from torch import Tensor, nn


class PopulationNorm(nn.Module):
    """Subtract the population's mean token by token, and divide by the spread of what is left.

    An encoder that learns from the denoising loss alone makes its tokens one constant for everybody: F_l normalises
    what it attends to, so a part common to all people stays large, its gradient is the same for all samples, and the
    person's part drowns. In training the mean is that of the batch, as in batch normalisation, so a common part gets no
    gradient; afterwards it is the running mean of the training.

    Args:
        num_tokens: N.
        dim: Width of the tokens.
        momentum: Share of a batch in the running mean and spread.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, num_tokens: int, dim: int, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(num_tokens, dim))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalise tokens (B, N, dim); in training mode over the batch, which then must hold at least two people."""
        if not self.training:
            return (tokens - self.mean) / self.spread
        assert len(tokens) > 1, "the mean of one person is that person; train on larger batches"
        mean = tokens.mean(dim=0)
        centred = tokens - mean
        spread = (centred.square().mean() + 1e-8).sqrt()
        with torch.no_grad():
            self.mean.lerp_(mean, self.momentum)
            self.spread.lerp_(spread, self.momentum)
        return centred / spread
