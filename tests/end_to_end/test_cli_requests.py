"""What `fantasyid generate` can be asked for beside one video: again, several, another size, rate or form."""

import json
import shutil
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from fantasyid.cli.generate import _request
from fantasyid.cli.main import app
from fantasyid.conditioning.identity import read_identity
from fantasyid.core.errors import FantasyIDWarning, InvalidRequestError
from fantasyid.core.imaging import read_photo
from fantasyid.core.mesh_files import write_mesh
from fantasyid.core.provenance import DETECTION_THRESHOLD, detect_mark
from fantasyid.core.video import read_video
from fantasyid.generation.person import PersonFiles, read_person
from fantasyid.generation.progress import Progress
from fantasyid.generation.record import read_record
from fantasyid.generation.request import GenerationRequest, ModelRequest, PersonRequest
from fantasyid.generation.studio import Studio
from fantasyid.generation.studio import generate as generate_videos
from fantasyid.geometry.head_model import HeadModel
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.end_to_end.test_cli_generate import generate, model
from tests.tiny import noise

__all__ = ["model"]  # a fixture
FAST = ("--steps", "1", "--seed", "3")


def again(record: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["generate", "--from", str(record), "--out", str(out), *options])


def asked(record: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(record.read_text())["request"]
    return content


def test_a_video_is_made_again_from_its_record_and_with_changes(photo: Path, model: Path, tmp_path: Path) -> None:
    options = ("--guidance", "2", "--edit", "face-width=0.5", "--identity-scale", "0.5", "--negative-prompt", "a nod")
    first, record = tmp_path / "first.mp4", tmp_path / "first.json"
    assert generate(photo, first, model, *FAST, *options).exit_code == 0
    same = again(record, tmp_path / "same.mp4")
    assert same.exit_code == 0, same.output
    assert np.array_equal(read_video(tmp_path / "same.mp4")[0], read_video(first)[0])
    assert asked(tmp_path / "same.json") == asked(record)
    other = again(record, tmp_path / "other.mp4", "--seed", "4", "--identity-scale", "1", "--edit", "nose-length=0.1")
    assert other.exit_code == 0, other.output
    before, after = asked(record), asked(tmp_path / "other.json")
    assert {name for name in before if before[name] != after[name]} == {"seed", "identity_scale", "person"}
    assert after["person"]["edits"] == {"nose-length": 0.1}
    assert not np.array_equal(read_video(tmp_path / "other.mp4")[0], read_video(first)[0])


def test_a_record_is_only_followed_with_the_files_it_names(photo: Path, model: Path, tmp_path: Path) -> None:
    own = Path(shutil.copy(photo, tmp_path / "own.png"))
    record = tmp_path / "video.json"
    assert generate(own, tmp_path / "video.mp4", model, *FAST).exit_code == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("own.png", "video.json"):
        shutil.move(tmp_path / name, elsewhere / name)
    assert again(elsewhere / "video.json", tmp_path / "moved.mp4").exit_code == 0
    Image.new("RGB", (64, 64)).save(elsewhere / "own.png")
    changed = again(elsewhere / "video.json", tmp_path / "changed.mp4")
    assert changed.exit_code == 2
    assert "own.png is another file than the one" in " ".join(changed.stderr.split())
    (elsewhere / "own.png").unlink()
    missing = again(elsewhere / "video.json", tmp_path / "missing.mp4")
    assert "is not there; give the file" in " ".join(missing.stderr.split())
    assert again(elsewhere / "video.json", tmp_path / "anybody.mp4", "--no-identity").exit_code == 0
    given = CliRunner().invoke(
        app, ["generate", str(photo), "--from", str(elsewhere / "video.json"), "--out", str(tmp_path / "given.mp4")]
    )
    assert given.exit_code == 0, given.output
    assert not record.exists()


def test_an_adapter_is_merged_named_in_the_record_and_used_again(photo: Path, model: Path, tmp_path: Path) -> None:
    """Paths may hold a colon; what is named is the file by its content, so another one is not taken for it."""
    pytest.importorskip("peft")
    layer, file = "transformer.transformer_blocks.0.attn1.to_q", tmp_path / "a:1.safetensors"
    tensors = {f"{layer}.lora_A.weight": noise(2, 32), f"{layer}.lora_B.weight": noise(32, 2, seed=1)}
    save_file(tensors, file)
    plain, tuned = tmp_path / "plain.mp4", tmp_path / "tuned.mp4"
    assert generate(photo, plain, model, *FAST).exit_code == 0
    result = generate(photo, tuned, model, *FAST, "--lora", f"{file}:0.5")
    assert result.exit_code == 0, result.output
    assert not np.array_equal(read_video(tuned)[0], read_video(plain)[0])
    made = read_record(tmp_path / "tuned.json")
    assert made.lora_sha256 == (sha256(file.read_bytes()).hexdigest(),)
    assert [(lora.file, lora.scale) for lora in made.request.model.loras] == [(file, 0.5)]
    assert made.weights_sha256 != read_record(tmp_path / "plain.json").weights_sha256
    assert again(tmp_path / "tuned.json", tmp_path / "same.mp4").exit_code == 0
    assert np.array_equal(read_video(tmp_path / "same.mp4")[0], read_video(tuned)[0])
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, file)
    changed = again(tmp_path / "tuned.json", tmp_path / "changed.mp4")
    assert "a:1.safetensors is another file than the one" in " ".join(changed.stderr.split())
    missing = generate(photo, tmp_path / "missing.mp4", model, *FAST, "--lora", str(tmp_path / "none.safetensors"))
    assert "There is no file" in " ".join(missing.stderr.split())
    wild = generate(photo, tmp_path / "wild.mp4", model, *FAST, "--lora", f"{file}:99")
    assert "the scale of --lora is 99.0; it must be a number from -10 to 10" in " ".join(wild.stderr.split())


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"prompt": "an older record"}', "\xff"])
def test_what_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "video.json"
    path.write_text(content, encoding="latin-1")
    result = again(path, tmp_path / "video.mp4")
    assert result.exit_code == 2
    assert "is no record that this version reads" in " ".join(result.stderr.split())


