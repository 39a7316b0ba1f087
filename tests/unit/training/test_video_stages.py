"""What each stage of the video model trains, leaves alone and saves."""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.precompute import LatentPool
from fantasyid.geometry.decimate import MeshHierarchy
from fantasyid.geometry.flame import FlameModel
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.training.checkpoint import Checkpoints
from fantasyid.training.config_files import load_stage
from fantasyid.training.stages import StageInputs
from fantasyid.training.stages import train as train_stage
from tests.commands import refusal
from tests.commands import run as command
from tests.flame_files import NUM_VERTICES, write_flame_npz
from tests.kills import contents
from tests.tiny import BASE_CONFIG, IDENTITY_CONFIG, noise, tiny_transformer

CLIPS, GRID, FACE_DIM = 4, 4, 32
ENCODER = {"face_dim": FACE_DIM, "grid_size": GRID, "pool_factor": 2, "hidden_dim": 64, "num_layers": 1}
ENCODER |= {"spiral_channels": [8, 16]}
ADDED = ("identity_encoder", "injection")
NO_IDENTITY: dict[str, Any] = dict.fromkeys(IDENTITY_CONFIG)
Train = Callable[..., Path]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Run a stage on a pool of noise and give the folder of its result.

    `spoilt` names arrays of the pool that are not numbers: a stage that reads them ends with weights that are none.
    `encoder` is the folder of a trained identity encoder, `base` what is changed in the transformer, `arrays` in the
    pool.
    """
    shape = (CLIPS, 1, BASE_CONFIG["out_channels"], 6, 4)
    pool = LatentPool(
        clips=noise(CLIPS, 3, *shape[2:]),
        reference=noise(*shape, seed=2),
        face_tokens=noise(CLIPS, GRID, GRID, FACE_DIM, seed=3),
        identity=noise(CLIPS, len(HeadModel.load().identity_basis), seed=4),
        text=noise(CLIPS, 6, 20, seed=5),
        null_text=noise(1, 6, 20, seed=6),
    )

    def call(
        stage: str,
        steps: int = 3,
        spoilt: tuple[str, ...] = (),
        identity: bool = True,
        encoder: Path | None = None,
        optimiser: dict[str, float] | None = None,
        base: dict[str, Any] | None = None,
        injection: dict[str, Any] | None = None,
        arrays: dict[str, Tensor] | None = None,
        flame: Path | None = None,
        groups: tuple[str, ...] = (),
        frozen_dtype: str = "float32",
        pools_on: str = "device",
        lora: dict[str, float] | None = None,
        weights: FantasyIDTransformer3DModel | None = None,
        **objective: Any,
    ) -> Path:
        shape, fed = {**BASE_CONFIG, **(base or {})}, replace(pool, **(arrays or {}))
        begun = weights or tiny_transformer(**{**shape, **NO_IDENTITY})
        begun.save_pretrained(tmp_path / "base" / "transformer")
        folder, out = tmp_path / "pool", tmp_path / f"{stage}{steps}"
        folder.mkdir(exist_ok=True)
        for field in fields(fed):
            array = getattr(fed, field.name).half().numpy()
            np.save(folder / f"latent_{field.name}.npy", array * np.float16(np.nan if field.name in spoilt else 1))
        even = {"steps": steps, "learning_rate": 0.01, "warmup_steps": 0, "cooldown": 0.01}
        preset = {
            "optimiser": {**even, "batch_size": 4, "ema_decay": 0.0, "weight_decay": 0.0, **(optimiser or {})},
            "model": {**shape, **(IDENTITY_CONFIG if identity else {}), **(injection or {})},
            "objective": {"identity_encoder": ENCODER, **objective} if identity else objective,
            "groups": [{"weights": name} for name in groups],
            "frozen_dtype": frozen_dtype,
            "pools_on": pools_on,
            "lora": lora,
        }
        (tmp_path / "preset.yaml").write_text(yaml.safe_dump(preset))
        inputs = StageInputs((folder,), out, "cpu", init=tmp_path / "base", encoder=encoder, flame=flame)
        train_stage(load_stage(tmp_path / "preset.yaml", stage), inputs)
        return out / "result"

    return call


@pytest.mark.parametrize(
    ("shape", "words", "message"),
    [((3, 8), 20, "8 out_channels, and 4"), ((3, 4), 24, "24 text_embed_dim, and 20"), ((2, 4), 20, "2 frames, and 3")],
)
def test_pools_of_another_format_are_refused(
    train: Train, tmp_path: Path, shape: tuple[int, int], words: int, message: str
) -> None:
    train("clips", 1, identity=False)
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "pool", other)
    np.save(other / "latent_clips.npy", np.zeros((CLIPS, *shape, 6, 4), np.float16))
    np.save(other / "latent_text.npy", np.zeros((CLIPS, 6, words), np.float16))
    config = load_stage(tmp_path / "preset.yaml", "clips")
    inputs = StageInputs((tmp_path / "pool", other), other, "cpu")
    with pytest.raises(InvalidRequestError, match=f"The pool {other} has {message}"):
        train_stage(config, inputs)


def transformer(result: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = FantasyIDTransformer3DModel.from_pretrained(result / "transformer").state_dict()
    return state


def encoder(result: Path) -> IdentityEncoder:
    loaded: IdentityEncoder = IdentityEncoder.from_pretrained(result / "identity_encoder")
    return loaded


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert all(weight.isfinite().all() for weight in after.values())
    return {name for name, weight in before.items() if not torch.equal(weight, after[name])}


BASES: dict[str, dict[str, Any]] = {
    "text-to-video": {"in_channels": BASE_CONFIG["out_channels"]},
    "image-to-video": {"use_learned_positional_embeddings": True, "sample_frames": 9},
    "1.5 text-to-video": {"in_channels": 4, "patch_size": 2, "patch_size_t": 2, "patch_bias": False},
    "1.5 image-to-video": {"ofs_embed_dim": 12, "patch_size": 2, "patch_size_t": 2, "patch_bias": False},
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "w/o FA": {"identity_encoder": {**ENCODER, "abstractor": "q-former"}},
    "w/o MFC": {"views": "first"},
    "w/o FV": {"identity_encoder": {**ENCODER, "use_vertices": False}},
    "w/o LACSI": {"injection": {"injection_kind": "paper_without_layers"}},
}


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_the_identity_modules_are_trained_on_every_base(train: Train, base: dict[str, Any]) -> None:
    """The base stays, what is added learns, and the result computes."""
    result = train("clips", 3, base=base, groups=ADDED, identity_encoder=ENCODER)
    before = tiny_transformer(**{**BASE_CONFIG, **base, **NO_IDENTITY}).float().state_dict()
    assert moved(before, transformer(result)) == set()
    gains = [weight for name, weight in transformer(result).items() if name.endswith("feature.norm.weight")]
    assert all(gain.abs().max() > 0 for gain in gains)
    assert encoder(result).config.token_dim == 24


@pytest.mark.parametrize("ablation", ABLATIONS.values(), ids=ABLATIONS)
def test_every_ablation_of_the_table_is_trained(train: Train, ablation: dict[str, Any]) -> None:
    """On text-to-video, the paper's base, with several views of each person."""
    views = {
        "reference": noise(CLIPS, 3, 4, 6, 4, seed=2),
        "face_tokens": noise(CLIPS, 3, GRID, GRID, FACE_DIM, seed=3),
    }
    result = train("clips", 2, base=BASES["text-to-video"], arrays=views, groups=ADDED, **ablation)
    first, second = encoder(result), encoder(train("clips", 5, arrays=views, base=BASES["text-to-video"], **ablation))
    weights = {name for name, _ in first.named_parameters()}
    assert moved(first.state_dict(), second.state_dict()) == weights


