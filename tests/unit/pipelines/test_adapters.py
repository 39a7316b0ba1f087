"""LoRA adapters at inference: merged by hand, beside the weights, and those that do not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from fantasyid.core.errors import CorruptWeightsError, FantasyIDError, InvalidRequestError
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.tiny import noise
from tests.tiny_pipeline import tiny_person, tiny_pipeline

pytest.importorskip("peft")
LAYERS = [f"transformer_blocks.{block}.attn1.{layer}" for block in (0, 2) for layer in ("to_q", "to_out.0")]
LAYERS += ["transformer_blocks.1.ff.net.2"]
RANK = 3


def adapter(pipeline: FantasyIDPipeline) -> dict[str, Tensor]:
    """Random factors for some layers, by diffusers' names."""
    tensors = {}
    for number, name in enumerate(LAYERS):
        layer: Any = pipeline.transformer.get_submodule(name)
        tensors[f"{name}.lora_A.weight"] = noise(RANK, layer.in_features, seed=number)
        tensors[f"{name}.lora_B.weight"] = 0.3 * noise(layer.out_features, RANK, seed=number + 100)
    return tensors


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """As anyone's CogVideoX adapter is saved."""
    CogVideoXPipeline.save_lora_weights(tmp_path, transformer_lora_layers=adapter(tiny_pipeline()))
    return tmp_path / "pytorch_lora_weights.safetensors"


def video(pipeline: FantasyIDPipeline) -> Tensor:
    frames: Tensor = pipeline(
        "a nod", identity_inputs=tiny_person(), generator=torch.Generator().manual_seed(0), output_type="latent"
    ).frames
    return frames


@pytest.mark.parametrize("scale", [1.0, 0.5, -1.0])
def test_merging_is_adding_the_product_of_the_factors(file: Path, scale: float) -> None:
    pipeline, tensors = tiny_pipeline(), adapter(tiny_pipeline())
    wanted = {name: weight.clone() for name, weight in pipeline.transformer.state_dict().items()}
    for name in LAYERS:
        wanted[f"{name}.weight"] += scale * tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
    pipeline.merge_lora(file, scale)
    found = pipeline.transformer.state_dict()
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, atol=1e-6, rtol=1e-5, msg=name)
    changed = {
        name for name, weight in tiny_pipeline().transformer.state_dict().items() if (weight != found[name]).any()
    }
    assert changed == {f"{name}.weight" for name in LAYERS}


def test_beside_the_weights_it_does_the_same_and_can_be_taken_away(file: Path) -> None:
    plain, merged, beside = tiny_pipeline(), tiny_pipeline(), tiny_pipeline()
    merged.merge_lora(file, 0.5)
    beside.load_lora_weights(file.parent, weight_name=file.name, adapter_name="one")
    beside.set_adapters("one", 0.5)
    torch.testing.assert_close(video(beside), video(merged), atol=1e-4, rtol=1e-4)
    assert (video(beside) - video(plain)).abs().max() > 1e-2
    beside.unload_lora_weights()
    assert torch.equal(video(beside), video(plain))


def test_several_are_merged_one_after_the_other(file: Path) -> None:
    twice, double = tiny_pipeline(), tiny_pipeline()
    for _ in range(2):
        twice.merge_lora(file)
    double.merge_lora(file, 2.0)
    for one, other in zip(twice.transformer.parameters(), double.transformer.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def spoilt(change: str) -> dict[str, Tensor]:
    tensors = {f"transformer.{name}": tensor for name, tensor in adapter(tiny_pipeline()).items()}
    name = "transformer.transformer_blocks.0.attn1.to_q.lora_A.weight"
    if change == "of another kind":
        return {"lora_unet_blocks_0_to_q.lora_down.weight": torch.zeros(3, 3)}
    if change == "without its prefix":
        return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    if change == "for more blocks":
        tensors[name.replace("blocks.0", "blocks.30")] = tensors[name].clone()
    if change == "for a larger base":
        tensors[name] = torch.zeros(RANK, 1920)
    if change == "with half missing":
        del tensors[name]
    if change == "with infinite numbers":
        tensors[name][0, 0] = torch.inf
    return {} if change == "empty" else tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("of another kind", "is no LoRA of a video transformer: it holds 'lora_unet_blocks_0_to_q"),
        ("without its prefix", "is no LoRA of a video transformer"),
        (
            "for more blocks",
            r"changes transformer_blocks\.30\.attn1\.to_q, which this model does not have; use the mod",
        ),
        ("for a larger base", r"is for a transformer with 1920 channels at .*attn1\.to_q, and this model has 32"),
        ("with half missing", r"holds half of an adapter for transformer_blocks\.0\.attn1\.to_q"),
        ("with infinite numbers", "holds numbers that are not finite in transformer"),
        ("empty", "holds no tensor"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path, change: str, message: str) -> None:
    save_file(spoilt(change), tmp_path / "odd.safetensors")
    pipeline = tiny_pipeline()
    with pytest.raises(InvalidRequestError, match=message):
        pipeline.merge_lora(tmp_path / "odd.safetensors")
    wanted = tiny_pipeline().transformer.state_dict()
    assert all(torch.equal(weight, wanted[name]) for name, weight in pipeline.transformer.state_dict().items())


def test_what_is_no_safetensors_is_not_read(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CorruptWeightsError, match=r"cut\.safetensors are damaged"):
        tiny_pipeline().merge_lora(tmp_path / "cut.safetensors")
    torch.save(load_file(file), tmp_path / "pickle.bin")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was read"))
    with pytest.raises(FantasyIDError, match=r"pickle\.bin are damaged"):
        tiny_pipeline().merge_lora(tmp_path / "pickle.bin")
    for given in ((tmp_path / "pickle.bin",), (tmp_path, "pickle.bin")):
        named = {"weight_name": given[1]} if len(given) > 1 else {}
        with pytest.raises(InvalidRequestError, match=r"pickle\.bin is no \.safetensors"):
            tiny_pipeline().load_lora_weights(given[0], **named)
