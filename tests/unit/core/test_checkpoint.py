"""Packed weights: what is stored comes back, and anything else is refused by name."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import safetensors.torch
import torch

from fantasyid.core.checkpoint import SHARD_LIMIT, load_packed, save_packed, verify_packed
from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError


def make_state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "linear.weight": torch.randn(96, 64, generator=generator) * torch.logspace(-6, 1, 96)[:, None],
        "conv.weight": torch.randn(32, 16, 3, 3, generator=generator),
        "queries": torch.randn(1, 64, 96, generator=generator),
        "linear.bias": torch.randn(96, generator=generator),
        "small.weight": torch.randn(4, 4, generator=generator).bfloat16(),
        "dead_row.weight": torch.zeros(64, 64),
        "pooling": torch.rand(64, 64, generator=generator),
        "spiral": torch.arange(5000).view(500, 10),
    }


def save(folder: Path, storage: str = "int8", **changes: torch.Tensor) -> dict[str, torch.Tensor]:
    state = {**make_state(), **changes}
    config = {"dim": 64, "levels": (1, 2), "_name_or_path": "somewhere"}
    save_packed(state, folder, "net", storage, model_class="Net", config=config, exact={"pooling"})
    return state


def test_int8_error_is_at_most_half_a_level_of_its_row(tmp_path: Path) -> None:
    state = save(tmp_path)
    loaded = load_packed(tmp_path, "net")
    assert loaded.keys() == state.keys()
    for key, rows in [("linear.weight", 96), ("conv.weight", 32), ("queries", 64), ("dead_row.weight", 64)]:
        original, packed = state[key].reshape(rows, -1), loaded[key].reshape(rows, -1)
        level = original.abs().amax(dim=1, keepdim=True) / 127
        assert ((packed - original).abs() <= level * 0.501).all(), key
        assert loaded[key].dtype == torch.float32
        assert loaded[key].shape == state[key].shape


def test_small_tables_integers_and_exact_names_are_unchanged(tmp_path: Path) -> None:
    state = save(tmp_path)
    loaded = load_packed(tmp_path, "net")
    for key in ["linear.bias", "small.weight", "pooling", "spiral"]:
        assert torch.equal(loaded[key], state[key]), key
        assert loaded[key].dtype == state[key].dtype


def test_float16_storage(tmp_path: Path) -> None:
    state = save(tmp_path, "float16")
    loaded = load_packed(tmp_path, "net")
    assert torch.equal(loaded["conv.weight"], state["conv.weight"].half().float())
    with pytest.raises(ValueError, match="float16"):
        save(tmp_path, "float16", **{"conv.weight": torch.full((64, 64), 1e6)})


@pytest.mark.parametrize("storage", ["int8", "float16"])
def test_weights_for_earlier_frames_that_are_zero_take_no_room(tmp_path: Path, storage: str) -> None:
    video = torch.randn(32, 16, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    newest = torch.cat([torch.zeros(32, 16, 2, 3, 3), video[:, :, 2:]], dim=2)
    shifted = torch.cat([video[:, :, :1], torch.zeros(32, 16, 2, 3, 3)], dim=2)
    nothing = torch.zeros(32, 16, 3, 3, 3)
    state = save(tmp_path, storage, newest=newest, whole=video, shifted=shifted, nothing=nothing)
    manifest, loaded = verify_packed(tmp_path, "net"), load_packed(tmp_path, "net")
    skipped = {key: tensor.zeros_before for key, tensor in manifest.tensors.items() if tensor.zeros_before}
    assert skipped == {"newest": 2}
    stored = safetensors.torch.load_file(tmp_path / "net" / manifest.shards[0].file)
    assert stored["newest"].shape == (32, 16, 1, 3, 3)
    for key in ("newest", "whole", "shifted", "nothing"):
        assert loaded[key].shape == state[key].shape
        assert torch.allclose(loaded[key], state[key], atol=0.03)
    assert (loaded["newest"][:, :, :2] == 0).all()


@pytest.mark.parametrize("zeros", [3, -1, 1])
def test_zeros_that_the_file_does_not_leave_out_are_refused(tmp_path: Path, zeros: int) -> None:
    save(tmp_path, video=torch.randn(32, 16, 3, 3, 3))
    path = tmp_path / "net" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["tensors"]["video"]["zeros_before"] = zeros
    path.write_text(json.dumps(manifest))
    with pytest.raises(CorruptWeightsError):
        load_packed(tmp_path, "net")


def test_not_finite_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"linear\.bias"):
        save(tmp_path, **{"linear.bias": torch.tensor([1.0, float("nan")])})


def test_manifest_names_class_config_and_hashes(tmp_path: Path) -> None:
    save(tmp_path)
    manifest = verify_packed(tmp_path, "net")
    assert manifest.model_class == "Net"
    assert manifest.config == {"dim": 64, "levels": [1, 2]}
    assert manifest.shards[0].size_bytes == (tmp_path / "net" / manifest.shards[0].file).stat().st_size


def test_shards_stay_under_the_limit(tmp_path: Path) -> None:
    state = {f"layer{index}.weight": torch.randn(3000, 3000) for index in range(3)}
    save_packed(state, tmp_path, "big", model_class="Net", config={})
    sizes = [file.stat().st_size for file in (tmp_path / "big").glob("*.safetensors")]
    assert len(sizes) == 3
    assert max(sizes) <= SHARD_LIMIT
    assert load_packed(tmp_path, "big").keys() == state.keys()


def test_saving_again_replaces_all_shards(tmp_path: Path) -> None:
    save(tmp_path)
    old = verify_packed(tmp_path, "net").shards[0].file
    changed = save(tmp_path, **{"linear.bias": torch.ones(96)})
    assert torch.equal(load_packed(tmp_path, "net")["linear.bias"], changed["linear.bias"])
    names = {file.name for file in (tmp_path / "net").iterdir()}
    assert names == {"manifest.json", verify_packed(tmp_path, "net").shards[0].file}
    assert old not in names


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"net.manifest\.json.*--force-reinstall"):
        load_packed(tmp_path, "net")
    save(tmp_path)
    shard = next((tmp_path / "net").glob("*.safetensors"))
    shard.unlink()
    with pytest.raises(MissingWeightsError, match=shard.name):
        load_packed(tmp_path, "net")


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: b"", lambda d: d[:9] + b"[" + d[10:], lambda d: d + b"a"]
)
def test_a_damaged_shard_whose_hash_is_right_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    save(tmp_path)
    change_shard(tmp_path / "net", damage(next((tmp_path / "net").glob("*.safetensors")).read_bytes()))
    with pytest.raises(CorruptWeightsError, match=r"The weights .*safetensors are damaged: .*--force-reinstall"):
        load_packed(tmp_path, "net")


@pytest.mark.parametrize(
    ("key", "tensor"),
    [
        ("linear.weight", torch.zeros(96, 64)),
        ("linear.weight:scale", torch.zeros(1)),
        ("linear.weight:scale", torch.zeros(96, dtype=torch.int64)),
    ],
)
def test_tensors_must_be_stored_as_the_manifest_says(tmp_path: Path, key: str, tensor: torch.Tensor) -> None:
    save(tmp_path)
    shard = next((tmp_path / "net").glob("*.safetensors"))
    stored = safetensors.torch.load(shard.read_bytes())
    change_shard(tmp_path / "net", safetensors.torch.save({**stored, key: tensor}))
    with pytest.raises(CorruptWeightsError, match=r"linear\.weight is not stored as int8"):
        load_packed(tmp_path, "net")


@pytest.mark.parametrize("name", ["../other.safetensors", "/dev/zero", "weights-0.safetensors"])
def test_a_manifest_names_files_of_its_own_folder(tmp_path: Path, name: str) -> None:
    save(tmp_path)
    (tmp_path / "other.safetensors").write_bytes(b"a")
    change_manifest(tmp_path / "net", file=name)
    with pytest.raises(CorruptWeightsError, match=r"shards\.0\.file"):
        load_packed(tmp_path, "net")


def change_manifest(folder: Path, **shard: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0] |= shard
    (folder / "manifest.json").write_text(json.dumps(manifest))


def change_shard(folder: Path, content: bytes) -> None:
    """Put another content into the shard, with its hash and size in the manifest."""
    next(folder.glob("*.safetensors")).write_bytes(content)
    change_manifest(folder, sha256=sha256(content).hexdigest(), size_bytes=len(content))


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    save(tmp_path)
    shard = next((tmp_path / "net").glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptWeightsError, match=shard.name):
        load_packed(tmp_path, "net")


@pytest.mark.parametrize(
    ("field", "value"),
    [("layout", "fantasyid-packed-9"), ("shards", "none"), ("extra", 1)],
)
def test_a_manifest_of_another_form_is_refused(tmp_path: Path, field: str, value: object) -> None:
    save(tmp_path)
    path = tmp_path / "net" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, field: value}))
    with pytest.raises(CorruptWeightsError, match=field):
        load_packed(tmp_path, "net")


@pytest.mark.parametrize("change", ["dropped", "added", "reshaped"])
def test_tensors_must_be_those_of_the_manifest(tmp_path: Path, change: str) -> None:
    save(tmp_path)
    path = tmp_path / "net" / "manifest.json"
    manifest = json.loads(path.read_text())
    if change == "dropped":
        del manifest["tensors"]["linear.bias"]
    elif change == "added":
        manifest["tensors"]["other.bias"] = manifest["tensors"]["linear.bias"]
    else:
        manifest["tensors"]["linear.bias"]["shape"] = [95]
    path.write_text(json.dumps(manifest))
    with pytest.raises(CorruptWeightsError, match=r"(linear|other)\.bias"):
        load_packed(tmp_path, "net")