def test_vertices_of_flame_are_trained_with_its_mesh(train: Train, tmp_path: Path) -> None:
    write_flame_npz(tmp_path / "flame.npz")
    heads = {"identity": noise(CLIPS, NUM_VERTICES, 3, seed=4)}
    given = {"arrays": heads, "flame": tmp_path / "flame.npz"}
    with pytest.raises(InvalidRequestError, match=r"holds vertices, and shape_noise 0.2 .*; set objective.shape_noise"):
        train("clips", 1, **given)
    shutil.rmtree(tmp_path / "clips1")
    saved = encoder(train("clips", 1, shape_noise=0.0, **given))
    mesh = FlameModel.load(tmp_path / "flame.npz")
    assert saved.config.topology_hash == mesh.topology.hash
    assert tuple(saved.config.levels) == (NUM_VERTICES, 30, 8)
    assert saved.vertex_encoder is not None
    assert torch.equal(saved.vertex_encoder.template, 100 * mesh.template)


@pytest.mark.parametrize("stage", ["pairs", "clips"])
def test_without_identity_the_whole_transformer_is_trained_and_nobody_is_read(train: Train, stage: str) -> None:
    """All weights move, and none becomes NaN although faces and shapes are NaN."""
    base = tiny_transformer(identity_token_dim=None).state_dict()
    result = train(stage, spoilt=("face_tokens", "identity"), identity=False)
    assert moved(base, transformer(result)) == set(base)
    assert not (result / "identity_encoder").exists()


