import json
import shutil
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fantasyid.checkpoints.full_size import PARTS, FullSizePart, check_pipeline_folder, load_eva_clip, missing_weights
from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.eva_clip import visual_shapes
from tests.tiny_pipeline import tiny_pipeline

TEXT_ENCODER, EVA = PARTS[0], PARTS[-1]


def published_eva() -> dict[str, Tensor]:
    """All names and true shapes of EVA02-CLIP-L/14-336's visual tower; each tensor repeats one stored number."""
    shapes = visual_shapes(1024, 2730, num_layers=24, grid=24, patch_size=14, out=768)
    shapes["rope.freqs_cos"] = (576, 64)
    shapes |= {f"blocks.{layer}.attn.rope.freqs_sin": (576, 64) for layer in range(24)}
    # Views of one storage, so that the file is small.
    shared = torch.ones(max(prod(shape) for shape in shapes.values()), dtype=torch.float16)
    state = {f"visual.{key}": shared[: prod(shape)].view(shape) for key, shape in shapes.items()}
    return {**state, "logit_scale": torch.zeros(()), "text.positional_embedding": torch.zeros(77, 1)}


def fill_cache(cache: Path, part: FullSizePart) -> Path:
    """An empty snapshot of a part's repository in a Hub cache."""
    repository = cache / f"models--{part.repository.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    return snapshot


def test_a_published_file_of_true_shapes_becomes_the_face_vision_net(tmp_path: Path) -> None:
    for wrapped in (False, True):
        path = tmp_path / "eva.pt"
        torch.save({"module": published_eva()} if wrapped else published_eva(), path)
        model = load_eva_clip(path)
        assert (model.config.num_layers, model.dtype) == (20, torch.float16)
        assert sum(parameter.numel() for parameter in model.parameters()) == 253_235_488


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"no file .*absent\.pt.*0\.9 GB.*QuanSun/EVA-CLIP"):
        load_eva_clip(tmp_path / "absent.pt")
    torch.save({"visual.cls_token": shutil.rmtree}, tmp_path / "function.pt")
    with pytest.raises(CorruptWeightsError, match=r"function\.pt is no readable PyTorch file"):
        load_eva_clip(tmp_path / "function.pt")
    torch.save({"visual.cls_token": torch.zeros(1, 1, 768)}, tmp_path / "smaller.pt")
    with pytest.raises(CorruptWeightsError, match="EVA02-CLIP"):
        load_eva_clip(tmp_path / "smaller.pt")


def test_parts_name_size_terms_and_remedy(tmp_path: Path) -> None:
    assert {part.path for part in PARTS} >= {"text_encoder", "vae", "transformer"}
    for part in PARTS:
        assert part.licence
        with pytest.raises(MissingWeightsError, match=r"get it \(\d+\.\d GB\) with: hf download") as caught:
            part.find(tmp_path)
        assert part.repository in str(caught.value)


def test_parts_are_found_in_the_cache_when_whole(tmp_path: Path) -> None:
    snapshot = fill_cache(tmp_path, TEXT_ENCODER)
    folder = snapshot / TEXT_ENCODER.path
    folder.mkdir()
    index = {
        "metadata": {"total_size": 9_500_000_000},
        "weight_map": {"a": "1-of-2.safetensors", "b": "2-of-2.safetensors"},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "1-of-2.safetensors").touch()
    with pytest.raises(MissingWeightsError, match="T5-XXL lacks 2-of-2"):
        TEXT_ENCODER.find(tmp_path)
    (folder / "2-of-2.safetensors").touch()
    assert TEXT_ENCODER.find(tmp_path) == folder
    snapshot = fill_cache(tmp_path, EVA)
    with pytest.raises(MissingWeightsError, match=EVA.path):
        EVA.find(tmp_path)
    (snapshot / EVA.path).touch()
    assert EVA.find(tmp_path) == snapshot / EVA.path


def test_a_pipeline_that_lacks_files_names_them_before_anything_is_read(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(tmp_path, max_shard_size="20KB")
    check_pipeline_folder(tmp_path, {name: type(part).__name__ for name, part in pipeline.components.items()})
    shard = sorted((tmp_path / "transformer").glob("*.safetensors"))[1]
    shard.unlink()
    assert missing_weights(tmp_path / "transformer") == (shard,)
    for file in (tmp_path / "vae").glob("*.safetensors*"):
        file.unlink()
    shutil.rmtree(tmp_path / "scheduler")
    with pytest.raises(MissingWeightsError) as caught:
        FantasyIDPipeline.from_pretrained(tmp_path)
    message = str(caught.value)
    assert f"transformer (FantasyIDTransformer3DModel): {shard.name} of 0.0 GB in all" in message
    assert "vae (AutoencoderKLCogVideoX): *.safetensors" in message
    assert "scheduler (CogVideoXDDIMScheduler)" in message
    assert "face_vision" not in message
    assert "hf download" not in message
    given = {name: getattr(pipeline, name) for name in ("transformer", "vae", "scheduler")}
    assert FantasyIDPipeline.from_pretrained(tmp_path, **given).vae is pipeline.vae


def test_a_full_size_pipeline_says_where_its_text_encoder_and_vae_come_from(tmp_path: Path) -> None:
    index = {
        "_class_name": "FantasyIDPipeline",
        "text_encoder": ["transformers", "T5EncoderModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
        "identity_encoder": [None, None],
        "fps": 8,
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(MissingWeightsError, match=r"T5EncoderModel.*9\.5 GB.*text_encoder/\*.*--local-dir") as caught:
        FantasyIDPipeline.from_pretrained(tmp_path)
    assert "identity_encoder" not in str(caught.value)


def test_a_folder_without_an_index_is_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"no model_index\.json"):
        FantasyIDPipeline.from_pretrained(tmp_path)
