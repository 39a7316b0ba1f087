"""Kernels that only a GPU has, against PyTorch's own arithmetic in float32."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb

from fantasyid.models.attention_kernels import available_attention, use_attention
from fantasyid.pipelines.acceleration import compile_blocks, fuse_norm_and_rotary
from tests.tiny import noise, open_injection, tiny_transformer, tiny_transformer_inputs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

TEXT = 7


def relative_error(x: torch.Tensor, reference: torch.Tensor) -> float:
    return ((x.float() - reference.float()).norm() / reference.float().norm()).item()


@pytest.mark.parametrize("heads", [2, 48])
def test_norm_rotary_equals_its_two_steps(heads) -> None:
    from fantasyid.models.norm_rotary import norm_rotary

    fused = noise(2, TEXT + 20, 3 * heads * 64).cuda().bfloat16()
    x = fused.chunk(3, dim=-1)[1].unflatten(-1, (heads, 64))
    weight, bias = noise(64, seed=1).cuda().bfloat16(), noise(64, seed=2).cuda().bfloat16()
    cos, sin = noise(20, 64, seed=3).cuda(), noise(20, 64, seed=4).cuda()
    expected = F.layer_norm(x.float(), (64,), weight.float(), bias.float(), 1e-6)
    expected[:, TEXT:] = apply_rotary_emb(expected[:, TEXT:], (cos, sin), sequence_dim=1)
    assert relative_error(norm_rotary(x, weight, bias, 1e-6, cos, sin, TEXT), expected) < 3e-3


@pytest.mark.parametrize("compiled", [False, True])
def test_every_kernel_of_this_gpu_agrees(compiled) -> None:
    device = torch.device("cuda")
    inputs = {
        name: x.to(device, torch.bfloat16) if torch.is_tensor(x) and x.is_floating_point() else x
        for name, x in tiny_transformer_inputs().items()
    }
    inputs["timestep"] = inputs["timestep"].to(device)
    inputs["image_rotary_emb"] = tuple(x.to(device) for x in inputs["image_rotary_emb"])
    inputs["identity_tokens"] = noise(2, 5, 24, seed=4).to(device, torch.bfloat16)
    model = tiny_transformer(attention_head_dim=64, injection_dim=128)
    inputs["image_rotary_emb"] = tuple(x.repeat(1, 4) for x in inputs["image_rotary_emb"])
    open_injection(model)
    model.eval().to(device)
    with torch.no_grad():
        exact = model(
            **{k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in inputs.items()}
        )
        model.to(torch.bfloat16)
        for kernel in available_attention(device):
            use_attention(model, kernel)
            if compiled:
                torch.compiler.reset()
                for block in model.transformer_blocks:
                    vars(block).pop("forward", None)
                fuse_norm_and_rotary(model)
                compile_blocks(model)
            assert relative_error(model(**inputs).sample, exact.sample) < 3e-2, kernel
