"""Linear layers in 8-bit floating point: weights stored and multiplied as float8, scaled by row."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fantasyid.core.upstream import scaled_product

_LARGEST = torch.finfo(torch.float8_e4m3fn).max


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round rows to float8 so that each row's largest magnitude meets the format's.

    Args:
        x: (rows, columns).

    Returns:
        The rounded rows, and the float32 scales (rows, 1) that restore them.
    """
    scale = x.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12) / _LARGEST
    return (x.float() / scale).clamp(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn), scale


def gelu_quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Apply GELU, tanh approximation, and then `quantize_rows`."""
    return quantize_rows(F.gelu(x, approximate="tanh"))


def multiplies_fp8(device: torch.device) -> bool:
    """Whether this PyTorch multiplies float8 with a scale for each row on a device; on CPUs it does from 2.13 on."""
    ones = torch.ones(16, 16, device=device).to(torch.float8_e4m3fn)
    scale = torch.ones(16, 1, device=device)
    try:
        scaled_product(ones, ones.t(), scale_a=scale, scale_b=scale.t(), out_dtype=torch.bfloat16)
    except (NotImplementedError, RuntimeError):
        return False
    return True


class Fp8Linear(nn.Module):
    """A linear layer whose weight and input are rounded to float8 (e4m3), each row by its own scale.

    A plain module around PyTorch's scaled matrix product: no tensor subclass, so a compiled block has nothing to
    unwrap, guards nothing but shapes, and is compiled once for all blocks.

    Args:
        linear: The layer to take over; its weight is dropped when nothing else holds it.
        quantize: What rounds the rows of the input. It may do the activation before the layer too, as one GPU kernel
            does both in one pass over memory.
    """

    def __init__(self, linear: nn.Linear, quantize: Callable[[Tensor], tuple[Tensor, Tensor]] = quantize_rows) -> None:
        super().__init__()
        self.quantize = quantize
        weight, scale = quantize_rows(linear.weight.detach())
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.weight_scale = nn.Parameter(scale.t().contiguous(), requires_grad=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply (..., in_features) to (..., out_features), in the dtype of `x`."""
        rows, scale = self.quantize(x.flatten(0, -2))
        # GPUs add a bias to no float32 product.
        bias, apart = (None, self.bias) if x.dtype == torch.float32 else (self.bias, None)
        out: Tensor = scaled_product(
            rows,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.weight_scale,
            bias=bias,
            out_dtype=x.dtype,
            use_fast_accum=True,
        )
        out = out if apart is None else out + apart
        return out.reshape(*x.shape[:-1], -1)
