"""The paper's identity encoder and its ablations."""

import pytest
import torch
from torch import nn

from fantasyid.core.errors import TopologyMismatchError
from fantasyid.models.attention import TransformerBlock
from fantasyid.models.fusion import FusionTransformer, ResConv1D
from fantasyid.models.identity_encoder import IdentityEncoder
from tests.tiny import noise, seeded, tiny_hierarchy, tiny_identity_encoder

VARIANTS = [{}, {"abstractor": "q-former"}, {"use_vertices": False}]


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_and_untouched_inputs(variant) -> None:
    tokens, vertices = noise(2, 4, 4, 32), noise(2, 60, 3)
    before = tokens.clone(), vertices.clone()
    out = tiny_identity_encoder(**variant)(tokens, vertices)
    assert out.shape == (2, 4 if variant == {"use_vertices": False} else 7, 24)
    assert torch.equal(tokens, before[0])
    assert torch.equal(vertices, before[1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient(variant) -> None:
    encoder = tiny_identity_encoder(**variant)
    encoder(noise(2, 4, 4, 32), noise(2, 60, 3)).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def depth_code(z_cm: torch.Tensor, dim: int) -> torch.Tensor:
    """E_dep as the paper's reference for positions has it, of depth in millimetres."""
    return torch.stack(
        [
            trigonometric(10 * z_cm / 10000 ** (2 * index / dim))
            for trigonometric in (torch.sin, torch.cos)
            for index in range(dim // 2)
        ],
        dim=-1,
    )


def torch_layer(block: TransformerBlock) -> nn.TransformerEncoderLayer:
    """PyTorch's own pre-norm layer with a block's weights."""
    dim, attention = block.norm1.normalized_shape[0], block.attention
    layer = nn.TransformerEncoderLayer(
        dim, attention.num_heads, 4 * dim, 0.0, nn.functional.gelu, norm_first=True, batch_first=True
    )
    weights = {
        "self_attn.in_proj_weight": torch.cat([attention.to_q.weight, attention.to_kv.weight]),
        "self_attn.in_proj_bias": torch.cat([attention.to_q.bias, attention.to_kv.bias]),
    }
    parts = {
        "self_attn.out_proj": attention.to_out,
        "norm1": block.norm1,
        "norm2": block.norm2,
        "linear1": block.feed_forward[0],
        "linear2": block.feed_forward[2],
    }
    for name, part in parts.items():
        weights |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
    layer.load_state_dict(weights)
    return layer


def fused(fusion: FusionTransformer, tokens: torch.Tensor) -> torch.Tensor:
    """Fusion by PyTorch's own layers."""
    for block in fusion.blocks:
        tokens = torch_layer(block)(tokens)
    return nn.functional.layer_norm(tokens, tokens.shape[-1:], fusion.norm.weight, fusion.norm.bias)


@pytest.mark.parametrize("variant", VARIANTS)
def test_encoder_equals_its_steps(variant) -> None:
    """V_F: the fused tokens that stand at the vertices, X_V = X'_V + E_dep before X_F, lifted."""
    encoder = tiny_identity_encoder(**variant)
    face_tokens, vertices = noise(2, 4, 4, 32), 8 * noise(2, 60, 3)
    tokens = encoder.face_abstractor(face_tokens).flatten(1, 2)
    count = tokens.shape[1]
    if encoder.vertex_encoder is not None:
        shape = encoder.vertex_encoder(vertices)
        tokens = torch.cat([shape.features + depth_code(shape.vertices[..., 2], 64), tokens], dim=1)
        count = shape.features.shape[1]
    expected = encoder.lift(fused(encoder.fusion, tokens)[:, :count])
    torch.testing.assert_close(encoder(face_tokens, vertices), expected, atol=1e-4, rtol=1e-4)


def test_fusion_equals_pytorchs_own_layers() -> None:
    fusion = seeded(FusionTransformer, dim=16, num_layers=3, num_heads=2)
    tokens = noise(2, 7, 16)
    torch.testing.assert_close(fusion(tokens), fused(fusion, tokens), atol=1e-5, rtol=1e-4)


def test_identity_tokens_depend_on_face_and_shape() -> None:
    encoder = tiny_identity_encoder()
    tokens, vertices = noise(1, 4, 4, 32), noise(1, 60, 3)
    out = encoder(tokens, vertices)
    assert (encoder(tokens + 0.1, vertices) - out).abs().max() > 1e-3
    assert (encoder(tokens, vertices + 0.1) - out).abs().max() > 1e-3


def test_identity_tokens_stand_at_the_vertices() -> None:
    encoder = tiny_identity_encoder(num_layers=0)
    tokens, vertices = noise(1, 4, 4, 32), noise(1, 60, 3)
    out = encoder(tokens, vertices)
    assert torch.equal(encoder(tokens + 1.0, vertices), out)
    assert not torch.equal(encoder(tokens, vertices + 1.0), out)


def test_depth_code_is_added() -> None:
    encoder = tiny_identity_encoder()
    tokens, vertices = noise(1, 4, 4, 32), noise(1, 60, 3)
    out = encoder(tokens, vertices)
    for conv in encoder.vertex_encoder.convs:
        torch.nn.init.zeros_(conv.linear.weight)
    nearer = vertices + torch.tensor([0.0, 0.0, 0.05])
    sideways = vertices + torch.tensor([0.05, 0.0, 0.0])
    blind = encoder(tokens, vertices)
    assert not torch.equal(blind, out)
    assert (encoder(tokens, nearer) - blind).abs().max() > 1e-3
    assert torch.equal(encoder(tokens, sideways), blind)


def test_without_vertices_they_are_not_read() -> None:
    encoder = tiny_identity_encoder(use_vertices=False)
    tokens = noise(1, 4, 4, 32)
    assert torch.equal(encoder(tokens, noise(1, 60, 3)), encoder(tokens, noise(1, 60, 3, seed=5)))


def test_bfloat16() -> None:
    out = tiny_identity_encoder().to(torch.bfloat16)(noise(2, 4, 4, 32).bfloat16(), noise(2, 60, 3).bfloat16())
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


def test_save_and_load_carry_the_mesh(tmp_path) -> None:
    encoder = tiny_identity_encoder()
    encoder.save_pretrained(tmp_path)
    loaded = IdentityEncoder.from_pretrained(tmp_path)
    assert loaded.config.topology_hash == "tiny"
    inputs = noise(1, 4, 4, 32), noise(1, 60, 3)
    assert torch.equal(loaded(*inputs), encoder(*inputs))
    assert torch.equal(loaded.vertex_encoder.spirals_0, tiny_hierarchy((60, 20, 7), 5)["spirals"][0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_loading_in_bfloat16_keeps_it_float32(variant, tmp_path) -> None:
    encoder = tiny_identity_encoder(**variant)
    encoder.save_pretrained(tmp_path)
    loaded = IdentityEncoder.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert loaded.state_dict().keys() == encoder.state_dict().keys()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name]), name
        assert value.dtype == encoder.state_dict()[name].dtype, name


def test_refuses_vertices_before_it_has_a_mesh() -> None:
    with pytest.raises(TopologyMismatchError, match="holds no mesh"):
        tiny_identity_encoder(with_mesh=False)(noise(1, 4, 4, 32), noise(1, 60, 3))


def test_refuses_vertices_of_another_mesh() -> None:
    with pytest.raises(TopologyMismatchError, match="61 vertices"):
        tiny_identity_encoder()(noise(1, 4, 4, 32), noise(1, 61, 3))


def convolve(conv: nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    """A convolution of width 3 along the tokens of (B, N, C), zeros beyond the ends, as three matrix products."""
    padded = nn.functional.pad(x, (0, 0, 1, 1))
    count = x.shape[1]
    return conv.bias + sum(padded[:, k : k + count] @ conv.weight[:, :, k].T for k in range(3))


def test_lift_equals_its_steps() -> None:
    lift = seeded(ResConv1D, in_channels=8, out_channels=24)
    tokens = noise(2, 7, 8)
    expected = tokens
    for block in lift:
        h = convolve(block.conv1, nn.functional.silu(block.norm1(expected)))
        h = convolve(block.conv2, nn.functional.silu(block.norm2(h)))
        wider = block.conv2.out_channels != block.conv1.in_channels
        expected = h + (block.skip(expected) if wider else expected)
    assert [block.conv2.out_channels for block in lift] == [8, 8, 8, 24]
    torch.testing.assert_close(lift(tokens), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "tokens", "count"),
    [
        ({}, (12, 192), 2_681_344),
        ({"face_dim": 1024, "grid_size": 24, "pool_factor": 4, "token_dim": 3072}, (24, 1024), 21_656_992),
    ],
)
def test_mini_and_paper_sizes(config, tokens, count) -> None:
    with torch.device("meta"):
        encoder = IdentityEncoder(**config, topology_hash="meta")
        grid, width = tokens
        out = encoder(torch.empty(1, grid, grid, width), torch.empty(1, 5912, 3))
    assert out.shape == (1, 314, encoder.config.token_dim)
    assert sum(p.numel() for p in encoder.parameters()) == count
