"""A linear layer and the GELU after it in one matrix product, which applies the GELU before it stores anything.

For GPUs only: there the product's GELU is the tanh approximation that CogVideoX's blocks use, and on CPUs it is the
exact one.
"""

import torch
import torch.nn.functional as F
from diffusers.models.activations import GELU
from torch import Tensor, nn

from fantasyid.core.upstream import add_product_and_activate


class LinearGelu(nn.Module):
    """What diffusers' `GELU` with the tanh approximation computes, with its parameters under their names.

    Args:
        activation: The layer to take over.
    """

    def __init__(self, activation: GELU) -> None:
        super().__init__()
        self.proj: nn.Module = activation.proj

    def forward(self, x: Tensor) -> Tensor:
        """Multiply (..., in_features) to (..., out_features) and apply GELU."""
        if type(self.proj) is nn.Linear:
            out: Tensor = linear_gelu(x, self.proj.weight, self.proj.bias)
            return out
        # An adapter such as a LoRA was put in the layer's place, and computes more than a product.
        return F.gelu(self.proj(x), approximate="tanh")


@torch.library.custom_op("fantasyid::linear_gelu", mutates_args=(), device_types="cuda")
def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute `gelu(x @ weight.T + bias)`, tanh approximation.

    Args:
        x: (..., in_features).
        weight: (out_features, in_features).
        bias: (out_features,).

    Returns:
        (..., out_features) in the dtype of `x`.
    """
    out = add_product_and_activate(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
    return out.view(*x.shape[:-1], -1)


@linear_gelu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])
