"""Converting the authors' release, laid out as the real one at a tiny size."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fantasyid.checkpoints.released import convert
from fantasyid.checkpoints.released.convert import MANIFEST, MESH_FILE, RELEASE_NAME, convert_release
from fantasyid.checkpoints.released.weights import INERT_WEIGHTS
from fantasyid.cli.main import app
from fantasyid.core.errors import CorruptWeightsError, InvalidRequestError, MissingWeightsError
from fantasyid.models.eva_vision import EvaVisionModel
from fantasyid.models.released import ReleasedIdentityEncoder
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.tiny_release import TRANSFORMER_CONFIG

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def converted(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("converted") / "model"
    convert_release(pristine, target)
    return target


def change_weights(release: Path, change: Change) -> None:
    """Change the weights in the first of the transformer's files."""
    file = min((release / "transformer").glob("*.safetensors"))
    weights = load_file(file)
    change(weights)
    save_file(weights, file)


def flip_a_bit(file: Path) -> None:
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.unlink()  # the release may share it
    file.write_bytes(damaged)


def change_config(release: Path, **fields: Any) -> None:
    (release / "transformer" / "config.json").write_text(json.dumps({**TRANSFORMER_CONFIG, **fields}))


def test_the_conversion_loads_as_a_pipeline(converted: Path) -> None:
    pipeline = FantasyIDPipeline.from_pretrained(converted, torch_dtype=torch.bfloat16)
    assert isinstance(pipeline.identity_encoder, ReleasedIdentityEncoder)
    assert isinstance(pipeline.face_vision, EvaVisionModel)
    assert type(pipeline.scheduler).__name__ == "CogVideoXDPMScheduler"
    assert pipeline.transformer.dtype == torch.bfloat16
    assert pipeline.identity_encoder.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in pipeline.identity_encoder.vertex_encoder.parameters()} == {torch.float32}
    assert pipeline.identity_encoder.vertex_encoder.up_weights_0.dtype == torch.float32
    wanted = {"guidance_drops_identity": False, "default_num_inference_steps": 50, "default_guidance_scale": 6.0}
    assert {**pipeline.config, **wanted, "fps": 8, "keep_expression_and_pose": True} == dict(pipeline.config)
    assert pipeline.identity_preparation().style == "ffhq"
    assert pipeline.vae.config.invert_scale_latents is False


def test_an_option_of_the_pipeline_can_be_given_when_it_is_loaded(converted: Path) -> None:
    pipeline = FantasyIDPipeline.from_pretrained(converted, keep_expression_and_pose=False)
    assert pipeline.config.keep_expression_and_pose is False


def test_inert_weights_are_left_out(release: Path, converted: Path, tmp_path: Path) -> None:
    inert = []
    for file in (release / "transformer").glob("*.safetensors"):
        weights = load_file(file)
        found = [name for name in weights if any(re.fullmatch(pattern, name) for pattern in INERT_WEIGHTS)]
        save_file({**weights, **{name: weights[name] + 1 for name in found}}, file)
        inert += found
    assert {"face_abstractor.latents", "face_abstractor.mapping_0.0.weight"} <= set(inert)
    manifest = convert_release(release, tmp_path / "model")
    assert manifest.files == convert_release(release, converted).files


def test_an_unknown_weight_is_refused_by_name(release: Path, tmp_path: Path) -> None:
    change_weights(release, lambda weights: weights.update({"face_abstractor.layers.10.bias": torch.zeros(1)}))
    with pytest.raises(CorruptWeightsError, match=r"face_abstractor\.layers\.10\.bias"):
        convert_release(release, tmp_path / "model")


@pytest.mark.parametrize(
    "name",
    ["face_abstractor.proj_out", "layer_attention.2.to_kv.weight", "transformer_blocks.0.ff.net.2.weight"],
)
def test_a_missing_weight_is_named(release: Path, tmp_path: Path, name: str) -> None:
    for file in (release / "transformer").glob("*.safetensors"):
        weights = load_file(file)
        weights.pop(name, None)
        save_file(weights, file)
    with pytest.raises(CorruptWeightsError, match=rf"lack {name}"):
        convert_release(release, tmp_path / "model")


