"""The released variant against what the authors' own code computed; docs/released-checkpoint.md says how."""

import inspect
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from PIL import Image
from torch import Tensor

from fantasyid.checkpoints.released.convert import convert_release, released_hierarchy
from fantasyid.checkpoints.released.weights import ReleasedNetworks, build_released
from fantasyid.conditioning.identity import IdentityInputs
from fantasyid.core.imaging import to_tensor
from fantasyid.geometry.spirals import released_spiral_indices
from fantasyid.geometry.topology import MeshTopology
from fantasyid.geometry.transform_pickle import load_transform_pickle
from fantasyid.models.eva_vision import EvaVisionModel
from fantasyid.models.kernels.attention_kernels import use_attention
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
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


def test_transformer_with_a_chosen_kernel(networks: ReleasedNetworks, golden: dict[str, Any]) -> None:
    transformer = deepcopy(networks.transformer)
    use_attention(transformer, "native")
    tokens = identity_tokens(networks).expand(2, -1, -1)
    prediction = predict(replace(networks, transformer=transformer), torch.float32, identity_tokens=tokens)
    assert error(prediction, golden["transformer"]) < 1e-5


def two_steps(pipeline: FantasyIDPipeline) -> Tensor:
    """The golden request's latents."""
    pipeline.set_progress_bar_config(disable=True)
    inputs = golden_inputs()
    stretched = reference_picture().resize((720, 480), Image.Resampling.LANCZOS)
    person = IdentityInputs(
        reference_image=to_tensor(np.asarray(stretched)),
        face_crop=inputs["face_crop"],
        vertices=inputs["vertices_cm"],
        topology_hash=pipeline.identity_encoder.config.topology_hash,
    )
    latents: Tensor = pipeline(
        PROMPT,
        identity_inputs=person,
        num_inference_steps=2,
        latents=inputs["latents"],
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).frames
    return latents


def test_two_steps_of_the_converted_pipeline(release: Path, golden: dict[str, Any], tmp_path: Path) -> None:
    convert_release(release, tmp_path / "converted")
    latents = two_steps(FantasyIDPipeline.from_pretrained(tmp_path / "converted"))
    assert latents.dtype == torch.float32
    assert error(latents, golden["latents"]) < 1e-4


def rounds_as_the_golden_values(golden: dict[str, Any]) -> bool:
    """Whether this machine adds bfloat16 numbers in the order of the one that the golden values come from.

    Diffusers' own transformer tells, not ours. On other machines two steps of the authors' code are no nearer to the
    golden ones than any other rounding is.
    """
    fields = inspect.signature(CogVideoXTransformer3DModel.__init__).parameters
    base = CogVideoXTransformer3DModel(**{name: v for name, v in TRANSFORMER_CONFIG.items() if name in fields})
    weights = released_weights()
    base.load_state_dict({name: weights[name] for name in base.state_dict()})
    inputs = golden_inputs()
    with torch.no_grad():
        prediction = base.to(torch.bfloat16)(
            inputs["hidden_states"].to(torch.bfloat16),
            inputs["encoder_hidden_states"].to(torch.bfloat16),
            inputs["timestep"],
            image_rotary_emb=inputs["image_rotary_emb"],
        ).sample
    return error(prediction, golden["base_bfloat16"]) == 0


def draws_as_the_golden_values() -> bool:
    """Whether PyTorch draws the noise of the scheduler's steps as 2.13 does; 2.8 draws other bfloat16 numbers."""
    first = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.bfloat16)[0]
    return float(first) == -1.125


@pytest.fixture
def bfloat16_pipeline(tmp_path: Path) -> FantasyIDPipeline:
    convert_release(write_release(tmp_path / "release", torch.bfloat16), tmp_path / "converted")
    pipeline: FantasyIDPipeline = FantasyIDPipeline.from_pretrained(
        tmp_path / "converted",
        torch_dtype=torch.bfloat16,
        # The authors' code was given the tokens of a float32 net.
        face_vision=EvaVisionModel.from_pretrained(tmp_path / "converted" / "face_vision"),
    )
    return pipeline


def test_bfloat16(golden: dict[str, Any], bfloat16_pipeline: FantasyIDPipeline) -> None:
    pipeline = bfloat16_pipeline
    networks = ReleasedNetworks(pipeline.transformer, pipeline.identity_encoder, ())
    inputs = golden_inputs()
    with torch.no_grad():
        tokens = pipeline.identity_encoder(inputs["face_tokens"].to(torch.bfloat16), inputs["vertices_cm"])
    assert error(tokens, golden["identity_tokens_bfloat16"]) < 2e-2
    prediction = predict(networks, torch.bfloat16, identity_tokens=tokens.expand(2, -1, -1))
    assert error(prediction, golden["transformer_bfloat16"]) < 2e-2


@pytest.mark.skipif(not draws_as_the_golden_values(), reason="this PyTorch draws other noise from the same seed")
def test_two_steps_in_bfloat16(golden: dict[str, Any], bfloat16_pipeline: FantasyIDPipeline) -> None:
    latents = two_steps(bfloat16_pipeline)
    assert latents.dtype == torch.bfloat16
    # Guidance of 6 multiplies rounding: the authors' own bfloat16 is 4e-2 from their float32.
    assert error(latents, golden["latents_bfloat16"]) < (2e-2 if rounds_as_the_golden_values(golden) else 8e-2)
