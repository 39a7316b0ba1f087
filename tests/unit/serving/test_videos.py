"""Asking for videos, with the official client."""

import io
from collections.abc import Callable
from pathlib import Path

import av
import httpx2
import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from PIL import Image

from fantasyid.core.errors import UnreadableVideoError
from fantasyid.core.provenance import DETECTION_THRESHOLD, detect_mark
from fantasyid.core.video import read_video
from fantasyid.generation.record import read_record
from fantasyid.serving.store import JobState
from tests.commands import run
from tests.unit.serving.conftest import Server

Serve = Callable[..., Server]


def frames_of(server: Server, video_id: str, folder: Path) -> NDArray[np.uint8]:
    """What a client downloads."""
    file = folder / f"{video_id}.mp4"
    file.write_bytes(server.client.videos.download_content(video_id).content)
    return read_video(file)[0]


def test_a_photo_and_a_prompt_become_a_video(server: Server, photo: bytes, tmp_path: Path) -> None:
    video = server.client.videos.create_and_poll(
        prompt="a woman smiles",
        input_reference=("../../etc/me.png", photo),
        model="tiny",
        extra_body={"seed": 7, "num_inference_steps": 3, "edits": {"face-width": 0.3}},
        poll_interval_ms=20,
    )
    assert (video.object, video.model, video.prompt) == ("video", "tiny", "a woman smiles")
    assert (video.status, video.progress, video.error) == ("completed", 100, None)
    assert (video.size, video.seconds, video.seed, video.expires_at) == ("128x128", "1.125", 7, None)
    assert video.completed_at >= video.created_at
    frames = frames_of(server, video.id, tmp_path)
    assert frames.shape == (9, 128, 128, 3)
    assert detect_mark(frames) >= DETECTION_THRESHOLD
    asked = read_record(server.service.store.find(video.id).outputs.record).request
    assert asked.person is not None
    assert (asked.num_inference_steps, asked.person.edits) == (3, {"face-width": 0.3})


def test_it_is_the_video_that_the_command_line_makes(server: Server, photo: bytes, tmp_path: Path) -> None:
    folder = server.service.store.find(server.wait(server.create(photo=photo, seed=3)).id)
    (tmp_path / "photo.png").write_bytes(photo)
    words = ("--prompt", "a woman smiles", "--seed", 3, "--steps", 2, "--frames", 1, "--out", tmp_path / "cli.mp4")
    machine = ("--model", folder.job().request.model.name, "--device", "cpu", "--dtype", "float32")
    made = run("generate", tmp_path / "photo.png", *words, *machine)
    assert made.exit_code == 0, made.output
    assert (read_video(tmp_path / "cli.mp4")[0] == read_video(folder.outputs.video)[0]).all()


def test_thumbnail_and_contact_sheet(server: Server, tmp_path: Path) -> None:
    video = server.wait(server.create(num_frames=9))
    frames = frames_of(server, video.id, tmp_path)
    content = server.client.videos.download_content(video.id, variant="thumbnail").content
    with Image.open(io.BytesIO(content)) as thumbnail:
        assert thumbnail.size == (128, 128)
        assert np.abs(np.asarray(thumbnail).astype(int) - frames[0]).mean() < 4
        assert "trainedAlgorithmicMedia" in str(thumbnail.info["xmp"])
    content = server.client.videos.download_content(video.id, variant="spritesheet").content
    with Image.open(io.BytesIO(content)) as sheet:
        assert sheet.width > 4 * 128


def test_a_thumbnail_takes_the_beginning_of_a_video_alone(server: Server) -> None:
    video = server.wait(server.create(num_frames=9))
    file = server.service.store.find(video.id).outputs.video
    whole = server.client.videos.download_content(video.id, variant="thumbnail").content
    with av.open(str(file)) as container:
        places = sorted(packet.pos for packet in container.demux(video=0) if packet.size)
    content = bytearray(file.read_bytes())
    content[places[5] :] = bytes(len(content) - places[5])  # a decoder looks a few frames ahead
    file.write_bytes(content)
    with pytest.raises(UnreadableVideoError):
        read_video(file)
    assert server.client.videos.download_content(video.id, variant="thumbnail").content == whole


def test_players_may_ask_for_a_part(server: Server) -> None:
    video = server.wait(server.create())
    whole = server.client.videos.download_content(video.id).content
    part = httpx2.get(f"{server.url}/v1/videos/{video.id}/content", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])


def test_seconds_are_frames_of_the_model(server: Server) -> None:
    few = {"num_inference_steps": 1, "fps": 4}
    video = server.client.videos.create(prompt="a man nods", seconds="2", extra_body=few)
    assert video.seconds == "2"
    video = server.wait(video)
    assert video.error is None
    asked = read_record(server.service.store.find(video.id).outputs.record).request
    assert (asked.num_frames, asked.fps) == (9, 4)


