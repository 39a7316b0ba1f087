"""Releases that must not be called converted: incomplete, damaged, or with links out of their folder."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fantasyid.checkpoints.released.convert import MESH_FILE, convert_release
from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError

EVA = "face_encoder/EVA02_CLIP_L_336_psz14_s6B.pt"
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
SHARD = "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"
SAFETENSORS = ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors", SHARD)
JSON_FILES = (
    "vae/config.json",
    "text_encoder/config.json",
    "transformer/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/tokenizer.json",
)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "model"


def refuse(release: Path, target: Path, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        convert_release(release, target)
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


@pytest.mark.parametrize("file", [*SAFETENSORS, *JSON_FILES, EVA, str(MESH_FILE)])
def test_git_lfs_pointers_are_called_by_their_name(release: Path, target: Path, file: str) -> None:
    (release / file).write_text(LFS_POINTER)
    refuse(release, target, MissingWeightsError, rf"{file} is a Git LFS pointer.*git lfs pull")


@pytest.mark.parametrize("file", JSON_FILES)
def test_json_that_is_no_json_is_told_by_name(release: Path, target: Path, file: str) -> None:
    (release / file).write_text("{")
    refuse(release, target, CorruptWeightsError, rf"{file} is not JSON")


def test_a_tokenizer_needs_a_vocabulary(release: Path, target: Path) -> None:
    (release / "tokenizer" / "tokenizer.json").unlink()
    refuse(release, target, MissingWeightsError, "tokenizer has no vocabulary")


def test_a_schedule_must_say_what_its_noise_is(release: Path, target: Path) -> None:
    (release / "scheduler" / "scheduler_config.json").write_text("{}")
    refuse(release, target, CorruptWeightsError, r"scheduler_config\.json says nothing usable of num_train_timesteps")


@pytest.mark.parametrize("file", SAFETENSORS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(release: Path, target: Path, file: str, value: float) -> None:
    weights = load_file(release / file)
    # The largest tensor of each reaches the output.
    max(weights.values(), key=torch.Tensor.numel).view(-1)[0] = value
    save_file(weights, release / file, metadata={"format": "pt"})
    refuse(release, target, CorruptWeightsError, "holds numbers that are not finite")


def test_an_eva_that_is_not_finite_is_refused(release: Path, target: Path) -> None:
    weights = torch.load(release / EVA)
    weights["visual.blocks.3.mlp.w1.weight"][0, 0] = float("nan")
    torch.save(weights, release / EVA)
    refuse(release, target, CorruptWeightsError, "EVA02.*holds numbers that are not finite")


@pytest.mark.parametrize("file", SAFETENSORS[:2])
def test_a_text_encoder_or_vae_that_lacks_a_weight_is_refused(release: Path, target: Path, file: str) -> None:
    weights = load_file(release / file)
    lacking = next(name for name in sorted(weights, reverse=True) if weights[name].ndim > 1)
    save_file({name: weights[name] for name in weights if name != lacking}, release / file, metadata={"format": "pt"})
    refuse(release, target, CorruptWeightsError, rf"[12] missing, such as .*{lacking.rpartition('.')[2]}")


@pytest.mark.parametrize("file", ["vae/notes.txt", "tokenizer/added_tokens.json", SAFETENSORS[1], SHARD, EVA])
def test_links_out_of_the_release_are_not_followed(release: Path, target: Path, tmp_path: Path, file: str) -> None:
    secret = tmp_path / "secret"
    link = release / file
    if link.is_file():
        link.rename(secret)
    else:
        secret.write_text("{}")
    link.symlink_to(secret)
    refuse(release, target, CorruptWeightsError, rf"{file} is a link to .*secret, out of the release")
    assert secret.stat().st_nlink == 1


@pytest.mark.parametrize("name", ["vae", "transformer"])
def test_folders_that_are_links_out_of_the_release_are_not_followed(
    release: Path, target: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = (release / name).rename(tmp_path / "elsewhere")
    (release / name).symlink_to(elsewhere, target_is_directory=True)
    refuse(release, target, CorruptWeightsError, rf"{name} is a link to .*elsewhere, out of the release")


def test_a_folder_inside_the_release_that_leads_back_is_refused(release: Path, target: Path) -> None:
    (release / "vae" / "again").symlink_to(release, target_is_directory=True)
    refuse(release, target, CorruptWeightsError, "neither a file nor a plain folder")


def test_what_is_no_file_is_refused(release: Path, target: Path) -> None:
    os.mkfifo(release / "vae" / "pipe")
    refuse(release, target, CorruptWeightsError, "pipe is neither a file nor a plain folder")


def test_links_of_the_hubs_cache_are_its_own(release: Path, target: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--model"
    snapshot = Path(shutil.copytree(release, repository / "snapshots" / "abc"))
    (repository / "blobs").mkdir()
    for number, name in enumerate((*SAFETENSORS, *JSON_FILES, EVA)):
        blob = (snapshot / name).rename(repository / "blobs" / str(number))
        (snapshot / name).symlink_to(blob)
    manifest = convert_release(snapshot, target)
    assert set(JSON_FILES) <= set(manifest.files)
    assert not any(path.is_symlink() for path in target.rglob("*"))
