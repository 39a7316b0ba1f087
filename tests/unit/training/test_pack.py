"""The model that ships is made of the trained networks, and samples as it was trained."""

from pathlib import Path

import numpy as np
import torch
import yaml

from fantasyid.checkpoints.builtin import load_builtin
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from fantasyid.training.network_config import IdentityEncoderConfig, TransformerConfig
from tests.commands import refusal, run
from tests.tiny import noise
from tests.tiny_pipeline import tiny_pipeline

PARTS = {
    "transformer": "transformer",
    "identity-encoder": "identity_encoder",
    "vae": "vae",
    "vision": "face_vision",
    "reader": "face_reader_model",
}


def pack(folder: Path, trained: FantasyIDPipeline, storage: str) -> None:
    arguments = ["train", "pack", "--out", str(folder / "packed"), "--storage", storage]
    for option, name in PARTS.items():
        getattr(trained, name).save_pretrained(folder / name)
        arguments += [f"--{option}", str(folder / name)]
    result = run(*arguments)
    assert result.exit_code == 0, result.output


def test_the_trained_networks_are_packed_and_guidance_drops_the_person(tmp_path: Path) -> None:
    """Training drops reference and identity together with the text, so guidance's negative branch has neither."""
    trained = tiny_pipeline()
    pack(tmp_path, trained, "float16")
    text = {"tokenizer": trained.tokenizer, "text_encoder": trained.text_encoder}
    packed = FantasyIDPipeline(**load_builtin(tmp_path / "packed", **text))
    for name in PARTS.values():
        found = getattr(packed, name).state_dict()
        for key, weight in getattr(trained, name).state_dict().items():
            torch.testing.assert_close(found[key], weight, atol=1e-3, rtol=1e-3)
    assert packed.config.guidance_drops_identity is True
    assert packed.scheduler.config.prediction_type == "v_prediction"
    assert packed.scheduler.config.rescale_betas_zero_snr is True


def write_pool(folder: Path) -> None:
    folder.mkdir()
    arrays = {
        "clips": noise(4, 3, 4, 4, 4),
        "reference": noise(4, 1, 4, 4, 4),
        "face_tokens": noise(4, 4, 4, 32),
        "identity": noise(4, 60, 3),
        "text": noise(4, 12, 20),
        "null_text": noise(1, 12, 20),
    }
    for name, array in arrays.items():
        np.save(folder / f"latent_{name}.npy", array.half().numpy())


def test_what_is_packed_is_trained_further(tmp_path: Path) -> None:
    """It starts from what int8 left of the weights, all that it has are trained, and it is packed again."""
    trained = tiny_pipeline()
    pack(tmp_path, trained, "int8")
    unpack = ("train", "unpack", "--weights", tmp_path / "packed", "--out", tmp_path / "shipped")
    assert run(*unpack).exit_code == 0
    text = {"tokenizer": trained.tokenizer, "text_encoder": trained.text_encoder}
    shipped = FantasyIDPipeline(**load_builtin(tmp_path / "packed", **text))
    again = type(shipped.transformer).from_pretrained(tmp_path / "shipped" / "transformer")
    weights = again.state_dict()
    assert all(torch.equal(weights[key], weight) for key, weight in shipped.transformer.state_dict().items())
    kept = {
        "model": (TransformerConfig, shipped.transformer.config),
        "identity_encoder": (IdentityEncoderConfig, shipped.identity_encoder.config),
    }
    fields = {
        name: {key: config[key] for key in of.model_fields if key in config} for name, (of, config) in kept.items()
    }
    preset = {
        "optimiser": {"steps": 2, "batch_size": 2, "learning_rate": 0.01},
        "objective": {"identity_encoder": fields["identity_encoder"], "shape_noise": 0.0},
        "model": fields["model"],
    }
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(preset))
    write_pool(tmp_path / "pool")
    words = ["--config", tmp_path / "preset.yaml", "--pool", tmp_path / "pool", "--device", "cpu"]
    result = run("train", "clips", *words, "--init", tmp_path / "shipped", "--out", tmp_path / "further")
    assert result.exit_code == 0, result.output
    further = type(again).from_pretrained(tmp_path / "further" / "result" / "transformer").state_dict()
    moved = [key for key, weight in weights.items() if not torch.equal(weight, further[key])]
    assert len(moved) > 0.9 * len(weights)
    assert all((weights[key] - further[key]).abs().max() < 0.05 for key in moved)
    assert "shipped is a folder; choose another name" in refusal(*unpack)
    assert "holds no packed network" in refusal(
        "train", "unpack", "--weights", tmp_path / "pool", "--out", tmp_path / "none"
    )
