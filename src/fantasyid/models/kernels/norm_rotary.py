"""A GPU kernel that layer-normalises the heads of queries or keys and turns them by their rotary code.

PyTorch's compiler makes three kernels of it, because the rotation mixes neighbouring columns of what a reduction made:
46 of the 1314 ms of a denoising step at CogVideoX-5B's size, where one pass over memory takes 13.

Only machines with a GPU have Triton, so this file is imported where the kernel is asked for.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _normalise_and_rotate(  # type: ignore[no-untyped-def]
    x_ptr,
    out_ptr,
    weight_ptr,
    bias_ptr,
    cos_ptr,
    sin_ptr,
    length,
    text_length,
    eps,
    batch_stride,
    token_stride,
    HEADS: tl.constexpr,  # noqa: N803
    PADDED_HEADS: tl.constexpr,  # noqa: N803
    HEAD_DIM: tl.constexpr,  # noqa: N803
):
    """Do all heads of one token."""
    token, sample = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    heads, columns = tl.arange(0, PADDED_HEADS), tl.arange(0, HEAD_DIM)
    is_head = heads[:, None] < HEADS
    offsets = heads[:, None] * HEAD_DIM + columns[None, :]
    x = tl.load(x_ptr + sample * batch_stride + token * token_stride + offsets, mask=is_head, other=0.0)
    x = x.to(tl.float32)
    x -= (tl.sum(x, 1) / HEAD_DIM)[:, None]
    x *= tl.rsqrt(tl.sum(x * x, 1) / HEAD_DIM + eps)[:, None]
    weight, bias = tl.load(weight_ptr + columns).to(tl.float32), tl.load(bias_ptr + columns).to(tl.float32)
    x = x * weight[None, :] + bias[None, :]
    real, imaginary = tl.split(tl.reshape(x, [PADDED_HEADS, HEAD_DIM // 2, 2]))
    turned = tl.reshape(tl.join(-imaginary, real), [PADDED_HEADS, HEAD_DIM])
    place = (token - text_length) * HEAD_DIM + columns
    cos = tl.load(cos_ptr + place, mask=place >= 0, other=1.0)
    sin = tl.load(sin_ptr + place, mask=place >= 0, other=0.0)
    out = x * cos[None, :] + turned * sin[None, :]
    place_out = (sample * length + token) * (HEADS * HEAD_DIM) + offsets
    tl.store(out_ptr + place_out, out.to(out_ptr.dtype.element_ty), mask=is_head)


@torch.library.custom_op("fantasyid::norm_rotary", mutates_args=())
def norm_rotary(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, cos: Tensor, sin: Tensor, text_length: int
) -> Tensor:
    """Normalise each head over its columns, then rotate the tokens after the text.

    Args:
        x: (B, L + S, heads, head_dim), its last two axes contiguous; head_dim is a power of two.
        weight: (head_dim,), of the norm.
        bias: (head_dim,), of the norm.
        eps: Of the norm.
        cos: (S, head_dim) float32.
        sin: (S, head_dim) float32.
        text_length: L, the tokens in front that are not rotated.

    Returns:
        (B, L + S, heads, head_dim) in the dtype of `x`: computed in float32 and rounded once.
    """
    batch, length, heads, head_dim = x.shape
    assert x.stride()[2:] == (head_dim, 1), x.stride()
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _normalise_and_rotate[(length, batch)](
            x,
            out,
            weight,
            bias,
            cos.contiguous(),
            sin.contiguous(),
            length,
            text_length,
            eps,
            x.stride(0),
            x.stride(1),
            HEADS=heads,
            PADDED_HEADS=triton.next_power_of_2(heads),
            HEAD_DIM=head_dim,
            num_warps=4,
        )
    return out


@norm_rotary.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float, cos: Tensor, sin: Tensor, text_length: int) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
