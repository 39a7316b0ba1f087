"""What is stopped and resumed gives what an unbroken run would, bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.repose.prepare import _save
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.vision import FaceVisionModel
from fantasyid.training.checkpoint import Checkpoints
from fantasyid.training.config_files import load_stage
from fantasyid.training.stages import StageInputs
from fantasyid.training.stages import train as train_stage
from tests.kills import contents
from tests.tiny import BASE_CONFIG, noise, seeded
from tests.unit.data.conftest import _photo

CLIPS = 8
VISION = {"image_size": 96, "patch_size": 32, "width": 32, "num_layers": 1, "num_heads": 2, "embedding_dim": 8}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of noise and their latents; the fields a tested stage does not look at are next to nothing."""
    folder = tmp_path_factory.mktemp("pool")
    large, small = (3, 32, 32), (3, 96, 96)
    shapes = {"clips": (2, *large), "reference": large, "face": small, "frame_face": small, "neutral_face": small}
    draw = np.random.default_rng(0)
    arrays = {name: draw.integers(0, 256, (CLIPS, *shape), np.uint8) for name, shape in shapes.items()}
    latents = {"clips": (3, 4, 6, 4), "reference": (1, 4, 6, 4), "text": (6, 20)}
    arrays |= {f"latent_{name}": noise(CLIPS, *shape).half().numpy() for name, shape in latents.items()}
    arrays["latent_null_text"] = noise(1, 6, 20).half().numpy()
    arrays["identity"] = draw.normal(size=(CLIPS, len(HeadModel.load().identity_basis))).astype(np.float16)
    unused = ("latent_identity", "latent_face_tokens")
    for name, array in (arrays | dict.fromkeys(unused, np.zeros((CLIPS, 1)))).items():
        np.save(folder / f"{name}.npy", array)
    (folder / "captions.json").write_text(json.dumps(["somebody"] * CLIPS))
    return folder


def stage_of(name: str, folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """The model of a preset, its batch size and objective, and what else the stage reads."""
    if name == "clips":
        return {"model": {**BASE_CONFIG, "dropout": 0.1}, "optimiser": {"batch_size": 2}}, {}
    if name == "vision":
        head = HeadModel.load()
        _save(folder / "rigs.npz", [_photo(head, place) for place in range(2)], head)
        fields = {"model": VISION, "objective": {"real_share": 0.25}, "optimiser": {"batch_size": 4}}
        return fields, {"rigs": folder / "rigs.npz"}
    seeded(FaceVisionModel, **VISION).save_pretrained(folder / "vision")
    vision = {"vision": folder / "vision"}
    if name == "encoder":
        encoder = {"face_dim": 32, "grid_size": 3, "pool_factor": 3, "hidden_dim": 64, "num_layers": 1}
        encoder |= {"spiral_channels": [8, 16], "centre": True}
        fields = {"model": {"identity_token_dim": 24}, "objective": {"identity_encoder": encoder}}
        return {**fields, "optimiser": {"batch_size": 4}}, vision
    kinds = {"down_block_types": ["CogVideoXDownBlock3D"] * 2, "up_block_types": ["CogVideoXUpBlock3D"] * 2}
    sizes = {"block_out_channels": [8, 8], "norm_num_groups": 4, "latent_channels": 4, "layers_per_block": 1}
    model = {**kinds, **sizes, "sample_height": 32, "sample_width": 32, "temporal_compression_ratio": 1}
    return {"model": model, "optimiser": {"batch_size": 4}}, vision


@pytest.fixture
def train(pool: Path, tmp_path: Path) -> Callable[[str, str, int], dict[str, Any]]:
    """Train a stage in a folder up to a number of steps, at an even learning rate; the checkpoint it leaves."""

    def call(name: str, out: str, steps: int, **changes: Any) -> dict[str, Any]:
        fields, others = stage_of(name, tmp_path)
        for part, change in changes.items():
            fields[part] = {**fields.get(part, {}), **change} if isinstance(change, dict) else change
        even = {"steps": steps, "learning_rate": 0.01, "warmup_steps": 0, "cooldown": 0.01}
        preset = tmp_path / f"{name}-{steps}.yaml"
        preset.write_text(yaml.safe_dump({"seed": 3, **fields, "optimiser": {**even, **fields["optimiser"]}}))
        folder = tmp_path / out
        train_stage(load_stage(preset, name), StageInputs((pool,), folder, "cpu", **others))
        loaded = Checkpoints(folder).load()
        assert loaded is not None
        return {"step": loaded[0].step, **dict(loaded[1])}

    return call


@pytest.mark.dropout
@pytest.mark.parametrize("name", ["clips", "vision", "vae", "encoder"])
def test_a_stage_stopped_and_resumed_equals_an_unbroken_one(
    name: str, train: Callable[[str, str, int], dict[str, Any]]
) -> None:
    whole = train(name, "whole", 2)
    half = train(name, "broken", 1)
    assert half["step"] == 1
    torch.manual_seed(99)  # what else the process did in between does not matter
    resumed = train(name, "broken", 2)
    assert resumed.pop("step") == whole.pop("step") == 2
    assert resumed.keys() == whole.keys()
    moved = {key.partition("/")[0] for key, tensor in whole.items() if not torch.equal(tensor, half[key])}
    assert moved >= {"weight", "average", "exp_avg", "exp_avg_sq", "step"}
    assert [key for key, tensor in whole.items() if not torch.equal(tensor, resumed[key])] == []


@pytest.mark.dropout
def test_the_config_is_kept_and_only_more_steps_go_on(train: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    train("clips", "run", 1)
    kept = load_stage(tmp_path / "run" / "config.yaml", "clips")
    assert kept == load_stage(tmp_path / "clips-1.yaml", "clips")
    weights = contents(tmp_path / "run" / "checkpoints")
    for change, name, before, asked in (
        ({"optimiser": {"weight_decay": 0.5}}, "optimiser.weight_decay", "0.01", "0.5"),
        ({"model": {"num_layers": 10}}, "model.num_layers", "3", "10"),
        ({"objective": {"drop_text": 0.2}}, "objective.drop_text", "0.1", "0.2"),
        ({"seed": 4}, "seed", "3", "4"),
    ):
        words = f"begun with {name}: {before}, and the preset says {asked}; go on with the same .*, or begin .* --out"
        with pytest.raises(InvalidRequestError, match=words):
            train("clips", "run", 1, **change)
    assert contents(tmp_path / "run" / "checkpoints") == weights
    assert load_stage(tmp_path / "run" / "config.yaml", "clips") == kept
    assert train("clips", "run", 2)["step"] == 2
    assert load_stage(tmp_path / "run" / "config.yaml", "clips").optimiser.steps == 2
    with pytest.raises(InvalidRequestError, match=r"optimiser.steps: 2, and the preset says 1"):
        train("clips", "run", 1)


@pytest.mark.dropout
def test_a_checkpoint_without_its_config_is_refused(train: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    train("clips", "run", 1)
    (tmp_path / "run" / "config.yaml").unlink()
    with pytest.raises(InvalidRequestError, match=r"holds checkpoints and no config.yaml"):
        train("clips", "run", 2)
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(InvalidRequestError, match=r"holds a run of an earlier version \(checkpoint.pt\)"):
        train("clips", "run", 2)
