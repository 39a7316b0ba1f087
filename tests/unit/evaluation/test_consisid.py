"""diffusers' ConsisID as a system of a run: its own pipeline and file formats, with tiny networks of random weights."""

import ast
import json
import shutil
import sys
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, ConsisIDPipeline, ConsisIDTransformer3DModel
from PIL import Image
from skimage.data import astronaut
from transformers import T5EncoderModel, T5Tokenizer

from fantasyid.cli.evaluate_run import ConsisIDMaker
from fantasyid.core.errors import (
    CorruptWeightsError,
    InvalidRequestError,
    MissingWeightsError,
    NoFaceError,
    NotFiniteError,
)
from fantasyid.core.imaging import read_photo
from fantasyid.core.provenance import add_mark, declares_ai
from fantasyid.core.video import read_video, write_video
from fantasyid.evaluation.consisid.person import ConsisIDPerson, FaceUtilsReader
from fantasyid.evaluation.consisid.pipeline import ConsisID
from fantasyid.evaluation.consisid.request import ConsisIDRequest
from fantasyid.evaluation.run import RunItem, run
from fantasyid.evaluation.run_config import RunConfig, run_rows
from tests.commands import refusal
from tests.commands import run as run_command
from tests.tiny import noise, seeded
from tests.tiny_pipeline import SCHEDULER_CONFIG
from tests.tiny_release import write_base

TRANSFORMER_CONFIG: dict[str, Any] = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "in_channels": 8,
    "out_channels": 4,
    "time_embed_dim": 12,
    "text_embed_dim": 20,
    "num_layers": 2,
    "sample_width": 8,
    "sample_height": 8,
    "sample_frames": 9,
    "max_text_seq_length": 24,
    "use_rotary_positional_embeddings": True,
    "is_train_face": True,
    "cross_attn_interval": 1,
    "cross_attn_dim_head": 8,
    "cross_attn_num_heads": 2,
    "LFE_id_dim": 10,
    "LFE_vit_dim": 12,
    "LFE_depth": 5,
    "LFE_dim_head": 4,
    "LFE_num_heads": 2,
    "LFE_num_id_token": 2,
    "LFE_num_querie": 4,
    "LFE_output_dim": 32,
}
OPTIONS = {"folder": "weights", "num_inference_steps": 2, "height": 64, "width": 64, "num_frames": 9}
SYSTEM = {"name": "consisid", "consisid": OPTIONS}
PACKAGES = ("consisid_eva_clip", "facexlib", "insightface")
FACE_FILES = (
    "EVA02_CLIP_L_336_psz14_s6B.pt",
    "detection_Resnet50_Final.pth",
    "models/antelopev2/glintr100.onnx",
    "models/antelopev2/scrfd_10g_bnkps.onnx",
    "parsing_bisenet.pth",
    "parsing_parsenet.pth",
)
CONFIG = {
    "people": {"photos": "photos"},
    "prompts": [{"key": "smile", "text": "{person} smiles.", "asks": ["expression"]}],
    "seeds": [7],
    "systems": [SYSTEM],
    "compared_with": "consisid",
}


@dataclass
class PixelReader:
    """Tells ConsisID of a person by the photo's pixels, in the shapes of its tiny transformer."""

    folder: Path
    device: torch.device
    dtype: torch.dtype
    fingerprint: str = "pixels"

    def person(self, photo: Path) -> ConsisIDPerson:
        """The person whose embeddings are drawn from the sum of the pixels."""
        pixels = read_photo(photo)
        seed = int(pixels.sum())
        hidden = tuple(noise(1, 6, 12, seed=seed + layer) for layer in range(5))
        return ConsisIDPerson(noise(1, 10, seed=seed), hidden, Image.fromarray(pixels), np.zeros((5, 2)))


def write_weights(folder: Path, **changes: Any) -> Path:
    """A folder of ConsisID's pipeline as diffusers saves it."""
    write_base(folder)
    shutil.rmtree(folder / "scheduler")
    ConsisIDPipeline(
        tokenizer=T5Tokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=T5EncoderModel.from_pretrained(folder / "text_encoder"),
        vae=AutoencoderKLCogVideoX.from_pretrained(folder / "vae"),
        transformer=seeded(ConsisIDTransformer3DModel, **TRANSFORMER_CONFIG | changes),
        scheduler=CogVideoXDPMScheduler(**SCHEDULER_CONFIG),
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("consisid") / "weights")


