"""The released identity encoder: its mesh, its shapes, what it uses of the head."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from fantasyid.core.errors import TopologyMismatchError
from fantasyid.models.released import ReleasedIdentityEncoder, encode_released_depth
from tests.tiny import noise, seeded

LEVELS = (70, 20, 7)
CONFIG: dict[str, Any] = {
    "face_dim": 32,
    "grid_size": 4,
    "pooled_size": 2,
    "conv_dim": 16,
    "widths": (16, 16, 24, 24, 32),
    "num_layers": 2,
    "levels": LEVELS,
    "spiral_length": 5,
}


def hierarchy() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)

    def pooling(rows: int, columns: int) -> tuple[Tensor, Tensor]:
        return torch.randint(columns, (rows, 3), generator=generator), torch.rand(rows, 3, generator=generator)

    return {
        "spirals": [torch.randint(count, (count, 5), generator=generator) for count in LEVELS[:-1]],
        "down": [pooling(coarse, fine) for fine, coarse in pairwise(LEVELS)],
        "up": [pooling(fine, coarse) for fine, coarse in pairwise(LEVELS)],
        "topology_hash": "tiny",
    }


def tiny_encoder(**overrides: Any) -> ReleasedIdentityEncoder:
    encoder: ReleasedIdentityEncoder = seeded(ReleasedIdentityEncoder, **{**CONFIG, **overrides})
    torch.nn.init.normal_(encoder.vertex_encoder.queries, generator=torch.Generator().manual_seed(1))
    return encoder


@pytest.fixture
def encoder() -> ReleasedIdentityEncoder:
    encoder = tiny_encoder()
    encoder.set_hierarchy(**hierarchy())
    return encoder


def test_full_size_has_115_tokens() -> None:
    """61.5 M live parameters, of 188 M that the release has for its identity encoder."""
    with torch.device("meta"):
        encoder = ReleasedIdentityEncoder(topology_hash="flame")
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 61_458_112
    tokens = encoder(torch.zeros(1, 24, 24, 1024, device="meta"), torch.zeros(1, 5023, 3, device="meta"))
    assert tokens.shape == (1, 115, 2048)


def test_only_depth_reaches_the_vertex_tokens(encoder: ReleasedIdentityEncoder) -> None:
    face, vertices = noise(2, 4, 4, 32), 10 * noise(2, 70, 3, seed=1)
    tokens = encoder(face, vertices)
    assert tokens.shape == (2, 4 + 2, 32)
    assert torch.equal(tokens, encoder(face, vertices * torch.tensor([2.0, -1.0, 1.0])))
    deeper = encoder(face, vertices * torch.tensor([1.0, 1.0, 2.0]))
    assert torch.equal(deeper[:, :4], tokens[:, :4])
    assert not torch.allclose(deeper[:, 4:], tokens[:, 4:], atol=1e-3)


def test_samples_are_independent(encoder: ReleasedIdentityEncoder) -> None:
    face, vertices = noise(2, 4, 4, 32), 10 * noise(2, 70, 3, seed=1)
    both = encoder(face, vertices)
    torch.testing.assert_close(both[1:], encoder(face[1:], vertices[1:]))


def test_every_parameter_gets_a_gradient(encoder: ReleasedIdentityEncoder) -> None:
    encoder(noise(2, 4, 4, 32), 10 * noise(2, 70, 3, seed=1)).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_depth_code_by_hand() -> None:
    code = encode_released_depth(torch.tensor([[0.1]]), 4)[0, 0]
    turn = 2 * torch.pi * torch.tensor(0.55)
    expected = torch.stack([turn.sin(), turn.cos(), (turn / 100).sin(), (turn / 100).cos()])
    torch.testing.assert_close(code, expected)


def test_a_head_of_another_mesh_is_refused(encoder: ReleasedIdentityEncoder) -> None:
    with pytest.raises(TopologyMismatchError, match=r"has 69 vertices.* mesh of 70"):
        encoder(noise(1, 4, 4, 32), noise(1, 69, 3))


def test_an_encoder_without_its_mesh_is_refused() -> None:
    with pytest.raises(TopologyMismatchError, match="holds no mesh"):
        tiny_encoder()(noise(1, 4, 4, 32), noise(1, 70, 3))


def test_a_mesh_of_other_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="was built for"):
        tiny_encoder(levels=(70, 20, 8)).set_hierarchy(**hierarchy())


def test_the_mesh_is_saved(encoder: ReleasedIdentityEncoder, tmp_path: Any) -> None:
    encoder.save_pretrained(tmp_path)
    loaded = ReleasedIdentityEncoder.from_pretrained(tmp_path)
    assert loaded.config.topology_hash == "tiny"
    face, vertices = noise(1, 4, 4, 32), 10 * noise(1, 70, 3, seed=1)
    torch.testing.assert_close(loaded(face, vertices), encoder(face, vertices))


def test_bfloat16_leaves_the_vertex_encoder_as_it_is(encoder: ReleasedIdentityEncoder, tmp_path: Any) -> None:
    encoder.save_pretrained(tmp_path)
    loaded = ReleasedIdentityEncoder.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    for name, tensor in encoder.vertex_encoder.state_dict().items():
        assert torch.equal(loaded.vertex_encoder.state_dict()[name], tensor), name
    assert {p.dtype for part in (loaded.face_abstractor, loaded.reducer) for p in part.parameters()} == {torch.bfloat16}
    face, vertices = noise(1, 4, 4, 32), 10 * noise(1, 70, 3, seed=1)
    tokens, expected = loaded(face.to(torch.bfloat16), vertices), encoder(face, vertices)
    assert tokens.dtype == torch.bfloat16
    assert (tokens - expected).norm() < 2e-2 * expected.norm()
