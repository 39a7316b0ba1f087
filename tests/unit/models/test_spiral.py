"""Spiral convolution, mesh pooling, the spiral encoder and the depth code."""

import math

import pytest
import torch

from fantasyid.models.depth_encoding import encode_depth
from fantasyid.models.spiral import SpiralConv, SpiralEncoder, pool_vertices
from tests.tiny import noise, seeded, tiny_hierarchy

LEVELS = (30, 12, 5)


def tiny_encoder() -> SpiralEncoder:
    encoder = seeded(SpiralEncoder, levels=LEVELS, spiral_length=4, channels=(8, 16, 24))
    hierarchy = tiny_hierarchy(LEVELS, 4)
    encoder.set_hierarchy(hierarchy["spirals"], hierarchy["down"], hierarchy["template"])
    return encoder


def test_spiral_convolution_equals_a_loop() -> None:
    conv = seeded(SpiralConv, in_channels=3, out_channels=7, spiral_length=4)
    x = noise(2, 10, 3)
    spirals = torch.randint(10, (10, 4), generator=torch.Generator().manual_seed(0))
    out = conv(x, spirals)
    for sample in range(2):
        for vertex in range(10):
            neighbours = torch.cat([x[sample, index] for index in spirals[vertex].tolist()])
            expected = conv.linear.weight @ neighbours + conv.linear.bias
            torch.testing.assert_close(out[sample, vertex], expected)


def test_pooling_equals_a_dense_matrix() -> None:
    indices, weights = tiny_hierarchy((30, 12), 4)["down"][0]
    dense = torch.zeros(12, 30)
    for row in range(12):
        for index, weight in zip(indices[row].tolist(), weights[row].tolist(), strict=True):
            dense[row, index] += weight
    x = noise(2, 30, 5)
    torch.testing.assert_close(pool_vertices(x, indices, weights), dense @ x)


def test_encoder_pools_features_and_vertices() -> None:
    vertices = noise(2, 30, 3)
    before = vertices.clone()
    encoder = tiny_encoder()
    shape = encoder(vertices)
    assert shape.features.shape == (2, 5, 24)
    pooled = pool_vertices(vertices, encoder.down_indices_0, encoder.down_weights_0)
    pooled = pool_vertices(pooled, encoder.down_indices_1, encoder.down_weights_1)
    assert torch.equal(shape.vertices, pooled)
    assert torch.equal(vertices, before)


def test_encoder_equals_its_steps() -> None:
    encoder, hierarchy = tiny_encoder(), tiny_hierarchy(LEVELS, 4)
    vertices = noise(2, 30, 3)
    x = torch.cat([vertices / 10.0, (vertices - hierarchy["template"]) / 0.5], dim=-1)
    x = encoder.convs[0](x, hierarchy["spirals"][0])
    x = torch.where(x > 0, x, x.exp() - 1)
    x = encoder.convs[1](pool_vertices(x, *hierarchy["down"][0]), hierarchy["spirals"][1])
    x = torch.where(x > 0, x, x.exp() - 1)
    x = encoder.convs[2](pool_vertices(x, *hierarchy["down"][1]), hierarchy["spirals"][2])
    torch.testing.assert_close(encoder(vertices).features, x)


def test_encoder_rejects_a_hierarchy_of_another_size() -> None:
    hierarchy = tiny_hierarchy((30, 12, 6), 4)
    with pytest.raises(ValueError, match="the mesh hierarchy has arrays"):
        tiny_encoder().set_hierarchy(hierarchy["spirals"], hierarchy["down"], hierarchy["template"])


def test_depth_code_equals_its_formula() -> None:
    depth = torch.tensor([[-7.25, 0.0, 11.5]])
    code = encode_depth(depth, 8)
    assert code.shape == (1, 3, 8)
    for vertex, z in enumerate(depth[0].tolist()):
        for i in range(4):
            angle = 10 * z / 10000 ** (i / 4)  # depth counts in millimetres
            assert code[0, vertex, i].item() == pytest.approx(math.sin(angle), abs=2e-5)
            assert code[0, vertex, 4 + i].item() == pytest.approx(math.cos(angle), abs=2e-5)