def test_what_now_differs_is_warned_of(model: Path, tmp_path: Path) -> None:
    used = ModelRequest(name=str(model), device="cpu", dtype="float32")
    request = GenerationRequest(prompt="a nod", num_inference_steps=1, seed=0, model=used)
    studio = Studio(request.model)
    (video,) = studio.videos(request)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        studio.warn_of_differences(video.record)
    versions = video.record.versions.model_copy(update={"torch": "1.0"})
    changed = video.record.model_copy(update={"versions": versions, "weights_sha256": "0" * 64, "device": "abacus"})
    with pytest.warns(FantasyIDWarning, match=r"otherwise: torch 1\.0 then and .* now, abacus then .*, other weights"):
        studio.warn_of_differences(changed)


class Looking(Progress):
    """Looks at every preview."""

    def __init__(self) -> None:
        self.seen: list[NDArray[np.uint8]] = []

    def preview(self, draw: Callable[[], NDArray[np.uint8]]) -> None:
        self.seen.append(draw())


def test_a_look_at_the_frames_so_far_leaves_the_video_as_it_is(model: Path) -> None:
    used = ModelRequest(name=str(model), device="cpu", dtype="float32")
    request = GenerationRequest(prompt="a nod", num_inference_steps=3, seed=0, model=used)
    studio, looking = Studio(request.model), Looking()
    (video,) = studio.videos(request, progress=looking)
    assert [look.shape for look in looking.seen] == [(3, 128, 128, 3)] * 3  # one for each latent frame
    assert not np.array_equal(looking.seen[0], looking.seen[1])
    off = np.abs(looking.seen[-1][0].astype(int) - video.frames[0])
    assert np.median(off) <= 2  # the first frame is decoded without the others
    assert video.record.timings_s["preview"] > 0
    (unseen,) = studio.videos(request)
    assert np.array_equal(unseen.frames, video.frames)
    assert "preview" not in unseen.record.timings_s
    studio.pipeline.memory_plan = "low"
    list(studio.videos(request, progress=looking))
    assert len(looking.seen) == 3


def test_several_videos_have_seeds_that_count_up(photo: Path, model: Path, tmp_path: Path) -> None:
    result = generate(photo, tmp_path / "v.mp4", model, *FAST, "--num-videos", "2")
    assert result.exit_code == 0, result.output
    names = {f"v-{number}.{end}" for number in (1, 2) for end in ("mp4", "json", "jpg")}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert "Generating video 2 of 2: 1 steps" in result.stderr
    assert [asked(tmp_path / f"v-{number}.json")["seed"] for number in (1, 2)] == [3, 4]
    assert generate(photo, tmp_path / "second.mp4", model, "--steps", "1", "--seed", "4").exit_code == 0
    first, second, alone = (read_video(tmp_path / f"{name}.mp4")[0] for name in ("v-1", "v-2", "second"))
    assert np.array_equal(second, alone)
    assert not np.array_equal(second, first)
    (tmp_path / "v-2.json").rename(tmp_path / "v-3.json")
    refused = generate(photo, tmp_path / "v.mp4", model, *FAST, "--num-videos", "3")
    assert refused.exit_code == 2
    assert "v-1.mp4 is there already" in refused.stderr


