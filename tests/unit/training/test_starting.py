"""A stage starts from the network its preset describes, or not at all: every ablation of Table 3 can be trained."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from fantasyid.core.errors import InvalidRequestError
from fantasyid.geometry.head_model import HeadModel
from fantasyid.training.__main__ import _identity_encoder, _only_pool, _transformer
from fantasyid.training.config import StageConfig
from tests.tiny import BASE_CONFIG, IDENTITY_CONFIG, noise, tiny_transformer

ENCODER = {"face_dim": 32, "grid_size": 4, "hidden_dim": 64, "num_layers": 2, "spiral_channels": [8, 16]}
OPTIMISER = {"steps": 1, "minutes": 1, "batch_size": 1, "learning_rate": 1e-3}


def stage(encoder: dict[str, Any] | None = None, **model: Any) -> StageConfig:
    fields = {**BASE_CONFIG, **IDENTITY_CONFIG, **model}
    objective = {"identity_encoder": {**ENCODER, **(encoder or {})}}
    return StageConfig.model_validate({"optimiser": OPTIMISER, "model": fields, "objective": objective})


@pytest.fixture
def base(tmp_path: Path) -> Namespace:
    """The result of a stage before the identity's."""
    tiny_transformer(identity_token_dim=None, injection_dim=None, injection_heads=None).save_pretrained(
        tmp_path / "transformer"
    )
    return Namespace(init=tmp_path, encoder=None)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"use_layer_aware": False},
        {"injection_interval": 2},
        {"injection_query_dim": 8},
        {"injection_kind": "released", "use_layer_aware": False},
    ],
)
def test_the_injection_added_to_a_base_is_the_presets(base: Namespace, fields: dict[str, Any]) -> None:
    transformer = _transformer(stage(**fields), base)
    assert {name: transformer.config[name] for name in fields} == fields
    assert transformer.config.identity_token_dim == 24
    names = [name for name, _ in transformer.named_parameters()]
    assert ("injection_gain" in names) == (fields == {"use_layer_aware": False})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_layers": 10}, r"num_layers: 10 \(3 there\)"),
        ({"text_embed_dim": 384, "sample_frames": 17}, r"text_embed_dim: 384 \(20 there\), sample_frames: 17"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_base_that_is_not_the_presets_is_refused(base: Namespace, fields: dict[str, Any], message: str) -> None:
    with pytest.raises((InvalidRequestError, TypeError), match=message):
        _transformer(stage(**fields), base)


def test_an_injection_that_is_not_the_presets_is_refused(tmp_path: Path) -> None:
    tiny_transformer().save_pretrained(tmp_path / "transformer")
    assert _transformer(stage(), Namespace(init=tmp_path, encoder=None)).config.use_layer_aware
    with pytest.raises(InvalidRequestError, match=r"use_layer_aware: False \(True there\)"):
        _transformer(stage(use_layer_aware=False), Namespace(init=tmp_path, encoder=None))


@pytest.mark.parametrize("encoder", [{}, {"use_vertices": False}, {"abstractor": "q-former"}])
def test_every_encoder_of_the_table_computes_and_gets_gradients(encoder: dict[str, Any]) -> None:
    head = HeadModel.load()
    model = _identity_encoder(stage(encoder), Namespace(init=None, encoder=None), head)
    tokens = model(noise(1, 4, 4, 32), head.mean[None])
    tokens.square().mean().backward()
    assert torch.isfinite(tokens).all()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert (model.vertex_encoder is None) == (encoder == {"use_vertices": False})


def test_a_stage_of_one_pool_refuses_several() -> None:
    assert _only_pool(Namespace(stage="vision", pool=[Path("pairs")])) == Path("pairs")
    with pytest.raises(InvalidRequestError, match="The stage vision takes one folder with --pool, not 2"):
        _only_pool(Namespace(stage="vision", pool=[Path("pairs"), Path("clips")]))


def test_a_trained_encoder_goes_on(tmp_path: Path) -> None:
    head = HeadModel.load()
    trained = _identity_encoder(stage(), Namespace(init=None, encoder=None), head)
    trained.save_pretrained(tmp_path / "identity_encoder")
    loaded = _identity_encoder(stage(), Namespace(init=tmp_path, encoder=None), head)
    weight = next(iter(trained.parameters()))
    assert torch.equal(next(iter(loaded.parameters())), weight)
    taught = Namespace(init=None, encoder=tmp_path)
    assert torch.equal(next(_identity_encoder(stage(), taught, head).parameters()), weight)
    with pytest.raises(InvalidRequestError, match=r"hidden_dim: 128 \(64 there\)"):
        _identity_encoder(stage({"hidden_dim": 128}), Namespace(init=tmp_path, encoder=None), head)