@pytest.fixture
def folder(tmp_path: Path, weights: Path) -> Path:
    """The weights, and two people's photos."""
    shutil.copytree(weights, tmp_path / "weights")
    (tmp_path / "photos").mkdir()
    face = astronaut()[20:220, 130:330]
    for name, picture in (("a", face), ("b", np.ascontiguousarray(face[:, ::-1] // 2))):
        Image.fromarray(picture).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path


def maker(base: Path, /, **changes: object) -> ConsisIDMaker:
    return ConsisIDMaker(ConsisIDRequest.model_validate(OPTIONS | changes), base, PixelReader)


def carry_out(folder: Path) -> list[RunItem]:
    config = RunConfig.model_validate(CONFIG)
    rows = list(run_rows(config, folder))
    return run(config, rows, folder, folder / "out", {"consisid": partial(maker, folder)})


def write_config(folder: Path, **changes: object) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(CONFIG | {"systems": [SYSTEM | {"consisid": OPTIONS | changes}]}))
    return path


def test_a_run_makes_and_judges_its_videos_once(folder: Path) -> None:
    items = carry_out(folder)
    assert [(item.system, item.person, item.failure) for item in items] == [
        ("consisid", "a", None),
        ("consisid", "b", None),
    ]
    assert all(item.measured["detection_rate"].value == (0, 9) for item in items)
    files = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*_7.*")}
    assert len(files) == 4
    assert carry_out(folder) == items
    assert {path: path.stat().st_mtime_ns for path in files} == files
    result = run_command("evaluate", "table", write_config(folder), "--out", folder / "out")
    assert result.exit_code == 0, result.output
    assert "| consisid |" in result.stdout


def test_its_videos_are_marked_as_ours_are(folder: Path) -> None:
    own, asked = maker(folder, width=96, num_frames=17).consisid, (folder / "photos" / "a.png", "a person smiles", 7)
    own.save(folder / "video.mp4", *asked)
    plain = own.frames(*asked)
    write_video(folder / "plain.mp4", plain, 8)
    frames, fps = read_video(folder / "video.mp4")
    change = frames.astype(float) - read_video(folder / "plain.mp4")[0]
    mark = add_mark(plain).astype(float) - plain
    assert (change * mark).sum() > 0.5 * (mark**2).sum(), "1 but for the codec; 0 without the mark"
    assert (fps, frames.shape) == (8, (17, 64, 96, 3))
    assert declares_ai(folder / "video.mp4")


def test_the_frames_are_those_of_its_own_pipeline(folder: Path) -> None:
    photo = folder / "photos" / "a.png"
    own = maker(folder).consisid
    frames = own.frames(photo, "a person smiles", 7)
    pipeline = ConsisIDPipeline.from_pretrained(folder / "weights", torch_dtype=own.dtype).to(own.device)
    pipeline.set_progress_bar_config(disable=True)
    person = PixelReader(own.folder, own.device, own.dtype).person(photo)
    expected = pipeline(
        image=person.face,
        prompt="a person smiles",
        height=64,
        width=64,
        num_frames=9,
        num_inference_steps=2,
        guidance_scale=6.0,
        generator=torch.Generator().manual_seed(7),
        id_cond=person.id_cond,
        id_vit_hidden=list(person.id_vit_hidden),
        max_sequence_length=24,
        output_type="np",
    ).frames[0]
    np.testing.assert_array_equal(frames, (expected * 255).round().astype(np.uint8))


def test_person_prompt_seed_and_options_decide_the_video(folder: Path) -> None:
    photos = folder / "photos"
    own = maker(folder).consisid
    first = own.frames(photos / "a.png", "a", 7)
    np.testing.assert_array_equal(own.frames(photos / "a.png", "a", 7), first)
    for others in ((photos / "b.png", "a", 7), (photos / "a.png", "b", 7), (photos / "a.png", "a", 8)):
        assert (own.frames(*others) != first).any()
    for change in ({"guidance_scale": 1.0}, {"num_inference_steps": 3}):
        assert (maker(folder, **change).consisid.frames(photos / "a.png", "a", 7) != first).any()


def test_what_a_video_is_made_of_names_all_that_decides_it(folder: Path) -> None:
    row, other = run_rows(RunConfig.model_validate(CONFIG), folder)
    made_of = maker(folder).made_of(row)
    assert maker(folder).made_of(row) == made_of
    assert maker(folder).made_of(other) != made_of
    for field in ("num_inference_steps", "guidance_scale", "height", "width", "num_frames"):
        assert maker(folder, **{field: 112 if field in ("height", "width") else 17}).made_of(row) != made_of
    shutil.move(folder / "weights", folder / "moved")
    assert maker(folder, folder="moved").made_of(row) == made_of, "the same weights elsewhere"
    config = folder / "moved" / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace('"snr_shift_scale": 1.0', '"snr_shift_scale": 3.0'))
    assert maker(folder, folder="moved").made_of(row) != made_of


def test_what_cannot_be_made_is_told_of_that_video(folder: Path) -> None:
    (folder / "photos" / "a.png").write_bytes(b"no photo")
    first, second = carry_out(folder)
    assert first.failure is not None
    assert first.failure.startswith("UnreadablePhotoError: ")
    assert second.failure is None


def test_a_prompt_that_it_would_cut_off_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"has 2\d tokens and ConsisID reads 24; shorten it"):
        maker(folder).consisid.frames(folder / "photos" / "a.png", "abcde fghij klmno pqrst", 7)


