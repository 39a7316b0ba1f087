"""Kernels that only a GPU has, against PyTorch's own arithmetic in float32."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb

from fantasyid.models.kernels.attention_kernels import available_attention, use_attention
from fantasyid.models.kernels.fp8 import gelu_quantize_rows
from fantasyid.models.kernels.linear_gelu import linear_gelu
from fantasyid.pipelines.acceleration import compile_blocks, quantize_linears, use_gpu_kernels
from tests.tiny import noise, open_injection, tiny_transformer, tiny_transformer_inputs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

TEXT = 7


def relative_error(x: torch.Tensor, reference: torch.Tensor) -> float:
    return ((x.float() - reference.float()).norm() / reference.float().norm()).item()


@pytest.mark.parametrize("heads", [2, 48])
def test_norm_rotary_equals_its_two_steps(heads) -> None:
    from fantasyid.models.kernels.norm_rotary import norm_rotary

    fused = noise(2, TEXT + 20, 3 * heads * 64).cuda().bfloat16()
    x = fused.chunk(3, dim=-1)[1].unflatten(-1, (heads, 64))
    weight, bias = noise(64, seed=1).cuda().bfloat16(), noise(64, seed=2).cuda().bfloat16()
    cos, sin = noise(20, 64, seed=3).cuda(), noise(20, 64, seed=4).cuda()
    expected = F.layer_norm(x.float(), (64,), weight.float(), bias.float(), 1e-6)
    expected[:, TEXT:] = apply_rotary_emb(expected[:, TEXT:], (cos, sin), sequence_dim=1)
    assert relative_error(norm_rotary(x, weight, bias, 1e-6, cos, sin, TEXT), expected) < 3e-3


@pytest.mark.parametrize("widths", [(32, 64), (40, 72), (3072, 12288)])
def test_linear_gelu_equals_its_two_steps(widths) -> None:
    width, hidden = widths
    x, bias = noise(2, 9, width).cuda().bfloat16(), noise(hidden, seed=1).cuda().bfloat16()
    weight = (noise(hidden, width, seed=2) / width**0.5).cuda().bfloat16()
    expected = F.gelu(F.linear(x.double(), weight.double(), bias.double()), approximate="tanh")
    out = linear_gelu(x, weight, bias)
    assert out.shape == expected.shape
    assert out.dtype == x.dtype
    assert relative_error(out, expected) < 4e-3
    # The tanh approximation, not the exact GELU.
    x, weight, bias = (t.float() for t in (x, weight, bias))
    tanh, exact = (F.gelu(F.linear(x, weight, bias), approximate=kind) for kind in ("tanh", "none"))
    out = linear_gelu(x, weight, bias)
    assert relative_error(out, tanh) < relative_error(out, exact)


@pytest.mark.parametrize("width", [64, 72, 448, 12288])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gelu_quantize_equals_its_two_steps(width, dtype) -> None:
    from fantasyid.models.kernels.gelu_quantize import gelu_quantize

    sizes = torch.tensor([1e-6, 1e-2, 1.0, 30.0, 1e3, 0.0])[:, None]
    x = (noise(6, width) * sizes).cuda().to(dtype)
    rows, scale = gelu_quantize(x)
    expected_rows, expected_scale = gelu_quantize_rows(x.float())
    assert (rows.dtype, rows.shape, scale.shape) == (torch.float8_e4m3fn, x.shape, (6, 1))
    torch.testing.assert_close(scale, expected_scale, rtol=1e-5, atol=0)
    assert rows.float().abs().amax(dim=1).tolist() == [448.0] * 5 + [0.0]
    # Ties may round the other way: one step of e4m3 for a few.
    restored, expected = rows.float() * scale, expected_rows.float() * expected_scale
    assert relative_error(restored, expected) < 3e-3
    assert ((restored - expected).abs() <= expected.abs() / 8 + scale * 2**-9).all()
    # Rows that do not follow one another.
    apart = torch.cat([x, x], dim=1)[:, :width]
    assert all(torch.equal(a.float(), b.float()) for a, b in zip(gelu_quantize(apart), (rows, scale), strict=True))


@pytest.mark.parametrize("is_fp8", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_every_kernel_of_this_gpu_agrees(compiled, is_fp8) -> None:
    if is_fp8 and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("needs a GPU with float8 products")
    device = torch.device("cuda")
    inputs = {
        name: x.to(device, torch.bfloat16) if torch.is_tensor(x) and x.is_floating_point() else x
        for name, x in tiny_transformer_inputs().items()
    }
    inputs["timestep"] = inputs["timestep"].to(device)
    inputs["image_rotary_emb"] = tuple(x.to(device) for x in inputs["image_rotary_emb"])
    inputs["identity_tokens"] = noise(2, 5, 24, seed=4).to(device, torch.bfloat16)
    model = tiny_transformer(attention_head_dim=64, injection_dim=128, injection_query_dim=64)
    inputs["image_rotary_emb"] = tuple(x.repeat(1, 4) for x in inputs["image_rotary_emb"])
    open_injection(model)
    model.eval().to(device)
    with torch.no_grad():
        exact = model(
            **{k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in inputs.items()}
        )
        model.to(torch.bfloat16)
        if is_fp8:
            quantize_linears(model)
        for kernel in available_attention(device):
            use_attention(model, kernel)
            if compiled:
                torch.compiler.reset()
                for block in model.transformer_blocks:
                    vars(block).pop("forward", None)
                use_gpu_kernels(model)
                compile_blocks(model)
            bound = 0.1 if is_fp8 else 3e-2
            assert relative_error(model(**inputs).sample, exact.sample) < bound, kernel