def test_without_a_person_anybody_is_shown(server: Server) -> None:
    video = server.wait(server.create())
    asked = read_record(server.service.store.find(video.id).outputs.record).request
    assert (asked.person, asked.use_reference, asked.use_identity_tokens) == (None, False, False)


def test_of_several_faces_it_says_which_is_used(server: Server, photo: bytes) -> None:
    pair = Image.new("RGB", (912, 512))
    with Image.open(io.BytesIO(photo)) as portrait:
        pair.paste(portrait)
        pair.paste(portrait.resize((400, 400)), (512, 0))
    content = io.BytesIO()
    pair.save(content, "PNG")
    for seed in (1, 2):  # the person of the second is not read again
        video = server.wait(server.create(photo=content.getvalue(), face_index=1, seed=seed))
        assert video.status == "completed"
        assert video.note.startswith("2 faces found; using face 1. ")
        assert video.note.endswith(" Choose with face_index.")
    assert server.wait(server.create(photo=photo)).note is None


def test_without_a_face_it_fails_and_says_so(server: Server) -> None:
    grey = io.BytesIO()
    Image.new("RGB", (300, 300), "grey").save(grey, "PNG")
    video = server.wait(server.create(photo=grey.getvalue()))
    assert (video.status, video.error.code) == ("failed", "no_face")
    assert "face" in video.error.message
    assert str(server.service.store.folder) not in video.error.message
    with pytest.raises(openai.NotFoundError, match="failed"):
        server.client.videos.download_content(video.id)


def test_what_the_model_cannot_do_fails_with_its_sentence(server: Server) -> None:
    video = server.wait(server.create(size="130x128"))
    assert (video.status, video.error.code) == ("failed", "invalid_request")
    assert "130" in video.error.message


def test_videos_are_listed_in_pages(serve: Serve) -> None:
    server = serve(worker=False)
    made = [server.create(f"video {number}").id for number in range(5)]
    videos = server.client.videos
    assert [video.id for video in videos.list(order="asc", limit=2)] == made  # it asks for the next pages itself
    assert [video.id for video in videos.list(limit=3).data] == made[:1:-1]
    assert [video.id for video in videos.list(order="asc", after=made[3]).data] == made[4:]
    videos.delete(made[2])
    assert [video.id for video in videos.list(order="asc")] == made[:2] + made[3:]
    page = httpx2.get(f"{server.url}/v1/videos?limit=4").json()
    assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == ("list", made[4], made[0], False)


def test_they_are_made_in_order(serve: Serve) -> None:
    server = serve()
    videos = [server.create() for _ in range(3)]
    ended = [server.service.store.find(server.wait(video).id).state().ended_at for video in videos]
    assert ended == sorted(ended)


def test_a_deleted_video_is_gone(server: Server) -> None:
    video = server.wait(server.create())
    folder = server.service.store.find(video.id).path
    gone = server.client.videos.delete(video.id)
    assert (gone.id, gone.object, gone.deleted) == (video.id, "video.deleted", True)
    assert not folder.exists()
    for ask in (server.client.videos.retrieve, server.client.videos.delete, server.client.videos.download_content):
        with pytest.raises(openai.NotFoundError):
            ask(video.id)


def test_a_video_that_is_being_made_is_cancelled(server: Server) -> None:
    long = server.create(num_inference_steps=1000)
    folder = server.service.store.find(long.id)
    while folder.state().progress < 1:
        assert folder.state().ended_at is None
    assert server.client.videos.retrieve(long.id).status == "in_progress"
    server.client.videos.delete(long.id)
    with pytest.raises(openai.NotFoundError):
        server.client.videos.retrieve(long.id)
    while folder.path.exists():
        assert folder.state().progress < 50
    assert server.wait(server.create()).status == "completed"


def test_the_queue_is_bounded(serve: Serve) -> None:
    server = serve(worker=False, max_queue=2)
    first, _ = server.create(), server.create()
    with pytest.raises(openai.RateLimitError, match="2 videos wait already") as refused:
        server.create()
    assert int(refused.value.response.headers["Retry-After"]) >= 1
    server.client.videos.delete(first.id)
    server.create()


def test_videos_expire(serve: Serve) -> None:
    server = serve(keep_hours=2)
    video = server.wait(server.create())
    assert video.expires_at - video.completed_at == 2 * 3600
    folder = server.service.store.find(video.id)
    folder.set_state(JobState(status="completed", progress=100, ended_at=folder.state().ended_at - 2 * 3600))
    server.service.restore()
    assert not folder.path.exists()
