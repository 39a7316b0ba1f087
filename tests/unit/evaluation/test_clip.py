"""The CLIP score, with a tiny CLIP of random weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from fantasyid.core.errors import CorruptWeightsError, InvalidRequestError
from fantasyid.core.video import write_video
from fantasyid.evaluation.clip import Clip
from fantasyid.evaluation.identity import FaceTrack, Judge
from fantasyid.evaluation.metrics.interface import value_of_one
from fantasyid.evaluation.metrics.registry import metric_of
from fantasyid.evaluation.seen import Instruments, SeenVideo
from fantasyid.evaluation.tables import RunTable
from tests.commands import refusal
from tests.commands import run as run_command
from tests.unit.evaluation.seen_videos import UNASKED, person, tiny_instruments

TEXT = "a person smiles"
FRAMES = np.random.default_rng(3).integers(0, 256, (40, 32, 32, 3), np.uint8) // np.array([1, 2, 8], np.uint8)
"""Reddish ones, of the tiny model's size."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip")
    letters = [chr(code) + end for end in ("", "</w>") for code in range(ord("a"), ord("z") + 1)]
    vocabulary = {token: index for index, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(path)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(path)
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": vocabulary["<|startoftext|>"], "eos_token_id": vocabulary["<|endoftext|>"]}
    text = {**layers, **ends, "vocab_size": len(vocabulary), "max_position_embeddings": 20}
    vision = {**layers, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.2)
    model.save_pretrained(path)
    return path


def video_of(frames: NDArray[np.uint8], clip: Clip | None, text: str = TEXT) -> SeenVideo:
    tiny = tiny_instruments(UNASKED)
    instruments = Instruments(UNASKED, tiny.face_reader, tiny.face_vision, "", clip=clip)
    video = SeenVideo(lambda: frames, 8, instruments, "", text=text)
    video.track = FaceTrack((None,) * len(frames), (None,) * len(frames))
    return video


def score(frames: NDArray[np.uint8], clip: Clip | None, text: str = TEXT) -> float | None:
    return value_of_one(metric_of("clip_score"), video_of(frames, clip, text), person(np.ones(3, np.float32)))


def write_run(folder: Path, clip: Path, *prompts: tuple[str, str]) -> Path:
    """The config of a run of one person, with a still video of the photo for each prompt's key and text."""
    photo = np.ascontiguousarray(astronaut()[:256, 96:352])
    for name in ("photos", "videos"):
        (folder / name).mkdir()
    Image.fromarray(photo).save(folder / "photos" / "a.png")
    for key, _ in prompts:
        write_video(folder / "videos" / f"a_{key}_1.mp4", np.stack([photo] * 2), 8)
    config = {
        "people": {"photos": "photos"},
        "prompts": [{"key": key, "text": text} for key, text in prompts],
        "seeds": [1],
        "systems": [{"name": "theirs", "videos": {"folder": "videos"}}],
        "compared_with": "theirs",
        "clip_folder": str(clip),
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder / "run.yaml"


def by_logits(folder: Path, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Hundredfold cosines of RGB frames, from the model's own logits and the colours' means and deviations."""
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    pixels = torch.from_numpy((frames / 255 - mean) / deviation).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = model(**tokenizer(TEXT, return_tensors="pt"), pixel_values=pixels).logits_per_image[:, 0]
        return (100 * logits / model.logit_scale.exp()).double().numpy()


def test_the_score_is_that_of_rgb_frames(folder: Path) -> None:
    cosines = by_logits(folder, FRAMES)
    sign = np.sign(cosines[:5].mean())
    clip = Clip.load(folder)
    if sign < 0:
        with torch.no_grad():
            clip.model.text_projection.weight.neg_()
    assert score(FRAMES[:5], clip) == pytest.approx(abs(cosines[:5].mean()), rel=1e-5)
    bgr = abs(by_logits(folder, FRAMES[:5, ..., ::-1]).mean())
    assert bgr != pytest.approx(abs(cosines[:5].mean()), rel=1e-3), "the order of colours tells"
    picks = [round(place * 39 / 15) for place in range(16)]
    assert score(FRAMES, clip) == pytest.approx(abs(cosines[picks].mean()), rel=1e-5)
    with torch.no_grad():
        clip.model.text_projection.weight.neg_()
    assert score(FRAMES[:5], clip) == 0
    assert score(FRAMES[:5], None) is None


def test_a_prompt_that_is_too_long_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"'a{19}' has 21 tokens and this CLIP model reads 20; shorten it"):
        score(FRAMES[:1], Clip.load(folder), "a" * 19)


def test_of_a_video_with_a_prompt_that_is_too_long_the_other_numbers_are_there(folder: Path, tmp_path: Path) -> None:
    config = write_run(tmp_path, folder, ("smile", TEXT), ("long", "a" * 19))
    result = run_command("evaluate", "run", config, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "1 numbers of single videos could not be measured; the tables say why." in result.stderr
    assert "videos failed" not in result.stderr
    table = RunTable.model_validate_json((tmp_path / "out" / "table.json").read_text())
    assert table.failures == {}
    assert list(table.unmeasured) == ["theirs, a_long_1, CLIP score"]
    lines = {column.key: column.lines[0].value for column in table.columns}
    items = {path.stem: json.loads(path.read_text())["measured"] for path in (tmp_path / "out").rglob("items/*/*.json")}
    assert lines["clip_score"] == items["a_smile_1"]["clip_score"]["value"]
    assert items["a_smile_1"]["clip_score"]["failure"] is None
    assert {key for key, kept in items["a_long_1"].items() if kept["failure"]} == {"clip_score"}
    assert lines["detection_rate"] == 1
    assert lines["reference_similarity"] == pytest.approx(1, abs=0.1)
    assert "a_long_1, CLIP score: InvalidRequestError: The prompt 'aaaa" in (tmp_path / "out" / "table.md").read_text()


def test_weights_in_half_precision_are_computed_in_full(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "half")
    CLIPModel.from_pretrained(folder).half().save_pretrained(tmp_path / "half")
    assert Clip.load(tmp_path / "half").model.dtype == torch.float32


def test_what_is_kept_knows_the_model_and_the_prompt(folder: Path) -> None:
    clip = Clip.load(folder)
    without, given = (Instruments.load(Judge.builtin(), clip=model) for model in (None, clip))
    assert given.clip is clip
    assert given.fingerprint != without.fingerprint
    assert video_of(FRAMES[:1], clip).fingerprint != video_of(FRAMES[:1], clip, "another").fingerprint


def test_a_damaged_model_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CorruptWeightsError, match=r"holds no CLIP model .*; download it again"):
        Clip.load(tmp_path)


def test_a_run_says_that_the_model_is_missing(tmp_path: Path) -> None:
    config = write_run(tmp_path, tmp_path / "clip", ("smile", TEXT))
    said = refusal("evaluate", "run", config, "--out", tmp_path / "out")
    assert f"There is no {tmp_path / 'clip' / 'model.safetensors'}; download all of a CLIP model" in said