def test_a_frozen_base_stays_and_injection_and_identity_encoder_learn(train: Train) -> None:
    base = tiny_transformer(identity_token_dim=None).state_dict()
    first, second = train("pairs", 2, groups=ADDED), train("pairs", 5, groups=ADDED)
    for result in (first, second):
        assert moved(base, transformer(result)) == set()
    added = set(transformer(first)) - set(base)
    assert added
    assert all("injection" in name for name in added)
    assert moved(transformer(first), transformer(second)) == added
    before, after = encoder(first), encoder(second)
    weights = {name for name, _ in before.named_parameters()}
    assert moved(before.state_dict(), after.state_dict()) == weights


def test_a_rate_of_three_millionths_reaches_the_weights(train: Train) -> None:
    """In bfloat16 nearly all would round back to what they were."""
    begun = tiny_transformer()
    with torch.no_grad():
        for weight in begun.parameters():
            weight.copy_(weight.bfloat16())
    optimiser = {"learning_rate": 3e-6, "cooldown": 1.0}
    result = transformer(train("clips", 5, optimiser=optimiser, groups=ADDED, frozen_dtype="bfloat16", weights=begun))
    before = begun.state_dict()
    trained = [name for name in before if "injection" in name and before[name].ndim > 1]
    old, new = (torch.cat([state[name].flatten() for name in trained]) for state in (before, result))
    assert (old != new).float().mean() > 0.95
    assert (old.bfloat16() != new.bfloat16()).float().mean() < 0.2


def test_a_frozen_base_in_bfloat16_stays_and_is_not_in_the_checkpoint(train: Train, tmp_path: Path) -> None:
    base = tiny_transformer(identity_token_dim=None)
    with torch.no_grad():
        for weight in base.parameters():
            weight.copy_(weight.bfloat16())
    result = train("clips", 3, groups=ADDED, frozen_dtype="bfloat16", weights=base)
    assert moved(base.state_dict(), {k: v.float() for k, v in transformer(result).items()}) == set()
    _, tensors = Checkpoints(result.parent).load() or (None, ())
    kept = {name.partition("/")[2] for name, _ in tensors if not name.startswith("buffer/")}
    assert kept
    assert all("injection" in name or name.startswith("identity_encoder.") for name in kept)


def test_a_pool_has_no_clips_held_out(train: Train, tmp_path: Path) -> None:
    run = train("clips", 1).parent
    given = ("--pool", tmp_path / "pool", "--init", tmp_path / "base", "--device", "cpu")
    assert "holds no clip out; give an encoding" in refusal("train", "validate", "--run", run, *given)


def test_a_pool_has_no_noised_references(train: Train) -> None:
    with pytest.raises(InvalidRequestError, match="holds no noised references; set objective"):
        train("clips", 1, pools_on="disk", noised_reference=1.0)