def test_size_length_and_rate(photo: Path, model: Path, tmp_path: Path) -> None:
    options = ("--size", "64x128", "--frames", "1", "--fps", "12.5")
    result = generate(photo, tmp_path / "v.mp4", model, *FAST, *options)
    assert result.exit_code == 0, result.output
    frames, fps = read_video(tmp_path / "v.mp4")
    assert (frames.shape, fps) == ((1, 128, 64, 3), 12.5)
    for wrong, says in (
        (("--size", "64"), "--size is '64'; it must be width x height"),
        (("--size", "63x128"), "63"),
        (("--size", "0x128"), "--size is 0"),
        (("--frames", "4"), "4"),
        (("--frames", "0"), "--frames is 0"),
        (("--fps", "inf"), "--fps is inf"),
    ):
        refused = generate(photo, tmp_path / "wrong.mp4", model, *FAST, *wrong)
        assert refused.exit_code == 2, wrong
        assert says in " ".join(refused.stderr.split())


def test_a_negative_prompt_changes_the_video(photo: Path, model: Path, tmp_path: Path) -> None:
    for name, options in (("plain", ()), ("negative", ("--negative-prompt", "a nod"))):
        assert generate(photo, tmp_path / f"{name}.mp4", model, *FAST, "--guidance", "3", *options).exit_code == 0
    assert asked(tmp_path / "negative.json")["negative_prompt"] == "a nod"
    first, second = (read_video(tmp_path / f"{name}.mp4")[0] for name in ("plain", "negative"))
    assert not np.array_equal(first, second)


def test_the_pipeline_is_asked_for_what_the_request_says(
    photo: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = GenerationRequest(
        prompt="a nod",
        negative_prompt="a smile",
        person=PersonRequest(photos=(photo,)),
        use_reference=False,
        identity_scale=0.7,
        guidance_scale=3.5,
        guidance_interval=(0.1, 0.9),
        num_inference_steps=2,
        num_frames=1,
        height=64,
        width=96,
        seed=1,
        model=ModelRequest(name=str(model), device="cpu", dtype="float32"),
    )
    call, asked_for = FantasyIDPipeline.__call__, dict[str, Any]()

    def remember(pipeline: FantasyIDPipeline, **fields: Any) -> Any:
        asked_for.update(fields)
        return call(pipeline, **fields)

    monkeypatch.setattr(FantasyIDPipeline, "__call__", remember)
    generate_videos(request)
    elsewhere = {"person", "seed", "num_videos", "fps", "model"}
    for name, value in request.model_dump(exclude=elsewhere).items():
        assert asked_for[name] == value, name
    assert asked_for["generator"].initial_seed() == 1
    assert asked_for["identity_inputs"].reference_image.shape == (1, 3, 64, 96)


def test_pictures_are_written_into_a_folder(photo: Path, model: Path, tmp_path: Path) -> None:
    assert generate(photo, tmp_path / "v", model, *FAST, "--format", "png").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"v", "v.json", "v.jpg"}
    pictures = [Image.open(path) for path in sorted((tmp_path / "v").iterdir())]
    assert [Path(str(picture.filename)).name for picture in pictures] == [f"{index:04d}.png" for index in range(9)]
    assert all("trainedAlgorithmicMedia" in picture.info["XML:com.adobe.xmp"] for picture in pictures)
    assert detect_mark(np.asarray(picture) for picture in pictures) >= DETECTION_THRESHOLD
    assert generate(photo, tmp_path / "w", model, *FAST, "--format", "gif").exit_code == 0
    assert {path.name for path in tmp_path.glob("w*")} == {"w.gif", "w.json", "w.jpg"}
    for out, form, says in (("x.mp4", "gif", "does not fit the name"), ("x.mp4", "png", "into a folder")):
        refused = generate(photo, tmp_path / out, model, *FAST, "--format", form)
        assert refused.exit_code == 2
        assert says in " ".join(refused.stderr.split())
    refused = generate(photo, tmp_path / "v", model, *FAST, "--format", "png", "--overwrite")
    assert "is a folder; choose another name" in " ".join(refused.stderr.split())


