"""Folders of pipelines that are damaged, incomplete or hostile: each is refused in one sentence, and no code runs."""

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fantasyid.checkpoints.folders import CLASSES
from fantasyid.core.errors import CorruptWeightsError, FantasyIDError, InvalidRequestError, MissingWeightsError
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.tiny_pipeline import tiny_pipeline

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
NETWORKS = ("text_encoder", "vae", "transformer", "identity_encoder", "face_vision", "face_reader_model")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine") / "model"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "model"))


def change_json(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **fields}))


def weights_of(folder: Path, name: str) -> Path:
    return next((folder / name).glob("*.safetensors"))


def change_weights(folder: Path, name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = weights_of(folder, name)
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


# Code


HOSTILE_INDICES = {
    "library": {"transformer": ["hostile", "FantasyIDTransformer3DModel"]},
    "submodule of ours": {"transformer": ["fantasyid.checkpoints.released.convert", "FantasyIDTransformer3DModel"]},
    "standard library": {"scheduler": ["subprocess", "Popen"]},
    "file in the folder": {"vae": ["hostile_vae", "AutoencoderKLCogVideoX"]},
    "another class": {"text_encoder": ["transformers", "AutoModel"]},
    "another component's class": {"vae": ["diffusers", "CogVideoXDDIMScheduler"]},
    "another component": {"safety_checker": ["hostile", "Checker"]},
    "pipeline in the folder": {"_class_name": ["pipeline", "FantasyIDPipeline"]},
    "another pipeline": {"_class_name": "CogVideoXPipeline"},
    "three names": {"vae": ["diffusers", "AutoencoderKLCogVideoX", "hostile"]},
    "numbers": {"vae": [1, 2]},
}


@pytest.fixture
def ran(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears when code of the folder runs, which lies wherever a library might look for it."""
    marker = tmp_path / "ran"
    code = (
        f"open({str(marker)!r}, 'w').close()\n"
        "class FantasyIDPipeline: pass\nclass Hostile: pass\nAutoencoderKLCogVideoX = Checker = Hostile\n"
    )
    for where in (folder, folder / "vae", folder / "transformer", folder / "text_encoder", folder / "tokenizer"):
        for name in ("hostile", "hostile_vae", "pipeline", "modeling", "kernel"):
            (where / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    return marker


@pytest.mark.parametrize("kind", HOSTILE_INDICES)
def test_an_index_imports_nothing_but_the_classes_we_know(folder: Path, ran: Path, kind: str) -> None:
    change_json(folder / "model_index.json", **HOSTILE_INDICES[kind])
    with pytest.raises(CorruptWeightsError, match=r"model_index\.json"):
        FantasyIDPipeline.from_pretrained(folder)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "modeling.Hostile"}}),
        ("text_encoder/config.json", {"attn_implementation": "owner/kernel"}),
        ("text_encoder/config.json", {"_attn_implementation": "owner/kernel"}),
        ("text_encoder/config.json", {"quantization_config": {"quant_method": "hqq"}}),
        ("text_encoder/config.json", {"transformers_weights": "../vae/diffusion_pytorch_model.safetensors"}),
        ("transformer/config.json", {"auto_map": {"AutoModel": "modeling.Hostile"}}),
        ("vae/config.json", {"quantization_config": {"quant_method": "torchao"}}),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["modeling.Hostile", None]}}),
        ("tokenizer/tokenizer_config.json", {"vocab_file": "/dev/zero"}),
        ("text_encoder/adapter_config.json", {"base_model_name_or_path": "owner/other", "peft_type": "LORA"}),
    ],
)
def test_a_config_that_asks_for_code_or_files_elsewhere_is_refused(
    folder: Path, ran: Path, file: str, fields: dict[str, Any]
) -> None:
    change_json(folder / file, **fields)
    with pytest.raises(CorruptWeightsError, match=Path(file).name):
        FantasyIDPipeline.from_pretrained(folder)
    assert not ran.exists()


def test_python_files_beside_the_weights_are_not_run(folder: Path, ran: Path) -> None:
    FantasyIDPipeline.from_pretrained(folder)
    assert not ran.exists()


def test_an_index_cannot_name_weights_outside_of_its_folder(folder: Path) -> None:
    for outside in ("../vae/diffusion_pytorch_model.safetensors", "/dev/zero"):
        index = {"metadata": {}, "weight_map": {"patch_embed.proj.weight": outside}}
        (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(CorruptWeightsError, match="not beside it"):
            FantasyIDPipeline.from_pretrained(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    file = weights_of(folder, "vae")
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(MissingWeightsError, match=r"vae has no weights in \*\.safetensors"):
        FantasyIDPipeline.from_pretrained(folder)


# Strictness


@pytest.mark.parametrize("name", NETWORKS)
def test_a_missing_weight_does_not_become_random(folder: Path, name: str) -> None:
    missing = sorted(load_file(weights_of(folder, name)))[-1]
    change_weights(folder, name, lambda weights: weights.pop(missing))
    with pytest.raises(CorruptWeightsError, match=rf"{name} .*(1 missing, such as {missing}|{missing})"):
        FantasyIDPipeline.from_pretrained(folder)


@pytest.mark.parametrize("name", NETWORKS)
def test_unknown_weights_are_refused(folder: Path, name: str) -> None:
    change_weights(folder, name, lambda weights: weights.update({"other.weight": torch.zeros(1)}))
    with pytest.raises(CorruptWeightsError, match=rf"{name} .*1 unexpected, such as other\.weight"):
        FantasyIDPipeline.from_pretrained(folder)


@pytest.mark.parametrize("name", NETWORKS)
def test_renamed_weights_are_refused(folder: Path, name: str) -> None:
    file = weights_of(folder, name)
    save_file({f"model.{key}": weight for key, weight in load_file(file).items()}, file, metadata={"format": "pt"})
    with pytest.raises(CorruptWeightsError, match=name):
        FantasyIDPipeline.from_pretrained(folder)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_another_shape_are_refused(folder: Path, name: str) -> None:
    def shorten(weights: dict[str, torch.Tensor]) -> None:
        key = max(weights, key=lambda key: weights[key].ndim)
        weights[key] = torch.cat([weights[key], weights[key][:1]])

    change_weights(folder, name, shorten)
    with pytest.raises(CorruptWeightsError, match=name):
        FantasyIDPipeline.from_pretrained(folder)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder: Path, name: str, value: float) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        key = next(key for key, weight in weights.items() if weight.is_floating_point())
        weights[key].view(-1)[-1] = value

    change_weights(folder, name, spoil)
    with pytest.raises(CorruptWeightsError, match=rf"{name} holds numbers that are not finite"):
        FantasyIDPipeline.from_pretrained(folder)


def test_a_schedule_must_say_what_its_noise_is(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    whole = json.loads(path.read_text())
    path.write_text("{}")
    with pytest.raises(CorruptWeightsError, match=r"scheduler_config\.json says nothing usable of num_train_timesteps"):
        FantasyIDPipeline.from_pretrained(folder)
    for name, value in (("num_train_timesteps", 10**12), ("beta_end", 2), ("snr_shift_scale", -1)):
        path.write_text(json.dumps({**whole, name: value}))
        with pytest.raises(CorruptWeightsError, match=name):
            FantasyIDPipeline.from_pretrained(folder)


def test_a_vae_must_say_its_scale(folder: Path) -> None:
    path = folder / "vae" / "config.json"
    content = json.loads(path.read_text())
    del content["scaling_factor"]
    path.write_text(json.dumps(content))
    with pytest.raises(CorruptWeightsError, match="scaling_factor"):
        FantasyIDPipeline.from_pretrained(folder)


def test_a_tokenizer_without_words_is_refused(folder: Path) -> None:
    file = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"] = {token: index for token, index in content["model"]["vocab"].items() if "[" in token}
    file.write_text(json.dumps(content))
    with pytest.raises(CorruptWeightsError, match="no English words"):
        FantasyIDPipeline.from_pretrained(folder)
    file.unlink()
    with pytest.raises(MissingWeightsError, match="no vocabulary"):
        FantasyIDPipeline.from_pretrained(folder)


def test_a_tokenizer_of_another_text_encoder_is_refused(folder: Path) -> None:
    change_weights(
        folder,
        "text_encoder",
        lambda weights: weights.update(
            {"embeddings.word_embeddings.weight": weights["embeddings.word_embeddings.weight"][:100].clone()}
        ),
    )
    change_json(folder / "text_encoder" / "config.json", vocab_size=100)
    with pytest.raises(CorruptWeightsError, match="has 30522 tokens and its text encoder knows 100"):
        FantasyIDPipeline.from_pretrained(folder)


# Damage


JSON_FILES = (
    "model_index.json",
    "transformer/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
)


@pytest.mark.parametrize("file", JSON_FILES)
@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff\xfe\xfd", b'{"a": NaN}', b"[" * 100_000],
    ids=["empty", "list", "not UTF-8", "NaN", "deep"],
)
def test_json_that_is_no_json_is_told_by_name(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(CorruptWeightsError, match=file):
        FantasyIDPipeline.from_pretrained(folder)


@pytest.mark.parametrize("file", [*JSON_FILES, "vae/diffusion_pytorch_model.safetensors"])
def test_a_git_lfs_pointer_is_called_by_its_name(folder: Path, file: str) -> None:
    (folder / file).write_text(LFS_POINTER)
    with pytest.raises(MissingWeightsError, match=rf"{file} is a Git LFS pointer.*git lfs pull"):
        FantasyIDPipeline.from_pretrained(folder)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [4, -1])
def test_cut_off_weights_are_told_by_name(folder: Path, name: str, size: int) -> None:
    file = weights_of(folder, name)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(CorruptWeightsError, match=rf"{name}/{file.name} is no readable safetensors"):
        FantasyIDPipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("transformer/config.json", {"num_layers": "three"}),
        ("transformer/config.json", {"num_layers": 10**6}),
        ("transformer/config.json", {"num_attention_heads": 10**9}),
        ("transformer/config.json", {"sample_height": 10**8, "use_learned_positional_embeddings": True}),
        ("transformer/config.json", {"num_attention_heads": 0}),
        ("transformer/config.json", {"sample_height": 2**19, "sample_width": 2**19}),
        ("text_encoder/config.json", {"num_hidden_layers": 10**7}),
        ("text_encoder/config.json", {"max_position_embeddings": 10**12}),
        ("text_encoder/config.json", {"hidden_act": "none such"}),
        ("vae/config.json", {"layers_per_block": 10**6}),
        ("vae/config.json", {"down_block_types": ["None", "Such"]}),
        ("identity_encoder/config.json", {"levels": [10**10, 10**9]}),
        ("identity_encoder/config.json", {"spiral_length": 2**20, "levels": [2**19]}),
        ("model_index.json", {"fps": "many"}),
        ("model_index.json", {"default_guidance_scale": -1}),
        ("model_index.json", {"unknown": 1}),
    ],
)
def test_impossible_configs_are_refused_before_they_cost_anything(
    folder: Path, file: str, fields: dict[str, Any]
) -> None:
    change_json(folder / file, **fields)
    with pytest.raises(CorruptWeightsError, match=file.partition("/")[0]):
        FantasyIDPipeline.from_pretrained(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_without_permission_are_told_by_name(folder: Path) -> None:
    (folder / "vae" / "config.json").chmod(0)
    with pytest.raises(MissingWeightsError, match=r"vae/config\.json cannot be read"):
        FantasyIDPipeline.from_pretrained(folder)


# Arguments


def test_components_that_are_given_are_not_read(folder: Path) -> None:
    given = {name: getattr(tiny_pipeline(), name) for name in ("vae", "tokenizer", "scheduler")}
    change_json(folder / "model_index.json", vae=["hostile", "Vae"])
    for name in given:
        shutil.rmtree(folder / name)
    assert FantasyIDPipeline.from_pretrained(folder, **given).vae is given["vae"]


def test_every_component_of_the_pipeline_has_its_classes() -> None:
    assert set(CLASSES) == set(tiny_pipeline().components)


def test_types_and_devices_go_by_name(folder: Path) -> None:
    for dtype in ("bfloat16", torch.bfloat16):
        pipeline = FantasyIDPipeline.from_pretrained(folder, torch_dtype=dtype, local_files_only=True, device_map="cpu")
        assert {pipeline.transformer.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.bfloat16}
    assert FantasyIDPipeline.from_pretrained(folder, dtype="float16").transformer.dtype == torch.float16
    meta = FantasyIDPipeline.from_pretrained(folder, device_map=torch.device("meta"))
    assert meta.transformer.device.type == "meta"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"torch_dtype": "int8"}, "torch_dtype is 'int8'; it can be float32, bfloat16, float16"),
        ({"torch_dtype": torch.int64}, "torch_dtype is torch.int64"),
        ({"torch_dtype": {"vae": torch.float16}}, "torch_dtype is {"),
        ({"dtype": "float32", "torch_dtype": "float32"}, "not both"),
        ({"device_map": "balanced"}, "device_map is 'balanced'; it can be one device"),
        ({"device_map": {"vae": 0}}, "device_map is {"),
        ({"custom_pipeline": "owner/code"}, "does not take custom_pipeline"),
        ({"trust_remote_code": True}, "does not take trust_remote_code"),
        ({"variant": "fp16"}, "does not take variant"),
    ],
)
@pytest.mark.parametrize("model", ["mini", "folder"])
def test_arguments_that_cannot_be_met_are_refused(
    folder: Path, model: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        FantasyIDPipeline.from_pretrained(folder if model == "folder" else model, **arguments)


def test_the_built_in_model_takes_them_too() -> None:
    given = {name: getattr(tiny_pipeline(), name) for name in CLASSES if name not in ("face_vision", "scheduler")}
    pipeline = FantasyIDPipeline.from_pretrained(
        "mini", torch_dtype="bfloat16", local_files_only=True, device_map="meta", **given
    )
    assert pipeline.face_vision.device.type == "meta"


# The Hub


def test_offline_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingWeightsError, match="local_files_only is set and it is not"):
        FantasyIDPipeline.from_pretrained("owner/model", cache_dir=tmp_path, local_files_only=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeightsError, match="HF_HUB_OFFLINE is set and it is not"):
        FantasyIDPipeline.from_pretrained("owner/model", cache_dir=tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def test_names_that_are_none_are_said(tmp_path: Path) -> None:
    for name in ("a/b/c", "photo.jpg ", "https://somewhere/model"):
        with pytest.raises(MissingWeightsError, match="no name of a model there"):
            FantasyIDPipeline.from_pretrained(name, cache_dir=tmp_path, local_files_only=True)


def test_an_unfinished_download_is_no_model(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--person" / "snapshots" / ("0" * 40)
    tiny_pipeline().save_pretrained(snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    weights_of(snapshot, "vae").unlink()
    with pytest.raises(FantasyIDError, match="vae"):
        FantasyIDPipeline.from_pretrained("owner/person", cache_dir=tmp_path, local_files_only=True)


def test_several_threads_load_at_once(folder: Path) -> None:
    given = {name: getattr(tiny_pipeline(), name) for name in CLASSES if name not in ("face_vision", "scheduler")}

    def load(number: int) -> list[torch.Tensor]:
        if number % 2:
            return list(FantasyIDPipeline.from_pretrained("mini", **given).face_vision.state_dict().values())
        pipeline = FantasyIDPipeline.from_pretrained(folder)
        return [*pipeline.text_encoder.state_dict().values(), *pipeline.transformer.state_dict().values()]

    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(load, range(4)))
    assert not any(tensor.is_meta for tensors in loaded for tensor in tensors)
    assert all(map(torch.equal, loaded[0], loaded[2]))
    assert all(map(torch.equal, loaded[1], loaded[3]))
    assert not torch.nn.Linear(2, 2).weight.is_meta
