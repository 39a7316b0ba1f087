"""`fantasyid generate` as a user meets it, with a tiny model saved to a folder."""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from fantasyid.cli.main import CommandGroup, app, main
from fantasyid.conditioning.identity import IdentityInputs
from fantasyid.core.errors import TopologyMismatchError
from fantasyid.core.mesh_files import write_mesh
from fantasyid.core.video import read_video
from fantasyid.generation.person import change_head
from fantasyid.geometry.edits import HeadEditor
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.kernels.fp8 import multiplies_fp8
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.tiny_photo_model import tiny_photo_pipeline

PROMPT = "a woman smiles"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model for 128 x 128 pixels and 9 frames that reads real photos."""
    folder = tmp_path_factory.mktemp("model")
    tiny_photo_pipeline().save_pretrained(folder)
    return folder


def generate(photo: Path, out: Path, model: Path | str, *options: str, prompt: str = PROMPT) -> Result:
    arguments = ["generate", str(photo), "--prompt", prompt, "--out", str(out), "--model", str(model), *options]
    return CliRunner().invoke(app, [*arguments, "--device", "cpu", "--dtype", "float32"])


def test_a_photo_and_a_prompt_become_three_files(photo: Path, model: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    result = generate(photo, first, model, "--seed", "0", "--guidance", "2")
    assert result.exit_code == 0, result.output
    assert str(first) in result.stdout.replace("\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"first.mp4", "first.json", "first.jpg"}
    frames, fps = read_video(first)
    assert frames.shape == (9, 128, 128, 3)
    assert fps == 8
    record = json.loads(first.with_suffix(".json").read_text())
    expected: dict[str, Any] = {
        "prompt": PROMPT,
        "seed": 0,
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "identity_scale": 1.0,
        "use_reference": True,
        "use_identity_tokens": True,
        "num_frames": 9,
        "fps": 8.0,
    }
    assert {key: record["request"][key] for key in expected} == expected
    assert record["face_index"] == 0
    assert (record["request"]["model"]["name"], record["request"]["model"]["dtype"]) == (str(model), "float32")
    assert set(record["timings_s"]) == {"load_model", "read_photo", "denoise", "decode"}

    assert generate(photo, second, model, "--seed", "0", "--guidance", "2").exit_code == 0
    assert np.array_equal(read_video(second)[0], frames)
    again = json.loads(second.with_suffix(".json").read_text())
    assert again["weights_sha256"] == record["weights_sha256"]
    assert again["photo_sha256"] == record["photo_sha256"]


@pytest.mark.parametrize(
    ("option", "reference", "tokens"),
    [
        ("--no-identity", False, False),
        ("--no-reference", False, True),
        ("--no-identity-tokens", True, False),
    ],
)
def test_the_ways_in_are_separable(
    photo: Path, model: Path, tmp_path: Path, option: str, reference: bool, tokens: bool
) -> None:
    out = tmp_path / "video.mp4"
    assert generate(photo, out, model, "--steps", "1", option).exit_code == 0
    record = json.loads(out.with_suffix(".json").read_text())["request"]
    assert (record["use_reference"], record["use_identity_tokens"]) == (reference, tokens)
    assert record["num_inference_steps"] == 1
    assert record["seed"] >= 0


def test_acceleration_is_used_and_recorded(photo: Path, model: Path, tmp_path: Path) -> None:
    plain, fast = tmp_path / "plain.mp4", tmp_path / "fast.mp4"
    fp8 = multiplies_fp8(torch.device("cpu"))
    options = ("--attention", "math", "--cache", "taylor", "--guidance-interval", "0", "0.5", *(["--fp8"] * fp8))
    assert generate(photo, plain, model, "--seed", "0", "--steps", "1").exit_code == 0
    assert generate(photo, fast, model, "--seed", "0", "--steps", "1", *options).exit_code == 0
    record, usual = (json.loads(path.with_suffix(".json").read_text()) for path in (fast, plain))
    used, other = (one["request"]["model"] for one in (record, usual))
    changed = {name for name, value in used["acceleration"].items() if value != other["acceleration"][name]}
    assert changed == {"attention", "cache"} | ({"fp8"} if fp8 else set())
    assert [one["request"]["guidance_interval"] for one in (record, usual)] == [[0.0, 0.5], [0.0, 1.0]]
    assert used["memory_plan"] == "fast"
    assert (record["weights_sha256"] != usual["weights_sha256"]) is fp8
    assert not np.array_equal(read_video(fast)[0], read_video(plain)[0])
    for impossible, remedy in (
        (("--plan", "low"), "use 'fast'"),
        (("--attention", "flash3"), "use 'native'"),
        (("--tune",), "compile is off; switch it on too"),
    ):
        result = generate(photo, tmp_path / "other.mp4", model, *impossible)
        assert result.exit_code == 2
        assert remedy in " ".join(result.stderr.split())


def test_with_several_faces_it_says_which_is_used(photo: Path, model: Path, tmp_path: Path) -> None:
    pair = tmp_path / "pair.png"
    small = Image.open(photo).resize((400, 400))
    canvas = Image.new("RGB", (912, 512))
    canvas.paste(Image.open(photo))
    canvas.paste(small, (512, 0))
    canvas.save(pair)
    result = generate(pair, tmp_path / "video.mp4", model, "--face", "1", "--steps", "1")
    assert result.exit_code == 0, result.output
    said = " ".join(result.stderr.split())
    assert "2 faces found; using face 1" in said
    assert said.count("Choose with --face") == 1
    record = json.loads((tmp_path / "video.json").read_text())
    assert record["face_index"] == 1
    assert record["face_box"][0] > 512
    missing = generate(pair, tmp_path / "other.mp4", model, "--face", "2")
    assert missing.exit_code == 2
    assert "There is no face 2" in missing.stderr


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("photo", {"out": "video.avi"}, "must end in .mp4, .webm or .gif, not 'video.avi'"),
        ("photo", {"out": "nowhere/video.mp4"}, "nowhere does not exist"),
        ("photo", {"out": "/proc/video.mp4"}, "Nothing can be written to /proc"),
        ("photo", {"prompt": "  "}, "The prompt is empty"),
        ("photo", {"prompt": "word " * 20}, "22 tokens and this model takes at most 12"),
        ("photo", {"model": "no/such/model"}, "There is no model 'no/such/model'"),
        ("photo", {"model": "."}, "does not hold a whole pipeline"),
        ("absent", {}, "There is no file"),
        ("text", {}, "not a picture"),
        ("wall", {}, "No face was found"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    photo: Path, model: Path, tmp_path: Path, name: str, options: dict[str, str], message: str
) -> None:
    inputs = {"photo": photo, "absent": tmp_path / "absent.jpg", "text": tmp_path / "text.jpg"}
    inputs["wall"] = tmp_path / "wall.png"
    inputs["text"].write_text("not a picture")
    Image.new("RGB", (300, 300), "grey").save(inputs["wall"])
    before = sorted(tmp_path.iterdir())
    out = tmp_path / options.get("out", "video.mp4")
    result = generate(inputs[name], out, options.get("model", model), prompt=options.get("prompt", PROMPT))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.count("Error: ") == 1
    assert "Traceback" not in result.output
    assert sorted(tmp_path.iterdir()) == before


def test_the_head_can_be_another_and_edited(photo: Path, model: Path, tmp_path: Path) -> None:
    head = HeadModel.load()
    path = tmp_path / "head.ply"
    write_mesh(path, head.mean.numpy(), head.triangles.numpy())
    edits = ["--edit", "face-width=+0.3", "--edit", "nose-length=-1"]
    options = ["--steps", "1", "--backend", "builtin", "--vertices", str(path), *edits]
    result = generate(photo, tmp_path / "video.mp4", model, *options)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "video.json").read_text())
    person = record["request"]["person"]
    assert person["edits"] == {"face-width": 0.3, "nose-length": -1.0}
    assert record["head_file_sha256"] == sha256(path.read_bytes()).hexdigest()
    assert person["face_backend"] == "builtin"


def test_the_other_head_and_the_edits_reach_the_identity_inputs() -> None:
    head = HeadModel.load()
    topology_hash = head.topology.hash
    person = IdentityInputs(
        torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), torch.zeros_like(head.mean)[None], topology_hash
    )
    edits = {"face-width": 0.3}
    changed = change_head(person, (head.mean, topology_hash), edits)
    assert torch.equal(changed.vertices[0], HeadEditor(head).edit(head.mean, topology_hash, edits))
    assert changed.face_crop is person.face_crop
    assert change_head(person, None, {}) is person
    with pytest.raises(TopologyMismatchError, match="is of mesh 0000"):
        change_head(person, (head.mean, "0" * 64), {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--edit", "face-width"], "'face-width' is not of the form NAME=STRENGTH"),
        (["--edit", "ears=1"], "no edit 'ears'; there are face-width"),
        (["--edit", "face-width=-1.2"], "face-width is -1.2; its strength must lie between -1 and 1"),
        (["--edit", "face-width=1", "--edit", "face-width=0"], "face-width is given twice"),
        (["--edit", "face-width=1", "--no-identity-tokens"], "act through the identity tokens"),
        (["--vertices", "absent.ply"], "There is no file absent.ply"),
    ],
)
def test_edits_that_cannot_be_made_are_refused_before_any_work(
    photo: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    result = generate(photo, tmp_path / "video.mp4", "no/such/model", *options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options", [["--steps", "0"], ["--seed", "-1"], ["--face", "-1"], ["--device", "tpu"], ["--identity-scale", "-1"]]
)
def test_options_out_of_range_are_refused(photo: Path, model: Path, tmp_path: Path, options: list[str]) -> None:
    result = CliRunner().invoke(
        app, ["generate", str(photo), "--prompt", PROMPT, "--out", str(tmp_path / "video.mp4"), *options]
    )
    assert result.exit_code == 2
    assert options[0] in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("options", "message"),
    [(["--device", "cuda"], "no usable CUDA device"), (["--gpus", "2"], "--gpus is 2, and 0 CUDA devices may be used")],
)
def test_cuda_without_a_gpu_is_refused(photo: Path, tmp_path: Path, options: list[str], message: str) -> None:
    arguments = ["generate", str(photo), "--prompt", PROMPT, "--out", str(tmp_path / "video.mp4"), *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_our_own_faults_exit_with_1_and_show_the_traceback_when_asked() -> None:
    faulty = typer.Typer(cls=CommandGroup, pretty_exceptions_enable=False)
    faulty.callback()(main)

    @faulty.command()
    def divide() -> None:
        print(1 / 0)  # noqa: T201

    result = CliRunner().invoke(faulty, ["divide"])
    assert result.exit_code == 1
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert "report it" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in CliRunner().invoke(faulty, ["--debug", "divide"]).stderr


def test_help_and_version_exit_with_0() -> None:
    for arguments in (["--help"], ["generate", "--help"], ["--version"], ["evaluate", "--help"], ["doctor", "-h"]):
        assert CliRunner().invoke(app, arguments).exit_code == 0, arguments


def without_photo(out: Path, model: Path, *options: str, prompt: str = PROMPT) -> Result:
    arguments = ["generate", "--prompt", prompt, "--out", str(out), "--model", str(model), *options]
    return CliRunner().invoke(app, [*arguments, "--device", "cpu", "--dtype", "float32"])


def test_a_video_of_anybody_needs_no_photo(photo: Path, model: Path, tmp_path: Path) -> None:
    options = ("--no-identity", "--steps", "1", "--seed", "0")
    result = without_photo(tmp_path / "anybody.mp4", model, *options)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "anybody.json").read_text())
    assert (record["photo_sha256"], record["face_index"], record["face_box"]) == ([], None, None)
    assert (tmp_path / "anybody.jpg").is_file()
    assert generate(photo, tmp_path / "other.mp4", model, *options).exit_code == 0
    assert np.array_equal(read_video(tmp_path / "anybody.mp4")[0], read_video(tmp_path / "other.mp4")[0])
    refused = without_photo(tmp_path / "nobody.mp4", model)
    assert refused.exit_code == 2
    assert "no photo; give one, or --no-identity" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--guidance", "inf"), "--guidance is inf; it must be a number from 0 to 100"),
        (("--guidance", "nan"), "--guidance is nan"),
        (("--guidance", "1e30"), "--guidance is 1e+30"),
        (("--guidance", "-1"), "--guidance is -1.0"),
        (("--identity-scale", "nan"), "--identity-scale is nan; it must be a number from 0 to 10"),
        (("--identity-scale", "inf"), "--identity-scale is inf"),
        (("--seed", str(2**64)), f"--seed is {2**64}; it must be at least 0 and at most {2**64 - 1}"),
        (("--seed", "-1"), "--seed is -1"),
        (("--steps", "0"), "--steps is 0; it must be at least 1 and at most 1000"),
        (("--guidance-interval", "0", "nan"), "two rising shares of the steps"),
    ],
)
def test_numbers_out_of_bounds_are_refused_before_any_work(
    photo: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = generate(photo, tmp_path / "video.mp4", "no/such/model", *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_no_files_come_of_numbers_that_are_not_finite(photo: Path, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    pipeline = FantasyIDPipeline.from_pretrained(broken)
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.conv.weight.fill_(3e38)  # finite, and the sums are not
    pipeline.vae.save_pretrained(broken / "vae")
    (tmp_path / "videos").mkdir()
    result = generate(photo, tmp_path / "videos" / "video.mp4", broken, "--steps", "1")
    assert result.exit_code == 2, result.output
    assert "The VAE gave numbers that are not finite" in " ".join(result.stderr.split())
    assert not list((tmp_path / "videos").iterdir())


def test_what_may_disappoint_is_told(photo: Path, model: Path, tmp_path: Path) -> None:
    options = ("--steps", "1", "--backend", "builtin", "--edit", "face-width=1")
    result = generate(photo, tmp_path / "video.mp4", model, *options, prompt="Eine Frau lächelt")
    assert result.exit_code == 0, result.output
    told = " ".join(result.stderr.split())
    assert "video was never measured to follow the head's vertices; see docs/editing.md" in told
    assert told.count("looks like German") == 1
    measured = tmp_path / "measured"
    shutil.copytree(model, measured)
    for follows, words in ((False, "video does not follow the head's vertices"), (True, None)):
        index = json.loads((measured / "model_index.json").read_text())
        (measured / "model_index.json").write_text(json.dumps({**index, "follows_vertices": follows}))
        result = generate(photo, tmp_path / "video.mp4", measured, *options, "--overwrite")
        assert result.exit_code == 0, result.output
        told = " ".join(result.stderr.split())
        assert words in told if words else "vertices" not in told