def test_a_size_without_learned_positions_is_refused(folder: Path) -> None:
    weights = write_weights(folder / "learned", use_learned_positional_embeddings=True)
    photo = folder / "photos" / "a.png"
    assert len(maker(folder, folder=weights).consisid.frames(photo, "a", 7)) == 9
    for change in ({"height": 48}, {"num_frames": 17}):
        with pytest.raises(InvalidRequestError, match="makes videos of 64x64 with at most 9 frames, not"):
            maker(folder, folder=weights, **change).consisid.frames(photo, "a", 7)


def test_numbers_that_are_not_finite_are_no_video(folder: Path) -> None:
    own = maker(folder).consisid

    class Broken(PixelReader):
        def person(self, photo: Path) -> ConsisIDPerson:
            person = super().person(photo)
            return ConsisIDPerson(person.id_cond * torch.nan, person.id_vit_hidden, person.face, person.keypoints)

    broken = ConsisID(own.request, own.folder, own.device, own.dtype, Broken)
    with pytest.raises(NotFiniteError):
        broken.frames(folder / "photos" / "a.png", "a", 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_inference_steps": 0}, "consisid.num_inference_steps: "),
        ({"guidance_scale": 101}, "consisid.guidance_scale: "),
        ({"guidance_scale": float("nan")}, "consisid.guidance_scale: "),
        ({"height": 72}, "consisid.height: Input should be a multiple of 16"),
        ({"width": 0}, "consisid.width: "),
        ({"num_frames": 53}, "53 frames cannot be made; it must be 1 more than a multiple of 8"),
        ({"num_frames": 1}, "consisid.num_frames: "),
        ({"steps": 50}, "consisid.steps: Extra inputs"),
    ],
)
def test_wrong_options_are_one_sentence(folder: Path, changes: dict[str, object], message: str) -> None:
    assert message in refusal("evaluate", "run", write_config(folder, **changes), "--out", folder / "out")
    assert not (folder / "out").exists()


def test_the_defaults_are_those_of_its_pipeline() -> None:
    own = signature(ConsisIDPipeline.__call__).parameters
    asked = ConsisIDRequest(folder=Path()).model_dump(exclude={"folder"})
    assert asked == {name: own[name].default for name in asked}


def test_a_folder_that_is_no_consisid_is_refused(folder: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"There is no ConsisID in .*nowhere"):
        maker(folder, folder="nowhere")
    index = folder / "weights" / "model_index.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps(content | {"_class_name": "CogVideoXPipeline"}))
    with pytest.raises(CorruptWeightsError, match="is of a CogVideoXPipeline, not of a ConsisIDPipeline"):
        maker(folder)
    index.write_text(json.dumps(content | {"scheduler": ["os", "system"]}))
    with pytest.raises(CorruptWeightsError, match=r"says .'os', 'system'. of the scheduler, and it can be CogVideoX"):
        maker(folder)
    index.write_text(json.dumps(content))
    shutil.rmtree(folder / "weights" / "vae")
    with pytest.raises(MissingWeightsError, match=r"There is no folder .*vae"):
        maker(folder)


