"""The released variant against what the authors' own code computed; docs/released-checkpoint.md says how."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fantasyid.conditioning.identity import IdentityInputs
from fantasyid.core.imaging import to_tensor
from fantasyid.geometry.spirals import released_spiral_indices
from fantasyid.geometry.topology import MeshTopology
from fantasyid.geometry.transform_pickle import load_transform_pickle
from fantasyid.pipelines.convert import convert_release, released_hierarchy
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from fantasyid.pipelines.released_weights import ReleasedNetworks, build_released
from tests.tiny_release import (
    GOLDEN,
    LEVELS,
    PROMPT,
    TRANSFORMER_CONFIG,
    golden_inputs,
    reference_picture,
    released_weights,
    write_release,
)


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return dict(np.load(GOLDEN / "released.npz"))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def networks(release: Path) -> ReleasedNetworks:
    built = build_released(released_weights(), TRANSFORMER_CONFIG, LEVELS, 9)
    heads = load_transform_pickle(release / "assets" / "transform.pkl")
    built.identity_encoder.set_hierarchy(**released_hierarchy(heads))
    return built


def error(result: Tensor, expected: Any) -> float:
    """Relative error in the 2-norm; a whole picture is compared where the golden value keeps it, every 6th row and
    9th column."""
    expected = torch.from_numpy(expected)
    if result.shape != expected.shape:
        result = result[..., ::6, ::9]
    return float((result.float() - expected).norm() / expected.norm())


def predict(networks: ReleasedNetworks, dtype: torch.dtype, **identity: Any) -> Tensor:
    """One forward of the transformer on the golden inputs."""
    inputs = golden_inputs()
    with torch.no_grad():
        prediction: Tensor = networks.transformer(
            inputs["hidden_states"].to(dtype),
            inputs["encoder_hidden_states"].to(dtype),
            inputs["timestep"],
            image_rotary_emb=inputs["image_rotary_emb"],
            **identity,
        ).sample
    return prediction


def identity_tokens(networks: ReleasedNetworks) -> Tensor:
    inputs = golden_inputs()
    with torch.no_grad():
        tokens: Tensor = networks.identity_encoder(inputs["face_tokens"], inputs["vertices_cm"])
    return tokens


def test_spirals(release: Path, golden: dict[str, Any]) -> None:
    heads = load_transform_pickle(release / "assets" / "transform.pkl")
    for level in (0, 1):
        topology = MeshTopology(heads.triangles[level], LEVELS[level])
        spirals = released_spiral_indices(topology, heads.vertices[level], 9)
        assert (spirals == golden[f"spirals_{level}"]).all()


def test_identity_tokens(networks: ReleasedNetworks, golden: dict[str, Any]) -> None:
    assert error(identity_tokens(networks), golden["identity_tokens"]) < 1e-5


def test_transformer_with_keys_and_values_computed_once(networks: ReleasedNetworks, golden: dict[str, Any]) -> None:
    tokens = identity_tokens(networks).expand(2, -1, -1)
    prediction = predict(networks, torch.float32, identity_tokens=tokens)
    assert error(prediction, golden["transformer"]) < 1e-5
    once = networks.transformer.project_identity(tokens)
    assert torch.equal(prediction, predict(networks, torch.float32, identity_key_values=once))
    assert error(predict(networks, torch.float32), golden["transformer"]) > 0.1


def test_transformer_in_bfloat16(golden: dict[str, Any]) -> None:
    built = build_released(released_weights(), TRANSFORMER_CONFIG, LEVELS, 9)
    built.transformer.to(torch.bfloat16)
    tokens = torch.from_numpy(golden["identity_tokens"]).to(torch.bfloat16).expand(2, -1, -1)
    assert error(predict(built, torch.bfloat16, identity_tokens=tokens), golden["transformer"]) < 2e-2


def test_two_steps_of_the_converted_pipeline(release: Path, golden: dict[str, Any], tmp_path: Path) -> None:
    convert_release(release, tmp_path / "converted")
    pipeline = FantasyIDPipeline.from_pretrained(tmp_path / "converted")
    pipeline.set_progress_bar_config(disable=True)
    inputs = golden_inputs()
    stretched = reference_picture().resize((720, 480), Image.Resampling.LANCZOS)
    person = IdentityInputs(
        reference_image=to_tensor(np.asarray(stretched)),
        face_crop=inputs["face_crop"],
        vertices=inputs["vertices_cm"],
        topology_hash=pipeline.identity_encoder.config.topology_hash,
    )
    latents = pipeline(
        PROMPT,
        identity_inputs=person,
        num_inference_steps=2,
        latents=inputs["latents"],
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).frames
    assert error(latents, golden["latents"]) < 1e-4