def test_clips_that_stay_on_the_disk_are_the_same(train: Train) -> None:
    first = transformer(train("clips", 2))
    shutil.rmtree(train("clips", 2).parent)
    assert moved(first, transformer(train("clips", 2, pools_on="disk"))) == set()


def test_a_base_that_is_not_frozen_learns_too(train: Train) -> None:
    base = tiny_transformer(identity_token_dim=None).state_dict()
    assert moved(base, transformer(train("clips"))) == set(base)


def test_the_identity_encoder_is_saved_with_the_mesh_of_the_head(train: Train) -> None:
    saved, hierarchy = encoder(train("pairs", 1)), MeshHierarchy.load()
    assert saved.config.topology_hash == HeadModel.load().topology.hash
    mesh = saved.vertex_encoder
    assert mesh is not None
    assert torch.equal(mesh.template, HeadModel.load().mean)
    for level, spirals in enumerate(hierarchy.spirals):
        assert torch.equal(getattr(mesh, f"spirals_{level}"), torch.from_numpy(spirals))
    for step, (index, weight) in enumerate(zip(hierarchy.down_index, hierarchy.down_weight, strict=True)):
        assert torch.equal(getattr(mesh, f"down_indices_{step}"), torch.from_numpy(index))
        assert torch.equal(getattr(mesh, f"down_weights_{step}"), torch.from_numpy(weight))


@pytest.mark.parametrize("learning", [True, False])
def test_a_taught_encoder_goes_on_and_its_population_is_measured_anew(train: Train, learning: bool) -> None:
    """With the final weights: a mean person of other weights would drown everybody."""
    centred = {**ENCODER, "centre": True}
    taught = train("pairs", 1, identity_encoder=centred)
    first = encoder(taught)
    assert first.population is not None
    before = first.state_dict()
    frozen = {} if learning else {"learning_rate": 1e-30}
    result = train("clips", 2, encoder=taught, identity_encoder=centred, optimiser=frozen, shape_noise=0.0)
    saved = encoder(result)
    assert saved.population is not None
    weights = {name for name, _ in saved.named_parameters()}
    assert moved(before, saved.state_dict()) & weights == (weights if learning else set())
    assert saved.population.mean.abs().max() > 0
    people = Path(result.parent.parent / "pool")
    read = {
        name: torch.from_numpy(np.load(people / f"latent_{name}.npy")).float() for name in ("face_tokens", "identity")
    }
    with torch.no_grad():
        heads = HeadModel.load().shape(read["identity"], torch.zeros(CLIPS, len(HeadModel.load().expression_names)))
        described = saved.describe(read["face_tokens"], heads)
    left = (described.mean(0) - saved.population.mean).square().mean().sqrt()
    assert left < 0.5 * saved.population.spread
    apart = (described - described.mean(0)).square().mean().sqrt()
    assert float(saved.population.spread) == pytest.approx(float(apart), rel=0.25)


def test_a_step_is_replayed_sample_by_sample_from_any_checkpoint(train: Train, tmp_path: Path) -> None:
    run = train("clips", 5, groups=ADDED, optimiser={"save_every": 2, "accumulation": 2}).parent
    given = ("--pool", tmp_path / "pool", "--init", tmp_path / "base", "--device", "cpu")
    before = contents(run)
    told = [command("train", "replay", "--run", run, "--step", "5", *given)]
    assert told[0].exit_code == 0, told[0].output
    assert contents(run) == before
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    told.append(command("train", "replay", "--run", run, "--step", "5", *given))
    first, second = (json.loads(one.stdout) for one in told)
    assert first == second
    assert first["step"] == 5
    assert len(first["samples"]) == 4
    mean = sum(sample["loss"] for sample in first["samples"]) / 4
    assert first["loss"] == pytest.approx(mean, rel=1e-5)
    assert {sample["clip"] for sample in first["samples"]} == set(range(CLIPS))
    other = command("train", "replay", "--run", run, "--step", "4", *given)
    assert json.loads(other.stdout)["samples"] != first["samples"]
    assert "has 5 steps, and --step is 6" in refusal("train", "replay", "--run", run, "--step", "6", *given)
