"""From a folder of videos to trained identity modules, by the commands alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import CogVideoXDDIMScheduler
from PIL import Image
from skimage.data import astronaut
from transformers import BertConfig, BertModel

from fantasyid.core.video import read_video
from fantasyid.data.dataset.layout import DatasetFolder
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.commands import refusal, run
from tests.kills import contents
from tests.tiny import BASE_CONFIG, IDENTITY_CONFIG, seeded, tiny_base, tiny_face_vision
from tests.tiny_pipeline import SCHEDULER_CONFIG, minilm_tokenizer, tiny_vae
from tests.unit.data.clips.conftest import Films

BASE = {**BASE_CONFIG, "sample_height": 16, "sample_width": 16, "max_text_seq_length": 12}
ENCODER: dict[str, Any] = {"face_dim": 32, "grid_size": 4, "pool_factor": 2, "hidden_dim": 64, "num_layers": 1}
ENCODER |= {"spiral_channels": [8, 16]}


def write_cogvideox(folder: Path) -> None:
    """A base as diffusers lays CogVideoX out, and a face vision network beside it."""
    tiny_base(**BASE).save_pretrained(folder / "transformer")
    tiny_vae().save_pretrained(folder / "vae")
    text = BertConfig(hidden_size=20, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    seeded(BertModel, config=text).save_pretrained(folder / "text_encoder")
    minilm_tokenizer().save_pretrained(folder / "tokenizer")
    tiny_face_vision().save_pretrained(folder / "face_vision")
    CogVideoXDDIMScheduler(**SCHEDULER_CONFIG).save_pretrained(folder / "scheduler")
    kinds = {
        "tokenizer": ["transformers", "BertTokenizer"],
        "text_encoder": ["transformers", "BertModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "scheduler": ["diffusers", "CogVideoXDDIMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "CogVideoXPipeline", **kinds}))


def write_preset(path: Path, **changes: Any) -> None:
    preset = {
        "optimiser": {"steps": 2, "batch_size": 2, "learning_rate": 0.01, "warmup_steps": 0, "ema_decay": 0.0},
        "model": {**BASE, **IDENTITY_CONFIG},
        "objective": {"identity_encoder": ENCODER, "shape_noise": 0.0, "drop_all": 0.0, **changes.pop("objective", {})},
        "groups": [{"weights": "identity_encoder"}, {"weights": "injection"}],
        **changes,
    }
    path.write_text(yaml.safe_dump(preset))


@pytest.fixture(scope="module")
def encoding(films: Films, dataset: DatasetFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared films, encoded by the tiny CogVideoX in the folder `base`; the encoding's folder."""
    folder = tmp_path_factory.mktemp("trained")
    write_cogvideox(folder / "base")
    shutil.copytree(dataset.path, folder / "clips")
    given = (folder / "clips", "--videos", films.folder, "--model", folder / "base", "--device", "cpu")
    result = run("data", "encode", *given, "--name", "tiny")
    assert result.exit_code == 0, result.output
    return folder / "clips" / "encodings" / "tiny"


