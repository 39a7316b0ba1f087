"""A stage starts from the network its preset describes, or not at all: every ablation of Table 3 can be trained."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fantasyid.core.errors import FantasyIDError, InvalidRequestError
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.vision import FaceVisionModel
from fantasyid.training import networks
from fantasyid.training.config import IdentityEncoderConfig, TransformerConfig, VisionConfig
from fantasyid.training.stages import StageInputs, _check_enough, _check_mean
from tests.tiny import BASE_CONFIG, IDENTITY_CONFIG, noise, tiny_transformer

ENCODER = {"face_dim": 32, "grid_size": 4, "hidden_dim": 64, "num_layers": 2, "spiral_channels": [8, 16]}


def model(**changes: Any) -> TransformerConfig:
    return TransformerConfig(**{**BASE_CONFIG, **IDENTITY_CONFIG, **changes})


def encoder_of(taught: Path | None = None, init: Path | None = None, **changes: Any) -> IdentityEncoder:
    return networks.identity_encoder(IdentityEncoderConfig(**{**ENCODER, **changes}), 24, taught, init)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The result of a stage before the identity's."""
    tiny_transformer(identity_token_dim=None, injection_dim=None, injection_heads=None).save_pretrained(
        tmp_path / "transformer"
    )
    return tmp_path


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"injection_kind": "paper_without_layers"},
        {"injection_interval": 2},
        {"injection_query_dim": 8},
        {"injection_kind": "released"},
    ],
)
def test_the_injection_added_to_a_base_is_the_presets(base: Path, fields: dict[str, Any]) -> None:
    transformer = networks.transformer(model(**fields), base)
    assert {name: transformer.config[name] for name in fields} == fields
    assert transformer.config.identity_token_dim == 24
    names = [name for name, _ in transformer.named_parameters()]
    assert ("injection_gain" in names) == (fields == {"injection_kind": "paper_without_layers"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_layers": 10}, r"num_layers: 10 \(3 there\)"),
        ({"text_embed_dim": 384, "sample_frames": 17}, r"text_embed_dim: 384 \(20 there\), sample_frames: 17"),
    ],
)
def test_a_base_that_is_not_the_presets_is_refused(base: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        networks.transformer(model(**fields), base)


def test_an_injection_that_is_not_the_presets_is_refused(tmp_path: Path) -> None:
    tiny_transformer().save_pretrained(tmp_path / "transformer")
    assert networks.transformer(model(), tmp_path).config.injection_kind == "paper"
    with pytest.raises(InvalidRequestError, match=r"injection_kind: paper_without_layers \(paper there\)"):
        networks.transformer(model(injection_kind="paper_without_layers"), tmp_path)


@pytest.mark.parametrize("encoder", [{}, {"use_vertices": False}, {"abstractor": "q-former"}])
def test_every_encoder_of_the_table_computes_and_gets_gradients(encoder: dict[str, Any]) -> None:
    head = HeadModel.load()
    network = encoder_of(**encoder)
    tokens = network(noise(1, 4, 4, 32), head.mean[None])
    tokens.square().mean().backward()
    assert torch.isfinite(tokens).all()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert (network.vertex_encoder is None) == (encoder == {"use_vertices": False})


def test_a_stage_of_one_pool_refuses_several() -> None:
    assert StageInputs((Path("pairs"),), Path("out"), "cpu").only_pool("vision") == Path("pairs")
    with pytest.raises(InvalidRequestError, match="The stage vision takes one folder with --pool, not 2"):
        StageInputs((Path("pairs"), Path("clips")), Path("out"), "cpu").only_pool("vision")


def test_a_batch_larger_than_what_it_is_drawn_from_is_refused() -> None:
    _check_enough(4, {"clips in the pool": 4})
    with pytest.raises(InvalidRequestError, match="A batch needs 5 clips in the pool, and there are 4; make more"):
        _check_enough(5, {"clips in the pool": 4})


def test_a_mean_of_one_person_is_refused() -> None:
    _check_mean(encoder_of(centre=True), 2)
    _check_mean(encoder_of(), 1)
    with pytest.raises(InvalidRequestError, match="the preset leaves one at a time; raise batch_size, or lower accum"):
        _check_mean(encoder_of(centre=True), 1)


def test_networks_whose_sizes_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"The preset's model cannot be built \(patch_size 7 must be"):
        networks.build(FaceVisionModel, VisionConfig(patch_size=7).model_dump())


def test_a_trained_encoder_goes_on(tmp_path: Path) -> None:
    trained = encoder_of()
    trained.save_pretrained(tmp_path / "identity_encoder")
    weight = next(iter(trained.parameters()))
    assert torch.equal(next(iter(encoder_of(init=tmp_path).parameters())), weight)
    assert torch.equal(next(iter(encoder_of(taught=tmp_path).parameters())), weight)
    with pytest.raises(InvalidRequestError, match=r"hidden_dim: 128 \(64 there\)"):
        encoder_of(init=tmp_path, hidden_dim=128)


def test_what_was_not_taught_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(FantasyIDError, match="identity_encoder"):
        encoder_of(taught=tmp_path)
    assert encoder_of(init=tmp_path).config.topology_hash is not None


def test_a_field_that_the_preset_leaves_out_has_its_default_and_is_compared(tmp_path: Path) -> None:
    """A run of the ablation does not go on as the whole method because nobody said which it is."""
    tiny_transformer(injection_kind="paper_without_layers").save_pretrained(tmp_path / "transformer")
    with pytest.raises(InvalidRequestError, match=r"injection_kind: paper \(paper_without_layers there\)"):
        networks.transformer(model(), tmp_path)
