"""Credentials in what a generation leaves on disk, beside the mark: both are read, and one outlives the other."""

import json
import sys
from pathlib import Path

import av
import c2pa
import numpy as np
import pytest
from PIL import Image

from fantasyid import __version__
from fantasyid.core.credentials import SigningKey, known_certificates, read_credentials
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.mark_search import search_mark
from fantasyid.core.video import read_video, write_video
from fantasyid.generation.output_paths import GenerationPaths
from fantasyid.generation.record import read_record
from fantasyid.generation.request import GenerationRequest, LoraRequest, ModelRequest
from fantasyid.generation.studio import GeneratedVideo, Studio, generate_files
from tests.commands import refusal, run
from tests.tiny_pipeline import tiny_pipeline, tiny_pipeline_transformer

PROMPT = "a person smiles"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for 9 frames of 128 x 128 pixels of anybody."""
    folder = tmp_path_factory.mktemp("model")
    transformer = tiny_pipeline_transformer(sample_width=16, sample_height=16)
    tiny_pipeline(transformer=transformer, default_num_inference_steps=1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def video(model: Path) -> GeneratedVideo:
    asked = ModelRequest(name=str(model), device="cpu", dtype="float32")
    request = GenerationRequest(prompt=PROMPT, seed=0, use_reference=False, use_identity_tokens=False, model=asked)
    (made,) = Studio(asked).videos(request)
    return made


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SigningKey:
    """The key of this test."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    return SigningKey.local()


def test_video_and_sheet_are_signed_beside_the_mark(video: GeneratedVideo, key: SigningKey, tmp_path: Path) -> None:
    paths = video.save(tmp_path / "a.mp4", signing_key=key)
    for file in (paths.video, paths.sheet):
        assert read_credentials(file, known_certificates()).state == "valid"
        assert video.record.weights_sha256.encode() in file.read_bytes()
    frames, fps = read_video(paths.video)
    assert search_mark(frames).found
    assert search_mark([np.asarray(Image.open(paths.sheet))]).found
    write_video(tmp_path / "uploaded.mp4", frames, fps)
    assert read_credentials(tmp_path / "uploaded.mp4").state == "absent"
    assert search_mark(read_video(tmp_path / "uploaded.mp4")[0]).found
    assert read_record(paths.record) == video.record.model_copy(update={"signing_key_sha256": key.public_sha256})
    unsigned = video.save(tmp_path / "b.mp4")
    assert read_record(unsigned.record) == video.record
    assert read_credentials(unsigned.video).state == read_credentials(unsigned.sheet).state == "absent"
    assert np.array_equal(read_video(unsigned.video)[0], frames)


def test_credentials_and_words_tell_of_what_was_merged_into_the_model(
    video: GeneratedVideo, key: SigningKey, tmp_path: Path
) -> None:
    loras = (LoraRequest(file=Path("/home/ann/sketch.safetensors"), scale=0.5), LoraRequest(file=Path("rain.st")))
    request = video.record.request.model_copy(
        update={"model": video.record.request.model.model_copy(update={"loras": loras})}
    )
    record = video.record.model_copy(update={"request": request, "lora_sha256": ("1" * 64, "2" * 64)})
    made = GeneratedVideo(video.frames, record, video.portrait)
    paths = made.save(tmp_path / "a.mp4", signing_key=key)
    with c2pa.Reader(paths.video) as reader:
        (manifest,) = json.loads(reader.json())["manifests"].values()
    said = {assertion["label"]: assertion["data"] for assertion in manifest["assertions"]}["fantasyid.model"]
    assert said == {"weights_sha256": record.weights_sha256, "lora_sha256": ["1" * 64, "2" * 64]}
    words = f"AI-generated with FantasyID {__version__}, LoRA sketch.safetensors x 0.5, rain.st"
    with av.open(str(paths.video)) as container:
        assert container.metadata["comment"] == words
    with Image.open(made.save(tmp_path / "pictures", "png").video / "0000.png") as picture:
        assert picture.info["Comment"] == words
    for suffix in (".webm", ".gif"):
        assert words.encode() in made.save(tmp_path / f"a{suffix}", overwrite=True).video.read_bytes()
    assert b"/home/ann" not in paths.video.read_bytes() + paths.sheet.read_bytes()


def test_gifs_and_pictures_are_signed_and_webm_is_refused_before_any_work(
    video: GeneratedVideo, key: SigningKey, tmp_path: Path
) -> None:
    gif = video.save(tmp_path / "a.gif", signing_key=key)
    pictures = video.save(tmp_path / "pictures", "png", signing_key=key)
    for file in (gif.video, *pictures.video.iterdir()):
        assert read_credentials(file, known_certificates()).state == "valid"
    with pytest.raises(InvalidRequestError, match=r"b\.webm cannot hold signed credentials"):
        video.save(tmp_path / "b.webm", signing_key=key)
    paths = GenerationPaths.several(tmp_path / "c.webm", None, 1)
    nothing = GenerationRequest(prompt=PROMPT, model=ModelRequest(name=str(tmp_path / "no model")))
    with pytest.raises(InvalidRequestError, match=r"c\.webm cannot hold signed credentials"):
        generate_files(nothing, paths, signing_key=key)


def test_the_commands_sign_and_read(
    model: Path, key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
        theirs = SigningKey.local().source
    asked = ("generate", "--no-identity", "--prompt", PROMPT, "--model", model, "--device", "cpu", "--seed", 0)
    for name, options in {"ours": ["--sign"], "theirs": ["--sign-with", theirs], "plain": []}.items():
        result = run(*asked, "--out", tmp_path / f"{name}.mp4", *options)
        assert result.exit_code == 0, result.output
    changed = bytearray((tmp_path / "ours.mp4").read_bytes())
    changed[changed.index(b"FantasyID", changed.index(b"mdat"))] ^= 1
    (tmp_path / "changed.mp4").write_bytes(changed)

    def told(name: str, *options: object) -> str:
        result = run("evaluate", "provenance", "--video", tmp_path / f"{name}.mp4", *options)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "valid, signed by a known party ('signing key of one computer" in told("ours")
    assert "valid, signed by an unknown party, who may be anybody ('signing key" in told("theirs")
    assert "valid, signed by a known party" in told("theirs", "--known", theirs)
    assert "tampered: the file was changed" in told("changed")
    assert "Signed credentials: none." in told("plain")
    states = {name: json.loads(told(name, "--json"))["credentials"]["state"] for name in ("ours", "theirs", "plain")}
    assert states == {"ours": "valid", "theirs": "unknown signer", "plain": "absent"}

    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert "not looked for; install" in told("ours")
    assert json.loads(told("ours", "--json"))["credentials"] is None
    assert "pip install 'fantasyid[c2pa]'" in refusal(*asked, "--out", tmp_path / "again.mp4", "--sign")
    assert not (tmp_path / "again.mp4").exists()
