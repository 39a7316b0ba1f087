"""The paper's identity encoder and its ablations."""

import pytest
import torch

from fantasyid.core.errors import TopologyMismatchError
from fantasyid.models.fusion import ResConv1D
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


def test_lift_has_four_blocks_and_keeps_the_tokens() -> None:
    lift = seeded(ResConv1D, in_channels=8, out_channels=24)
    assert len(lift) == 4
    assert lift(noise(2, 7, 8)).shape == (2, 7, 24)


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