# The person, as diffusers' own code reads one

UTILS = "diffusers.pipelines.consisid.consisid_utils"


@pytest.fixture
def face_files(folder: Path) -> Path:
    """The folder with files where those of the face's networks are looked for."""
    for name in FACE_FILES:
        (folder / "weights" / "face_encoder" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "weights" / "face_encoder" / name).write_text(name)
    return folder


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_package_is_told_before_anything_is_made(
    face_files: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name, None if name == package else ModuleType(name))  # type: ignore[arg-type]
    told = refusal("evaluate", "run", write_config(face_files), "--out", face_files / "out")
    assert f"The package {package} is needed to read people for ConsisID" in told
    assert "pip install 'fantasyid[consisid]'" in told
    assert not (face_files / "out").exists()


def test_missing_files_of_the_face_are_told_and_not_downloaded(face_files: Path) -> None:
    (face_files / "weights" / "face_encoder" / "parsing_parsenet.pth").unlink()
    told = refusal("evaluate", "run", write_config(face_files), "--out", face_files / "out")
    assert "face_encoder lacks parsing_parsenet.pth; download all of ConsisID's weights." in told


def test_everything_is_handed_to_diffusers_code_by_its_name(face_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The true code needs gigabytes of weights; what stands in for it has its signatures."""
    spec = find_spec(UTILS)
    assert spec is not None
    assert spec.origin is not None
    code = {
        node.name: node for node in ast.parse(Path(spec.origin).read_text()).body if isinstance(node, ast.FunctionDef)
    }
    (returned,) = (node.value for node in ast.walk(code["prepare_face_models"]) if isinstance(node, ast.Return))
    assert isinstance(returned, ast.Tuple)
    models = [node.id for node in returned.elts if isinstance(node, ast.Name)]
    parameters = [argument.arg for argument in code["process_face_embeddings_infer"].args.args]
    calls: list[dict[str, object]] = []
    picture = Image.new("RGB", (512, 512))

    def process(*given: object, **named: object) -> tuple[object, ...]:
        calls.append(dict(zip(parameters, given, strict=False)) | named)
        return torch.zeros(1, 1280), [torch.zeros(1, 577, 1024)] * 5, picture, np.zeros((5, 2))

    def no_face(*given: object, **named: object) -> None:
        raise IndexError("list index out of range")

    utils = ModuleType(UTILS)
    vars(utils).update(prepare_face_models=lambda path, device, dtype: models, process_face_embeddings_infer=process)
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, UTILS, utils)
    photo = face_files / "photos" / "a.png"
    reader = FaceUtilsReader(face_files / "weights", torch.device("cpu"), torch.float32)
    person = reader.person(photo)
    assert (person.id_cond.shape, len(person.id_vit_hidden), person.face) == ((1, 1280), 5, picture)
    (given,) = calls
    np.testing.assert_array_equal(given.pop("img_file_path"), read_photo(photo))  # type: ignore[arg-type]
    assert given == {
        "face_helper_1": "face_helper_1",
        "clip_vision_model": "face_clip_model",
        "face_helper_2": "face_helper_2",
        "eva_transform_mean": "eva_transform_mean",
        "eva_transform_std": "eva_transform_std",
        "app": "face_main_model",
        "device": "cpu",
        "weight_dtype": torch.float32,
        "is_align_face": True,
    }
    vars(utils).update(process_face_embeddings_infer=no_face)
    with pytest.raises(NoFaceError, match=r"ConsisID finds no face in the photo .*a\.png"):
        reader.person(photo)
    before = reader.fingerprint

    def damaged(path: str, device: str, dtype: torch.dtype) -> None:
        raise EOFError("Ran out of input")

    vars(utils).update(prepare_face_models=damaged)
    with pytest.raises(CorruptWeightsError, match=r"face_encoder cannot be read \(EOFError: Ran out of input\)"):
        FaceUtilsReader(face_files / "weights", torch.device("cpu"), torch.float32).person(photo)
    (face_files / "weights" / "face_encoder" / "parsing_bisenet.pth").write_text("other weights")
    assert FaceUtilsReader(face_files / "weights", torch.device("cpu"), torch.float32).fingerprint != before
