"""`fantasyid data encode` and `check`: what training reads is what inference would make of the same person and clip."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.conditioning.identity import IdentityPreparation, prepare_identity
from fantasyid.conditioning.latents import decode_video, reference_latents
from fantasyid.conditioning.text import encode_text, load_text_encoder
from fantasyid.core.errors import CorruptDatasetError, InvalidRequestError
from fantasyid.core.imaging import to_tensor
from fantasyid.core.video import open_video
from fantasyid.data.clips.source_video import SourceVideo
from fantasyid.data.dataset.encode import ModelEncoders, _views, encode
from fantasyid.data.dataset.encoded import EncodedClips
from fantasyid.data.dataset.encoders import Encoders, with_pixel_noise
from fantasyid.data.dataset.encodings import EncodingFolder
from fantasyid.data.dataset.layout import REMEDY, DatasetFolder
from fantasyid.data.dataset.rows import Clip
from fantasyid.data.dataset.shards import Shard
from fantasyid.data.dataset.tables import read_table
from fantasyid.data.engines.local import LocalEngine
from fantasyid.geometry.head_model import HeadModel
from tests.commands import refusal, run
from tests.kills import contents
from tests.tiny import tiny_face_vision
from tests.tiny_pipeline import minilm_tokenizer, tiny_vae
from tests.unit.data.clips.conftest import Films


@pytest.fixture(scope="module")
def encoded(films: Films, dataset: DatasetFolder, tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    out = tmp_path_factory.mktemp("encoded") / "clips"
    shutil.copytree(dataset.path, out)
    result = run("data", "encode", out, "--videos", films.folder, "--device", "cpu")
    assert result.exit_code == 0, result.output
    return DatasetFolder(out)


def tiny_encoders() -> Encoders:
    return Encoders(
        vae=tiny_vae(),
        tokenizer=minilm_tokenizer(),
        text_encoder=load_text_encoder()[1],
        face_vision=tiny_face_vision(),
        preparation=IdentityPreparation(reference_size=(32, 32), face_size=32),
        text_length=8,
        dtype=torch.bfloat16,
    )


def pools(encoded: DatasetFolder) -> list[EncodedClips]:
    return [EncodedClips(encoded.encodings / "mini", split, views=4) for split in ("train", "val")]


def test_every_clip_is_encoded_on_its_side_of_the_split(encoded: DatasetFolder) -> None:
    clips = read_table(encoded.clips, Clip, REMEDY)
    for pool in pools(encoded):
        assert len(pool) > 0
        wanted = [clip.clip_id for clip in clips if clip.split == pool.clips[0].split]
        assert [clip.clip_id for clip in pool.clips] == wanted
        rows = pool.rows(torch.tensor([len(pool) - 1, 0]))
        config = load_component(MINI_FOLDER, "vae").config
        size = 128 // 2 ** (len(config.block_out_channels) - 1)
        assert rows.clips.shape == (2, 3, config.latent_channels, size, size)
        assert rows.reference.shape == (2, 4, config.latent_channels, size, size)
        assert rows.face_tokens.shape == (2, 4, 12, 12, 192)
        assert rows.identity.shape[0::2] == (2, 3)
        assert rows.null_text.shape == (1, *rows.text.shape[1:])
        # There are three views, so the fourth is the first again.
        assert torch.equal(rows.reference[:, 3], rows.reference[:, 0])
        assert not torch.equal(rows.reference[:, 2], rows.reference[:, 0])
        assert torch.equal(rows.clips[1], pool.rows(torch.tensor([0])).clips[0])
        nothing = pool.rows(torch.zeros(0, dtype=torch.int64))
        assert nothing.clips.shape == (0, *rows.clips.shape[1:])
        assert torch.equal(nothing.null_text, rows.null_text)


def test_the_view_that_is_shown_is_one_of_the_rows_and_no_other_is_read(
    encoded: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pools(encoded)[0]
    index = torch.zeros(4, dtype=torch.int64)
    rows = pool.rows(index)
    read, whole = [], Shard.tensor

    def tensor(shard: Shard, name: str) -> torch.Tensor:
        read.append(shard)
        return whole(shard, name)

    monkeypatch.setattr(Shard, "tensor", tensor)
    shown = pool.shown(index, torch.tensor([0.0, 0.3, 0.6, 0.99]), -torch.ones(4))
    assert len(read) == 4 * 3 + 1  # latents, text and head of each, and the empty text; a view is a part
    for place in range(4):
        assert torch.equal(shown.reference[place], rows.reference[place, place : place + 1])
        assert torch.equal(shown.face_tokens[place], rows.face_tokens[place, place])
    assert torch.equal(shown.clips, rows.clips)
    assert torch.equal(shown.identity, rows.identity)
    assert pool.shown(index[:0], torch.zeros(0), torch.zeros(0)).face_tokens.shape == (0, *rows.face_tokens.shape[2:])


def test_noised_references_are_of_the_picture_with_the_noise_of_clip_and_view(dataset: DatasetFolder) -> None:
    clip = read_table(dataset.clips, Clip, REMEDY)[0]
    views, encoders = _views(dataset, clip)[:2], tiny_encoders()
    clean, noised, _ = encoders.views(views, HeadModel.load().topology.hash, "a clip", 2)
    assert noised.shape == (2, 2, *clean.shape[1:])
    for number, view in enumerate(views):
        photo = to_tensor(np.asarray(Image.open(io.BytesIO(view.jpeg.numpy().tobytes()))))
        landmarks, vertices = view.landmarks[None, :, :2], view.vertices[None]
        inputs = prepare_identity(photo, landmarks, vertices, "", encoders.preparation)
        for k in range(2):
            picture = with_pixel_noise(inputs.reference_image, f"a clip/{number}/{k}")
            expected = reference_latents(encoders.vae, picture)[0, :, 0].to(torch.bfloat16)
            assert torch.equal(noised[number, k], expected)
            assert not torch.equal(noised[number, k], clean[number])


def test_the_noise_of_references_has_the_deviations_that_upstream_trains_with() -> None:
    """Their logarithms have mean -3 and standard deviation 0.5."""
    flat = torch.zeros(1, 3, 64, 64)
    deviations = torch.stack([with_pixel_noise(flat, str(number)).std() for number in range(400)]).log()
    assert deviations.mean() == pytest.approx(-3, abs=0.1)
    assert deviations.std() == pytest.approx(0.5, abs=0.06)
    assert torch.equal(with_pixel_noise(flat, "a"), with_pixel_noise(flat, "a"))


def test_latents_are_of_the_frames_as_they_are_cut_and_text_is_the_caption(
    films: Films, encoded: DatasetFolder
) -> None:
    clips = {clip.clip_id: clip for clip in read_table(encoded.clips, Clip, REMEDY)}
    pool = next(pool for pool in pools(encoded) if any(clips[c.clip_id].path == "sign.mp4" for c in pool.clips))
    number = next(k for k, clip in enumerate(pool.clips) if clips[clip.clip_id].path == "sign.mp4")
    clip, rows = clips[pool.clips[number].clip_id], pool.rows(torch.tensor([number]))
    left, top, right, bottom = clip.crop
    shown = decode_video(load_component(MINI_FOLDER, "vae"), rows.clips.transpose(1, 2))[0, :, -1]
    last = next(SourceVideo(open_video(films.folder / "sign.mp4")).chosen([clip.frames[-1]]))[top:bottom, left:right]
    wanted = np.asarray(Image.fromarray(last).resize((128, 128), Image.Resampling.BICUBIC)).astype(np.float32)
    assert np.abs((shown.permute(1, 2, 0).numpy() + 1) * 127.5 - wanted).mean() < 8
    tokenizer, text_encoder = load_text_encoder()
    assert torch.allclose(rows.text, encode_text(tokenizer, text_encoder, [clip.caption]), atol=1e-5)
    assert torch.allclose(rows.null_text, encode_text(tokenizer, text_encoder, [""]), atol=1e-5)


def test_a_finished_encoding_is_left_and_another_is_refused(films: Films, encoded: DatasetFolder) -> None:
    before = contents(encoded.path)
    given = ["data", "encode", encoded.path, "--videos", films.folder, "--device", "cpu"]
    assert run(*given).exit_code == 0
    assert contents(encoded.path) == before
    assert "There is no folder none" in refusal(*given, "--model", "none")
    assert "leave --face-vision out" in refusal(*given, "--face-vision", films.folder)
    assert "must be that of a folder" in refusal(*given, "--name", "a/b")


def test_the_video_vae_and_long_captions(films: Films, dataset: DatasetFolder, tmp_path: Path) -> None:
    """Seven frames are refused, what is made of nine has the VAE's shape, and sentences go before words."""
    encoders = tiny_encoders()
    frames = [np.full((40, 40, 3), 10 * index, np.uint8) for index in range(9)]
    assert encoders.latents(frames).shape == (3, 4, 4, 4)
    assert encoders.latents(frames).dtype == torch.bfloat16
    assert encoders.fitting_caption("A man. He nods.") == "A man. He nods."
    assert encoders.fitting_caption("A man. He nods. He smiles at her.") == "A man. He nods."
    assert encoders.fitting_caption("one two three four five six seven eight nine.") == "one two three four five six"
    shutil.copytree(dataset.path, tmp_path / "clips")
    model = ModelEncoders(lambda: encoders, {"vae": "1"}, 8, (32, 32), "bfloat16")
    given = (DatasetFolder(tmp_path / "clips"), films.folder, "tiny")
    with pytest.raises(InvalidRequestError, match="The video has 7 frames; the VAE takes 8k"):
        encoders.latents(frames[:7])
    manifest = encode(*given, model, LocalEngine(), lambda done: None, noised=2)
    assert manifest.captions_cut == 0
    pool = EncodedClips(given[0].encodings / "tiny", "train", views=3)
    number = next(k for k, clip in enumerate(pool.clips) if clip.views > 1)
    index, view = torch.full((4,), number), torch.full((4,), 0.5)
    shown = pool.shown(index, view, torch.tensor([-1.0, 0.0, 0.49, 0.99])).reference[:, 0]
    kept = Shard(EncodingFolder(given[0].encodings / "tiny").shard(0)["noised"], REMEDY)
    variants = kept.tensor(pool.clips[number].clip_id)[1]
    assert torch.equal(shown[0], pool.rows(index[:1]).reference[0, 1])
    assert torch.equal(shown[1:], variants[[0, 0, 1]])
    with pytest.raises(InvalidRequestError, match="is made with noised 2 and not 1; choose another --name"):
        encode(*given, model, LocalEngine(), lambda done: None)
    wide = ModelEncoders(lambda: encoders, {"vae": "1"}, 8, (32, 48), "bfloat16")
    with pytest.raises(InvalidRequestError, match="are cut for videos of 128x128 pixels, and the model's have 48x32"):
        encode(*given, wide, LocalEngine(), lambda done: None)
    shutil.copytree(films.folder, tmp_path / "films")
    shutil.copy(films.folder / "turn.mp4", tmp_path / "films" / "nod.mp4")
    with pytest.raises(InvalidRequestError, match=r"nod\.mp4 is not the one that was measured"):
        encode(given[0], tmp_path / "films", "again", model, LocalEngine(), lambda done: None)
    other = ModelEncoders(lambda: encoders, {"vae": "2"}, 8, (32, 32), "bfloat16")
    with pytest.raises(InvalidRequestError, match=r"is made with networks\.vae '1' and not '2'; choose another --name"):
        encode(*given, other, LocalEngine(), lambda done: None, noised=2)
    folder = given[0].encodings / "tiny"
    for name in ("plan.json", "encoding.json"):
        (folder / name).write_text((folder / name).read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(CorruptDatasetError, match=r"plan\.json .*`fantasyid data encode --name`, under another name"):
        encode(*given, model, LocalEngine(), lambda done: None, noised=2)
    with pytest.raises(CorruptDatasetError, match=r"encoding\.json cannot .* under another name"):
        EncodedClips(folder)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (
            lambda folder: flip(folder / "measured/part-00001.pictures.safetensors"),
            "part-00001.pictures.safetensors is",
        ),
        (lambda folder: (folder / "measured/part-00000.parquet").unlink(), "part-00000.parquet is missing"),
        (lambda folder: (folder / "measured/part-00099.parquet").touch(), "part-00099.parquet belongs to nothing"),
        (lambda folder: flip(folder / "clips.parquet"), "clips.parquet is not what was written there"),
        (lambda folder: flip(folder / "encodings/mini/shard-00000.faces.safetensors"), "faces.safetensors is not what"),
        (lambda folder: (folder / "encodings/mini/encoding.json").unlink(), "mini is no finished encoding"),
        (
            lambda folder: shutil.copy(folder / "clips.parquet", folder / "encodings/mini/x.parquet"),
            "belongs to nothing",
        ),
    ],
)
def test_what_is_damaged_is_named(
    encoded: DatasetFolder, tmp_path: Path, harm: Callable[[Path], None], named: str
) -> None:
    shutil.copytree(encoded.path, tmp_path / "clips")
    harm(tmp_path / "clips")
    result = run("data", "check", tmp_path / "clips")
    assert result.exit_code == 2
    assert named in result.output.replace("\n", "")


def test_a_whole_dataset_and_its_videos_are_found_whole(films: Films, encoded: DatasetFolder, tmp_path: Path) -> None:
    assert run("data", "check", encoded.path, "--videos", films.folder).output.endswith("is whole.\n")
    shutil.copytree(films.folder, tmp_path / "films")
    (tmp_path / "films" / "nod.mp4").unlink()
    flip(tmp_path / "films" / "car.mp4")
    result = run("data", "check", encoded.path, "--videos", tmp_path / "films")
    assert "nod.mp4 is missing" in result.output
    assert "car.mp4 is not the one that was measured" in result.output
    assert "(faults: 2)" in result.output
