"""`fantasyid train` as a user meets it: every command trains, or refuses in one sentence."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from typer.main import get_command

from fantasyid.cli.main import app
from fantasyid.training.config import STAGES
from tests.commands import refusal, run, run_module
from tests.tiny import seeded, tiny_face_vision
from tests.tiny_pipeline import tiny_frame_vae

PRESETS = Path(__file__).parents[3] / "configs" / "train"
INPUTS = {
    "reader": ("pool", "rigs"),
    "vision": ("pool", "rigs"),
    "vae": ("pool", "vision"),
    "decoder": ("pool", "init", "vision"),
    "encoder": ("pool", "vision"),
    "pairs": ("pool",),
    "clips": ("pool",),
}


def command(stage: str, folder: Path, **changes: object) -> list[object]:
    """The command of a stage whose preset is the one that is kept, and whose inputs are not there."""
    options = {"config": PRESETS / f"mini-{stage}.yaml", **{name: folder / name for name in INPUTS[stage]}}
    options |= {"out": folder / "run", "device": "cpu", **changes}
    return ["train", stage, *(word for name, value in options.items() for word in (f"--{name}", value))]


def test_every_stage_is_a_command() -> None:
    assert set(INPUTS) == set(STAGES)
    assert run("train", "--help").exit_code == 0


def test_the_commands_of_presets_and_documentation_exist() -> None:
    text = (PRESETS.parents[1] / "docs" / "training.md").read_text().replace("\\\n", " ")
    lines = [*text.splitlines(), *(path.read_text().splitlines()[0] for path in PRESETS.glob("*.yaml"))]
    found = [re.search(r"\bfantasyid ((?:train|data) .*--.*)", line) for line in lines if "`" not in line]
    commands = [shlex.split(match[1]) for match in found if match]
    assert len(commands) == 41
    for words in commands:
        command = get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        command.make_context("fantasyid", words).close()


@pytest.mark.parametrize("stage", INPUTS)
def test_missing_files_are_named(tmp_path: Path, stage: str) -> None:
    """The first input that is looked at; nothing of a run is left but its config."""
    message = refusal(*command(stage, tmp_path))
    assert any(str(tmp_path / name) in message for name in INPUTS[stage]), message
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml"}
    assert "There is no file" in refusal(*command(stage, tmp_path, config=tmp_path / "none.yaml"))


@pytest.mark.parametrize("stage", INPUTS)
def test_wrong_values_are_named(tmp_path: Path, stage: str) -> None:
    text = (PRESETS / f"mini-{stage}.yaml").read_text()
    (tmp_path / "wrong.yaml").write_text(text.replace("batch_size: ", "batch_size: -"))
    assert "optimiser.batch_size: " in refusal(*command(stage, tmp_path, config=tmp_path / "wrong.yaml"))
    (tmp_path / "file").write_text("")
    assert "cannot be made" in refusal(*command(stage, tmp_path, out=tmp_path / "file"))
    assert run(*command(stage, tmp_path, device="tpu")).exit_code == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_not_looked_for_later(tmp_path: Path) -> None:
    assert "no usable CUDA device" in refusal(*command("vae", tmp_path, device="cuda"))


def test_a_plan_that_does_not_fit_says_what_to_change(tmp_path: Path) -> None:
    text = (
        "stage: pairs\noptimiser: {steps: 10, batch_size: 4, learning_rate: 1.0}\ngroups: [{weights: injection}]\n"
        "model: {num_attention_heads: 2, attention_head_dim: 16, text_embed_dim: 8, num_layers: 20, "
        "identity_token_dim: 8}"
    )
    (tmp_path / "plan.yaml").write_text(text)
    told = run("train", "plan", "--config", tmp_path / "plan.yaml", "--gpus", "2")
    assert told.exit_code == 0, told.output
    assert "samples at once 2" in told.output
    needed = float(re.search(r"in all +([\d.]+)", told.output)[1])
    said = refusal("train", "plan", "--config", tmp_path / "plan.yaml", "--gpus", 2, "--memory-gib", needed - 0.1)
    assert "GiB on each of 2 GPUs" in said
    assert "set optimiser.accumulation: 2" in said or "set recompute: " in said
    assert "take more or larger GPUs" in refusal("train", "plan", "--config", tmp_path / "plan.yaml", "--memory-gib", 1)


def tiny_vae_run(folder: Path, pool: Path) -> Result:
    """Train a tiny VAE for two steps."""
    tiny_face_vision(image_size=96, patch_size=32).save_pretrained(folder / "vision")
    (folder / "vae.yaml").write_text(
        "optimiser: {steps: 2, batch_size: 2, learning_rate: 1.0e-3}\n"
        "model: {block_out_channels: [8, 8], down_block_types: [CogVideoXDownBlock3D, CogVideoXDownBlock3D], "
        "up_block_types: [CogVideoXUpBlock3D, CogVideoXUpBlock3D], norm_num_groups: 4, latent_channels: 4, "
        "layers_per_block: 1, temporal_compression_ratio: 1, sample_height: 32, sample_width: 32}\n"
    )
    return run(*command("vae", folder, config=folder / "vae.yaml", pool=pool, vision=folder / "vision"))


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    small, large = (3, 96, 96), (3, 32, 32)
    shapes = {"clips": (2, *large), "reference": large, "face": small, "frame_face": small, "neutral_face": small}
    for name, shape in shapes.items():
        np.save(folder / f"{name}.npy", np.zeros((4, *shape), np.uint8))
    np.save(folder / "identity.npy", np.zeros((4, 60), np.float16))
    (folder / "captions.json").write_text('["a", "b", "c", "d"]')
    return folder


def test_a_stage_is_trained_and_an_unfinished_pool_is_named(tmp_path: Path, pool: Path) -> None:
    result = tiny_vae_run(tmp_path, pool)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "result" / "config.json").is_file()
    (pool / "captions.json").unlink()
    arguments = command("vae", tmp_path, config=tmp_path / "vae.yaml", pool=pool, vision=tmp_path / "vision")
    assert "captions.json, so the pool is not finished" in refusal(*arguments)
    (pool / "clips.npy").write_bytes(b"no numbers")
    assert "clips.npy cannot be read" in refusal(*arguments)


def test_a_vae_that_is_not_the_presets_is_refused(tmp_path: Path) -> None:
    tiny_face_vision().save_pretrained(tmp_path / "vision")
    seeded(tiny_frame_vae).save_pretrained(tmp_path / "init")
    message = refusal(*command("decoder", tmp_path))
    assert "The preset asks for down_block_types: " in message
    assert "block_out_channels: [32, 64, 128, 128] ([" in message
    assert str(tmp_path / "init") in message


def test_shrink_shape_and_pack_name_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "people.txt").write_text("")
    given = ["train", "shrink-shape", "--reader", tmp_path, "--photos", tmp_path, "--out", tmp_path / "out"]
    given += ["--leave-out", tmp_path / "people.txt", "--manifest"]
    assert "There is no file" in refusal(*given, tmp_path / "none.csv")
    (tmp_path / "manifest.csv").write_text("id\n")
    assert run(*given, tmp_path / "manifest.csv", "--share", "1.5").exit_code == 2
    parts = ("transformer", "identity-encoder", "vae", "vision", "reader")
    folders = [word for part in parts for word in (f"--{part}", tmp_path / part)]
    assert str(tmp_path) in refusal("train", "pack", *folders, "--out", tmp_path / "packed")
    assert run("train", "pack", *folders, "--storage", "float8").exit_code == 2


@pytest.mark.parametrize(
    ("module", "new"),
    [
        ("fantasyid.training", "`fantasyid train STAGE`"),
        ("fantasyid.training.pack", "`fantasyid train pack`"),
        ("fantasyid.training.shrink_shape", "`fantasyid train shrink-shape`"),
        ("fantasyid.data.repose.prepare", "`fantasyid data rigs`"),
        ("fantasyid.data.precompute", "`fantasyid data render` or `fantasyid data encode-pool`"),
        ("fantasyid.data.face_views", "`fantasyid data views`"),
    ],
)
def test_old_names_give_the_new_ones(
    module: str, new: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_module(module, monkeypatch, "--anything") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"`python -m {module}` is {new} now" in said


def test_python_m_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_module("fantasyid", monkeypatch, "train", "clips", "--help") == 0
    assert "torchrun --nproc-per-node 2 -m fantasyid train clips" in " ".join(capsys.readouterr().out.split())
