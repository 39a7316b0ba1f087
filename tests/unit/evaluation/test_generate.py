"""The evaluation's videos: made once, reproducible, decoded to what the judge reads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange

from fantasyid.conditioning.latents import decode_video
from fantasyid.core.errors import InvalidRequestError
from fantasyid.evaluation import generate
from fantasyid.evaluation.protocol import FULL, MODES, NO_IDENTITY, Person, evaluation_rows, load_frames
from tests.tiny_pipeline import tiny_person, tiny_pipeline, tiny_pipeline_transformer

PEOPLE = (Person("p1", "p1.jpg", "A woman", "female"), Person("p2", "p2.jpg", "A man in his 40s", "male"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation")
    transformer = tiny_pipeline_transformer(max_text_seq_length=24)
    generate.make_latents(tiny_pipeline(transformer=transformer), PEOPLE, tiny_person(people=2), out, batch_size=3)
    return out


def test_every_row_of_every_mode_has_latents(made: Path) -> None:
    for mode in MODES:
        with np.load(made / f"{mode.name}.npz") as archive:
            assert archive["files"].tolist() == [str(row.file) for row in evaluation_rows(PEOPLE, (mode,))]
            assert archive["latents"].shape == (len(archive["files"]), 3, 4, 4, 4)


def test_a_rows_video_is_that_of_the_pipeline_alone(made: Path) -> None:
    row = list(evaluation_rows(PEOPLE, (FULL,)))[9]
    people = tiny_person(people=2)
    index = slice(1, 2) if row.person.name == "p2" else slice(0, 1)
    person = type(people)(people.reference_image[index], people.face_crop[index], people.vertices[index], "tiny")
    alone = tiny_pipeline(transformer=tiny_pipeline_transformer(max_text_seq_length=24))(
        prompt=row.prompt,
        identity_inputs=person,
        generator=torch.Generator().manual_seed(row.seed),
        output_type="latent",
    ).frames
    with np.load(made / "full.npz") as archive:
        torch.testing.assert_close(torch.from_numpy(archive["latents"][9]).float(), alone[0], atol=5e-3, rtol=5e-3)


def test_without_identity_two_people_differ_by_caption_and_seed_alone(made: Path) -> None:
    with np.load(made / "no_identity.npz") as archive:
        before = archive["latents"]
    pipeline = tiny_pipeline(transformer=tiny_pipeline_transformer(max_text_seq_length=24))
    other = made.parent / "other"
    generate.make_latents(pipeline, PEOPLE, tiny_person(seed=50, people=2), other, batch_size=16)
    with np.load(other / f"{NO_IDENTITY.name}.npz") as archive:
        np.testing.assert_allclose(archive["latents"], before, atol=5e-3)
    with np.load(other / "full.npz") as archive, np.load(made / "full.npz") as mine:
        assert np.abs(archive["latents"].astype(np.float32) - mine["latents"]).max() > 0.05


def test_frames_are_the_decoded_latents_and_made_once(made: Path) -> None:
    vae = tiny_pipeline().vae
    generate.make_frames(vae, made, fps=8)
    row = next(evaluation_rows(PEOPLE, (FULL,)))
    frames, fps = load_frames(made / row.file)
    with np.load(made / "full.npz") as archive:
        latents = torch.from_numpy(archive["latents"][:1]).float()
    with torch.no_grad():
        decoded = decode_video(vae, rearrange(latents, "b t c h w -> b c t h w"))[0].clamp(-1, 1)
    expected = rearrange((decoded + 1) * 127.5, "c t h w -> t h w c").round().numpy()
    assert fps == 8
    assert np.abs(frames.astype(np.float32) - expected).max() <= 1
    before = (made / row.file).stat().st_mtime_ns
    generate.make_frames(vae, made, fps=8)
    assert (made / row.file).stat().st_mtime_ns == before


def test_frames_of_other_latents_or_another_decoder_are_made_anew(made: Path, tmp_path: Path) -> None:
    row = next(evaluation_rows(PEOPLE, (FULL,)))
    with np.load(made / "full.npz") as archive:
        latents, files = archive["latents"][:1], archive["files"][:1]
    vae, seen = tiny_pipeline().vae, []
    for change in ("nothing", "latents", "decoder"):
        if change == "decoder":
            torch.nn.init.constant_(vae.decoder.conv_out.conv.bias, 0.5)
        np.savez(tmp_path / "full.npz", latents=-latents if change != "nothing" else latents, files=files)
        generate.make_frames(vae, tmp_path, fps=8)
        seen.append(load_frames(tmp_path / row.file)[0])
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[1], seen[2])


@pytest.mark.parametrize("change", ["people", "guidance", "weights"])
def test_latents_of_something_else_are_refused(made: Path, change: str) -> None:
    pipeline = tiny_pipeline(transformer=tiny_pipeline_transformer(max_text_seq_length=24))
    people = tiny_person(people=2)
    before = {path: path.read_bytes() for path in made.glob("*.npz")}
    generate.make_latents(pipeline, PEOPLE, people, made)
    if change == "people":
        people = tiny_person(seed=50, people=2)
    elif change == "guidance":
        pipeline.register_to_config(default_guidance_scale=1.5)
    else:
        torch.nn.init.constant_(pipeline.transformer.proj_out.bias, 0.5)
    with pytest.raises(InvalidRequestError, match=r"full\.npz was made of other people or settings"):
        generate.make_latents(pipeline, PEOPLE, people, made)
    assert {path: path.read_bytes() for path in made.glob("*.npz")} == before


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "other"])
def test_damaged_files_between_the_steps_are_told(made: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "full.npz"
    content = bytearray((made / "full.npz").read_bytes())
    content[len(content) // 2] ^= 255
    whole = (made / "full.npz").read_bytes()
    path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "changed": content, "other": b"PK"}[damage])
    latents = r"full\.npz does not hold latents \(.*\); remove it and make it again with `fantasyid evaluate latents`"
    with pytest.raises(InvalidRequestError, match=latents):
        generate.make_frames(tiny_pipeline().vae, tmp_path, fps=8)
    pipeline = tiny_pipeline(transformer=tiny_pipeline_transformer(max_text_seq_length=24))
    with pytest.raises(InvalidRequestError, match=latents):
        generate.make_latents(pipeline, PEOPLE, tiny_person(people=2), tmp_path)
    with pytest.raises(InvalidRequestError, match=r"does not hold people \(.*\); make it again with `fantasyid eval"):
        generate.load_inputs(path)


def test_latents_are_no_people(made: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"does not hold people \(without face_crop, people, "):
        generate.load_inputs(made / "full.npz")