def test_a_weight_of_another_shape_is_named(release: Path, tmp_path: Path) -> None:
    name = "vertex_spiral_net.hw_down.1.fc1.weight"
    for file in (release / "transformer").glob("*.safetensors"):
        weights = load_file(file)
        if name in weights:
            save_file({**weights, name: weights[name][:-1]}, file)
    with pytest.raises(CorruptWeightsError, match=r"vertex_encoder\.narrow\.1\.0\.weight"):
        convert_release(release, tmp_path / "model")


@pytest.mark.parametrize(("field", "value"), [("is_train_face", False), ("is_kps", True)])
def test_another_kind_of_checkpoint_is_refused(release: Path, tmp_path: Path, field: str, value: bool) -> None:
    change_config(release, **{field: value})
    with pytest.raises(CorruptWeightsError, match=field):
        convert_release(release, tmp_path / "model")


def test_config_fields_that_nobody_reads_are_told(release: Path, tmp_path: Path) -> None:
    change_config(release, is_train_lips=False)
    assert convert_release(release, tmp_path / "model").ignored_config == ("is_train_lips",)


def test_averaged_weights_and_pickles_come_first(release: Path, converted: Path, tmp_path: Path) -> None:
    averaged = Path(shutil.copytree(release / "transformer", release / "transformer_ema"))
    weights = {name: w for file in averaged.glob("*.safetensors") for name, w in load_file(file).items()}
    torch.save(weights, averaged / "diffusion_pytorch_model.bin")
    for file in (release / "transformer").glob("*.safetensors"):
        file.write_bytes(b"not read")
    manifest = convert_release(release, tmp_path / "model")
    assert manifest.files == convert_release(release, converted).files