def command(pool: Path, preset: Path, out: Path, base: Path) -> tuple[object, ...]:
    given = ("--config", preset, "--pool", pool, "--init", base, "--out", out, "--device", "cpu")
    return ("train", "clips", *given)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A public-domain portrait as a file."""
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(astronaut()).save(path)
    return path


def base_of(encoding: Path) -> Path:
    return encoding.parents[2] / "base"


@pytest.mark.parametrize("pools_on", ["disk", "device"])
def test_a_folder_of_videos_trains_the_identity_modules_of_a_cogvideox(
    encoding: Path, tmp_path: Path, pools_on: str
) -> None:
    write_preset(tmp_path / "preset.yaml", pools_on=pools_on)
    result = run(*command(encoding, tmp_path / "preset.yaml", tmp_path / "run", base_of(encoding)))
    assert result.exit_code == 0, result.output
    trained = FantasyIDTransformer3DModel.from_pretrained(tmp_path / "run" / "result" / "transformer")
    state, base = trained.state_dict(), tiny_base(**BASE).state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in base.items())
    gains = [weight for name, weight in state.items() if name.endswith("feature.norm.weight")]
    assert len(gains) == BASE["num_layers"]
    assert all(gain.abs().max() > 0 for gain in gains)
    encoder = IdentityEncoder.from_pretrained(tmp_path / "run" / "result" / "identity_encoder")
    assert encoder.vertex_encoder is not None


def test_what_was_trained_is_looked_at_and_becomes_a_model_that_generates(
    encoding: Path, tmp_path: Path, photo: Path
) -> None:
    write_preset(tmp_path / "preset.yaml")
    assert run(*command(encoding, tmp_path / "preset.yaml", tmp_path / "run", base_of(encoding))).exit_code == 0
    base, model = base_of(encoding), tmp_path / "model"
    before = contents(tmp_path / "run" / "checkpoints")
    given = ("--run", tmp_path / "run", "--pool", encoding, "--init", base, "--device", "cpu")
    shown = ("--photo", photo, "--prompt", "a nod", "--steps", "1", "--base", base)
    shown = (*shown, "--face-vision", base / "face_vision")
    looks = [run("train", "validate", *given, *shown) for _ in range(2)]
    assert looks[0].exit_code == 0, looks[0].output
    assert looks[0].stdout == looks[1].stdout
    told = json.loads(looks[0].stdout)
    assert told["step"] == 2
    assert len(told["loss_at_time"]) == 8
    assert told["loss"] == pytest.approx(sum(told["loss_at_time"].values()) / 8)
    (sample,) = told["samples"]
    assert read_video(tmp_path / "run" / "validation" / sample["video"])[0].shape == (9, 128, 128, 3)
    assert sample["faces_found"] == 0
    assert contents(tmp_path / "run" / "checkpoints") == before
    assert "--prompt, --base, --face-vision is missing" in refusal("train", "validate", *given, "--photo", photo)
    parts = ("--run", tmp_path / "run", "--base", base, "--face-vision", base / "face_vision")
    result = run("train", "assemble", *parts, "--out", model)
    assert result.exit_code == 0, result.output
    asked = ("generate", photo, "--prompt", "a nod", "--model", model, "--steps", "1", "--seed", "0", "--device", "cpu")
    made = run(*asked, "--dtype", "float32", "--out", tmp_path / "nod.mp4")
    assert made.exit_code == 0, made.output
    assert read_video(tmp_path / "nod.mp4")[0].shape == (9, 128, 128, 3)
    assert "is a folder" in refusal("train", "assemble", *parts, "--out", model)
    shutil.rmtree(tmp_path / "run" / "result")
    assert "is not finished" in refusal("train", "assemble", *parts, "--out", tmp_path / "other")
    trained = FantasyIDPipeline.from_pretrained(model)
    assert not trained.config.guidance_drops_identity
    assert trained.identity_encoder.config.topology_hash == HeadModel.load().topology.hash


def test_references_are_noised_as_the_preset_says(encoding: Path, tmp_path: Path) -> None:
    """Another model than without; the same each time."""
    ended = {}
    for name, share in (("clean", 0.0), ("noised", 1.0), ("again", 1.0)):
        objective = {"noised_reference": share, "drop_reference": 0.0}
        write_preset(tmp_path / f"{name}.yaml", pools_on="disk", objective=objective)
        result = run(*command(encoding, tmp_path / f"{name}.yaml", tmp_path / name, base_of(encoding)))
        assert result.exit_code == 0, result.output
        ended[name] = FantasyIDTransformer3DModel.from_pretrained(tmp_path / name / "result" / "transformer")
    states = {name: torch.cat([w.flatten() for w in model.state_dict().values()]) for name, model in ended.items()}
    assert torch.equal(states["again"], states["noised"])
    assert not torch.equal(states["clean"], states["noised"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"identity_encoder": {**ENCODER, "face_dim": 64}}}, "has 32 face_dim, and 64 are needed"),
        ({"objective": {"identity_encoder": {**ENCODER, "grid_size": 8}}}, "has 4 grid_size, and 8 are needed"),
        ({"objective": {"shape_noise": 0.2}}, "holds vertices, and shape_noise 0.2"),
    ],
)
def test_an_encoding_of_other_networks_is_refused(
    encoding: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_preset(tmp_path / "preset.yaml", **changes)
    assert message in refusal(*command(encoding, tmp_path / "preset.yaml", tmp_path / "run", base_of(encoding)))


def test_heads_of_another_mesh_and_folders_that_are_no_encoding_are_refused(encoding: Path, tmp_path: Path) -> None:
    write_preset(tmp_path / "preset.yaml")
    shutil.copytree(encoding, tmp_path / "other")
    manifest = (tmp_path / "other" / "encoding.json").read_text()
    mesh = yaml.safe_load(manifest)["plan"]["topology_hash"]
    (tmp_path / "other" / "encoding.json").write_text(manifest.replace(mesh, "another"))
    said = refusal(*command(tmp_path / "other", tmp_path / "preset.yaml", tmp_path / "run", base_of(encoding)))
    assert "have another mesh than the identity encoder" in said
    (tmp_path / "other" / "encoding.json").unlink()
    said = refusal(*command(tmp_path / "other", tmp_path / "preset.yaml", tmp_path / "next", base_of(encoding)))
    assert "is no finished encoding" in said
    assert "data encode-pool" in refusal(
        *command(encoding.parents[1], tmp_path / "preset.yaml", tmp_path / "last", base_of(encoding))
    )