def test_several_photos_of_one_person_give_the_mean_head(photo: Path, model: Path, tmp_path: Path) -> None:
    mirrored = tmp_path / "mirrored.png"
    Image.open(photo).transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(8).save(mirrored)
    pipeline = FantasyIDPipeline.from_pretrained(model)
    preparation, reader = pipeline.identity_preparation(), pipeline.face_reader
    request = PersonRequest(photos=(photo, mirrored))
    both = read_person(PersonFiles.read(request), request, pipeline, preparation)
    one, two = (read_identity(read_photo(path), reader, None, preparation)[0] for path in (photo, mirrored))
    assert torch.equal(both.inputs.vertices, (one.vertices + two.vertices) / 2)
    assert torch.equal(both.inputs.face_crop, one.face_crop)
    assert torch.equal(both.inputs.reference_image, one.reference_image)
    arguments = ["generate", str(photo), str(mirrored), "--prompt", "a nod", "--out", str(tmp_path / "v.mp4")]
    result = CliRunner().invoke(app, [*arguments, "--model", str(model), *FAST])
    assert result.exit_code == 0, result.output
    assert len(json.loads((tmp_path / "v.json").read_text())["photo_sha256"]) == 2


def test_a_preset_is_what_single_options_change(photo: Path, model: Path, tmp_path: Path) -> None:
    options = ("--preset", "draft", "--no-compile", "--no-fp8", "--attention", "math", "--cache-interval", "3")
    result = generate(photo, tmp_path / "v.mp4", model, *FAST, *options)
    assert result.exit_code == 0, result.output
    used = asked(tmp_path / "v.json")
    assert used["guidance_interval"] == [0.0, 0.6]
    wanted = {"compile": False, "fp8": False, "attention": "math", "cache": "taylor", "cache_interval": 3}
    assert {name: used["model"]["acceleration"][name] for name in wanted} == wanted
    without = again(tmp_path / "v.json", tmp_path / "w.mp4", "--cache", "none", "--prompt", "none")
    assert without.exit_code == 0, without.output
    used = asked(tmp_path / "w.json")
    assert (used["model"]["acceleration"]["cache"], used["prompt"]) == (None, "none")


@pytest.mark.parametrize(
    ("options", "ways"),
    [
        ({"identity": True}, (True, True)),
        ({"identity": True, "reference": False}, (False, True)),
        ({"reference": True}, (True, False)),
        ({}, (False, False)),
    ],
)
def test_what_a_record_leaves_out_can_be_switched_on_again(options: dict[str, Any], ways: tuple[bool, bool]) -> None:
    anybody = GenerationRequest(prompt="a nod", use_reference=False, use_identity_tokens=False)
    request = _request(anybody.model_dump(), {"photos": [Path(__file__)], **options})
    assert (request.use_reference, request.use_identity_tokens) == ways


def test_the_files_of_a_person_are_read_once(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the hashes of a record are of what was used, though the files change meanwhile."""
    head = HeadModel.load()
    mesh = tmp_path / "head.ply"
    write_mesh(mesh, head.mean.numpy(), head.triangles.numpy())
    opened: list[Path] = []
    plain = Path.open

    def counted(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return plain(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", counted)
    files = PersonFiles.read(PersonRequest(photos=(photo,), head_file=mesh))
    assert opened == [photo, mesh]
    assert files.photo_sha256 == (sha256(photo.read_bytes()).hexdigest(),)
    assert files.head_file_sha256 == sha256(mesh.read_bytes()).hexdigest()
    assert np.array_equal(files.photos[0], read_photo(photo))
    assert files.head is not None
    assert files.head[1] == head.topology.hash


def test_python_and_the_command_write_the_same(photo: Path, model: Path, tmp_path: Path) -> None:
    assert generate(photo, tmp_path / "typed.mp4", model, *FAST).exit_code == 0
    request = GenerationRequest(
        prompt=asked(tmp_path / "typed.json")["prompt"],
        person=PersonRequest(photos=(photo,)),
        num_inference_steps=1,
        seed=3,
        model=ModelRequest(name=str(model), device="cpu", dtype="float32"),
    )
    (video,) = generate_videos(request)
    paths = video.save(tmp_path / "called.mp4")
    assert paths.video.read_bytes() == (tmp_path / "typed.mp4").read_bytes()
    assert paths.sheet.read_bytes() == (tmp_path / "typed.jpg").read_bytes()
    typed, called = (read_record(tmp_path / f"{name}.json") for name in ("typed", "called"))
    without = {"timings_s": {}, "command": ()}
    assert typed.model_copy(update=without) == called.model_copy(update=without)
    with pytest.raises(InvalidRequestError, match="is there already"):
        video.save(tmp_path / "typed.mp4")


def test_options_of_a_person_need_a_photo(model: Path, tmp_path: Path) -> None:
    arguments = ["generate", "--prompt", "a nod", "--out", str(tmp_path / "v.mp4"), "--no-identity", "--face", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "say how a photo is used" in " ".join(result.stderr.split())