def test_missing_files_are_named_together(release: Path, tmp_path: Path) -> None:
    shutil.rmtree(release / "face_encoder")
    (release / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(release / "transformer")
    with pytest.raises(MissingWeightsError) as caught:
        convert_release(release, tmp_path / "model")
    for text in ("EVA02_CLIP_L_336_psz14_s6B.pt", "0.9 GB", "vae/", "transformer (the video", "hf download"):
        assert text in str(caught.value)


def test_a_missing_mesh_is_told_with_its_address(release: Path, tmp_path: Path) -> None:
    (release / MESH_FILE).unlink()
    with pytest.raises(MissingWeightsError, match=r"--mesh"):
        convert_release(release, tmp_path / "model")


def test_a_conversion_that_fails_leaves_nothing(release: Path, tmp_path: Path) -> None:
    eva = release / "face_encoder" / "EVA02_CLIP_L_336_psz14_s6B.pt"
    eva.write_bytes(eva.read_bytes()[:1000])  # read after the transformer was written
    out = tmp_path / "out"
    with pytest.raises(CorruptWeightsError):
        convert_release(release, out / "model")
    assert list(out.iterdir()) == []


def test_a_full_disk_is_told_beforehand(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(InvalidRequestError, match=r"The conversion needs 8\.0 MB and .*out has 1\.0 MB free"):
        convert_release(release, tmp_path / "out" / "model")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_second_conversion_checks_every_file(release: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    manifest = convert_release(release, target)
    assert convert_release(release, target) == manifest
    flip_a_bit(target / "identity_encoder" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CorruptWeightsError, match=r"identity_encoder.*changed"):
        convert_release(release, target)


def test_a_flipped_bit_is_refused_when_the_conversion_is_loaded(converted: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("vae/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json")):
        copy = Path(shutil.copytree(converted, tmp_path / str(number)))
        flip_a_bit(copy / name)
        with pytest.raises(CorruptWeightsError, match=rf"{name} has changed"):
            FantasyIDPipeline.from_pretrained(copy)


def test_two_conversions_at_once_both_succeed(release: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "model"
    with ThreadPoolExecutor(3) as pool:
        manifests = list(pool.map(lambda _: convert_release(release, target), range(3)))
    assert manifests[0] == manifests[1] == manifests[2] == convert_release(release, target)
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_a_folder_of_something_else_is_not_touched(release: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="no conversion"):
        convert_release(release, release / "vae")


def hub_cache(folder: Path, release: Path) -> Path:
    """A Hub cache that holds the release; returns where its conversion is kept."""
    repository = folder / f"models--{RELEASE_NAME.replace('/', '--')}"
    shutil.copytree(release, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    return repository / "fantasyid" / "abc"


def test_the_hub_name_is_converted_once(release: Path, tmp_path: Path) -> None:
    kept = hub_cache(tmp_path / "hub", release)
    load = {"cache_dir": tmp_path / "hub", "local_files_only": True}
    FantasyIDPipeline.from_pretrained(RELEASE_NAME, **load)
    written = (kept / MANIFEST).stat().st_mtime_ns
    pipeline = FantasyIDPipeline.from_pretrained(RELEASE_NAME, **load)
    assert isinstance(pipeline.identity_encoder, ReleasedIdentityEncoder)
    assert (kept / MANIFEST).stat().st_mtime_ns == written
    (kept / "vae" / "config.json").unlink()
    with pytest.raises(MissingWeightsError, match=r"vae/config\.json is gone"):
        FantasyIDPipeline.from_pretrained(RELEASE_NAME, **load)


def test_the_hub_name_without_its_mesh_says_where_to_put_it(release: Path, tmp_path: Path) -> None:
    (release / MESH_FILE).unlink()
    kept = hub_cache(tmp_path / "hub", release)
    with pytest.raises(MissingWeightsError, match=str(kept.parent / "transform.pkl")):
        FantasyIDPipeline.from_pretrained(RELEASE_NAME, cache_dir=tmp_path / "hub", local_files_only=True)


def test_the_mesh_is_downloaded_beside_the_hub_name_and_checked(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = (release / MESH_FILE).rename(tmp_path / "published.pkl")
    kept = hub_cache(tmp_path / "hub", release)
    snapshot = kept.parents[1] / "snapshots" / "abc"
    monkeypatch.setattr(convert, "MESH_URL", mesh.as_uri())
    with pytest.raises(MissingWeightsError, match=r"cannot be had.*hash"):
        convert.converted_from_hub(snapshot)
    assert not kept.exists()
    monkeypatch.setattr(convert, "MESH_SHA256", hashlib.sha256(mesh.read_bytes()).hexdigest())
    assert convert.converted_from_hub(snapshot) == kept
    assert (kept.parent / "transform.pkl").read_bytes() == mesh.read_bytes()


def test_reading_a_photo_for_it_asks_for_decas_files(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pipeline = FantasyIDPipeline.from_pretrained(converted)
    with pytest.raises(MissingWeightsError, match=r"generic_model\.pkl"):
        _ = pipeline.face_reader


def test_the_hub_name_that_was_not_downloaded_says_how(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"25 GB; get it with: hf download acvlab/FantasyID"):
        FantasyIDPipeline.from_pretrained(RELEASE_NAME, cache_dir=tmp_path, local_files_only=True)


def test_the_release_itself_is_no_model(release: Path) -> None:
    with pytest.raises(InvalidRequestError, match="fantasyid convert"):
        FantasyIDPipeline.from_pretrained(release)


def test_command_line(release: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    moved = (release / MESH_FILE).rename(tmp_path / "transform.pkl")
    arguments = ["convert", str(release), str(target)]
    missing = CliRunner().invoke(app, arguments)
    assert missing.exit_code == 2
    assert "--mesh" in missing.stderr
    done = CliRunner().invoke(app, [*arguments, "--mesh", str(moved)])
    assert (done.exit_code, "converted" in done.stdout) == (0, True)
    again = CliRunner().invoke(app, arguments)
    assert (again.exit_code, "unchanged" in again.stdout) == (0, True)
