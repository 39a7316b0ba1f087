"""The face abstractor and its ablation, the Q-Former."""

import pytest
import torch
from torch import nn

from fantasyid.models.attention import MultiHeadAttention
from fantasyid.models.face_abstractor import BottleneckBlock, FaceAbstractor
from fantasyid.models.qformer import QFormer
from tests.tiny import noise, seeded

SIZES = {"in_channels": 32, "out_channels": 64, "grid_size": 16, "pool_factor": 2}


@pytest.mark.parametrize("build", [FaceAbstractor, QFormer])
def test_both_give_the_same_shape(build) -> None:
    tokens = noise(2, 16, 16, 32)
    before = tokens.clone()
    assert seeded(build, **SIZES)(tokens).shape == (2, 8, 8, 64)
    assert torch.equal(tokens, before)


def bottleneck(block: BottleneckBlock, x: torch.Tensor) -> torch.Tensor:
    """RegNet's block on (B, H, W, C): 1x1, norm, SiLU, grouped 3x3, norm, SiLU, excitation, 1x1, norm, residual."""

    def convolve(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def normalise(norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias)

    h = nn.functional.silu(normalise(block.norm1, x @ block.conv1.weight[:, :, 0, 0].T + block.conv1.bias))
    h = nn.functional.silu(normalise(block.norm2, convolve(block.conv2, h)))
    squeeze, _, excite, _ = block.excitation.gate
    gates = torch.sigmoid(excite(nn.functional.silu(squeeze(h.mean(dim=(1, 2))))))
    h = convolve(block.conv3, h * gates[:, None, None])
    return nn.functional.silu(x + normalise(block.norm3, h))


def test_abstractor_equals_its_steps() -> None:
    """Position, three blocks, average pooling, three blocks, and the MLP from C to C' (3.4)."""
    model = seeded(FaceAbstractor, **SIZES)
    tokens = noise(2, 16, 16, 32)
    grid = tokens + model.position.permute(0, 2, 3, 1)
    assert (len(model.before), len(model.after)) == (3, 3)
    for block in model.before:
        grid = bottleneck(block, grid)
    grid = grid.reshape(2, 8, 2, 8, 2, 32).mean(dim=(2, 4))
    for block in model.after:
        grid = bottleneck(block, grid)
    first, _, second = model.mlp
    expected = nn.functional.silu(grid @ first.weight.T + first.bias) @ second.weight.T + second.bias
    torch.testing.assert_close(model(tokens), expected, atol=1e-4, rtol=1e-4)


def attend(attention: MultiHeadAttention, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """PyTorch's own multi-head attention with the weights of one of ours."""
    dim = x.shape[-1]
    weights = [attention.to_q.weight, *attention.to_kv.weight.chunk(2)]
    biases = torch.cat([attention.to_q.bias, attention.to_kv.bias])
    out, _ = nn.functional.multi_head_attention_forward(
        *(value.transpose(0, 1) for value in (x, context, context)),
        embed_dim_to_check=dim,
        num_heads=attention.num_heads,
        in_proj_weight=None,
        in_proj_bias=biases,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=attention.to_out.weight,
        out_proj_bias=attention.to_out.bias,
        use_separate_proj_weight=True,
        q_proj_weight=weights[0],
        k_proj_weight=weights[1],
        v_proj_weight=weights[2],
    )
    return out.transpose(0, 1)


def test_q_former_equals_its_steps() -> None:
    """Learned queries, and in each layer self-attention, cross-attention to the tokens and feed-forward, pre-norm."""
    model = seeded(QFormer, **{**SIZES, "out_channels": 128})
    tokens = noise(2, 16, 16, 32)
    context = model.norm_context(tokens.flatten(1, 2))
    queries = model.queries.expand(2, -1, -1)
    assert len(model.layers) == 4
    for layer in model.layers:
        normed = layer.norm1(queries)
        queries = queries + attend(layer.self_attention, normed, normed)
        queries = queries + attend(layer.cross_attention, layer.norm2(queries), context)
        inner, _, outer = layer.feed_forward
        queries = queries + outer(nn.functional.gelu(inner(layer.norm3(queries))))
    expected = model.norm(queries).unflatten(1, (8, 8))
    torch.testing.assert_close(model(tokens), expected, atol=1e-4, rtol=1e-4)


def test_paper_size_pools_24_to_6() -> None:
    with torch.device("meta"):
        model = FaceAbstractor(in_channels=1024, out_channels=128, grid_size=24, pool_factor=4)
        assert model(torch.empty(1, 24, 24, 1024)).shape == (1, 6, 6, 128)


def corner_difference(model: nn.Module) -> torch.Tensor:
    """How much each output cell changes when the input's top left token does."""
    tokens = noise(1, 16, 16, 32)
    changed = tokens.clone()
    changed[:, 0, 0] += 1.0
    return (model(changed) - model(tokens)).abs().sum(dim=-1)[0]


def test_abstractor_is_local_but_for_squeeze_excitation() -> None:
    model = seeded(FaceAbstractor, **SIZES)
    for block in (*model.before, *model.after):
        nn.init.zeros_(block.excitation.gate[2].weight)
    difference = corner_difference(model)
    # Three 3x3 convolutions reach 3 tokens, pooling makes that cell 1, three more reach cell 4.
    assert difference[5:].max() == 0
    assert difference[:, 5:].max() == 0
    assert difference[:5, :5].min() > 0


def test_abstractor_keeps_the_layout_with_squeeze_excitation() -> None:
    difference = corner_difference(seeded(FaceAbstractor, **SIZES))
    assert difference.argmax() == 0
    assert difference[0, 0] > 10 * difference[5:, 5:].max()


def test_abstractor_pools_by_averaging() -> None:
    model = seeded(FaceAbstractor, **SIZES, num_blocks=0)
    tokens = noise(1, 16, 16, 32)
    position = model.position.permute(0, 2, 3, 1)
    averaged = (tokens + position).reshape(1, 8, 2, 8, 2, 32).mean(dim=(2, 4))
    torch.testing.assert_close(model(tokens), model.mlp(averaged))


def test_abstractor_rejects_a_grid_it_cannot_pool() -> None:
    with pytest.raises(ValueError, match="a grid of 15 tokens cannot be pooled by 2"):
        FaceAbstractor(**{**SIZES, "grid_size": 15})
