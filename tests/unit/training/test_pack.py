"""The model that ships is made of the trained networks, and samples as it was trained."""

from pathlib import Path

import torch

from fantasyid.checkpoints.builtin import load_builtin
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.commands import run
from tests.tiny_pipeline import tiny_pipeline

PARTS = {
    "transformer": "transformer",
    "identity-encoder": "identity_encoder",
    "vae": "vae",
    "vision": "face_vision",
    "reader": "face_reader_model",
}


def test_the_trained_networks_are_packed_and_guidance_drops_the_person(tmp_path: Path) -> None:
    """Training drops reference and identity together with the text, so guidance's negative branch has neither."""
    trained = tiny_pipeline()
    arguments = ["train", "pack", "--out", str(tmp_path / "packed"), "--storage", "float16"]
    for option, name in PARTS.items():
        getattr(trained, name).save_pretrained(tmp_path / name)
        arguments += [f"--{option}", str(tmp_path / name)]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    text = {"tokenizer": trained.tokenizer, "text_encoder": trained.text_encoder}
    packed = FantasyIDPipeline(**load_builtin(tmp_path / "packed", **text))
    for name in PARTS.values():
        found = getattr(packed, name).state_dict()
        for key, weight in getattr(trained, name).state_dict().items():
            torch.testing.assert_close(found[key], weight, atol=1e-3, rtol=1e-3)
    assert packed.config.guidance_drops_identity is True
    assert packed.scheduler.config.prediction_type == "v_prediction"
    assert packed.scheduler.config.rescale_betas_zero_snr is True
