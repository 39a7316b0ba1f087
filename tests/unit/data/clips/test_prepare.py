"""`fantasyid data prepare` on small films with known answers: every clip is kept, or dropped for the right reason."""

import html
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fantasyid.core.video import Video
from fantasyid.data.dataset.layout import REMEDY, DatasetFolder
from fantasyid.data.dataset.rows import Candidate, Clip, Dropped
from fantasyid.data.dataset.shards import Shard
from fantasyid.data.dataset.tables import read_table
from fantasyid.data.repose.rig import RigSet
from tests.commands import refusal, run
from tests.kills import contents
from tests.unit.data.clips.conftest import PRESET, Films
from tests.unit.data.clips.films import NOD_DEG, TURN_DEG, turning

TWICE = ("turn.mp4", "other-place/turn.mp4")


@pytest.fixture(scope="module")
def clips(dataset: DatasetFolder) -> list[Clip]:
    return read_table(dataset.clips, Clip, REMEDY)


@pytest.fixture(scope="module")
def dropped(dataset: DatasetFolder) -> list[Dropped]:
    return read_table(dataset.dropped, Dropped, REMEDY)


def of(rows: list[Clip], path: str) -> Clip:
    (row,) = (row for row in rows if row.path == path)
    return row


def test_every_clip_is_kept_or_dropped_as_expected(films: Films, clips: list[Clip], dropped: list[Dropped]) -> None:
    became: dict[str, list[tuple[tuple[int, ...], str]]] = {}
    for path, shot, reason in [(c.path, c.shot, "") for c in clips] + [(d.path, d.shot, d.reason) for d in dropped]:
        became.setdefault(path, []).append((shot, reason))
    seen = {path: tuple(reason for _, reason in sorted(shots)) for path, shots in became.items()}
    twice = sorted(seen.pop(path) for path in TWICE)
    assert twice == [("",), ("duplicate",)]
    assert seen == {name: reasons for name, reasons in films.expected.items() if name not in TWICE}


def test_what_is_dropped_says_which_number_failed(dropped: list[Dropped]) -> None:
    first = {row.path: row.verdicts[0] for row in dropped}
    assert first["subtitle.mp4"].note == "I TOLD YOU"
    assert first["subtitle.mp4"].measured == 2
    assert first["slow.mp4"].note == "5 frames per second"
    assert first["short.mp4"].note == "5 of 9 frames"
    assert 30 < first["far.mp4"].measured < first["far.mp4"].limit == 44
    assert first["becoming.mp4"].measured > 0.7
    assert first["notes.mp4"].note.startswith("notes.mp4 cannot be read as a video")
    (duplicate,) = (row.verdicts[0] for row in dropped if row.reason == "duplicate")
    assert duplicate.note.startswith("of ")


@pytest.mark.parametrize(("name", "axis", "degrees"), [("turn.mp4", 0, TURN_DEG), ("nod.mp4", 1, NOD_DEG)])
def test_poses_are_those_of_the_film(
    rig: RigSet, dataset: DatasetFolder, name: str, axis: int, degrees: tuple[float, float]
) -> None:
    rows = [row for part in range(5) for row in read_table(dataset.part(part)["rows"], Candidate, REMEDY)]
    (clip,) = (row for row in rows if row.path == name)
    _, known = turning(rig, axis, *degrees)
    measured = torch.tensor([clip.yaw_deg, clip.pitch_deg, clip.roll_deg]).T
    error = (measured - known[list(clip.frames)]).abs()
    assert error.median(dim=0).values.max() < 3
    assert error.max() < 6
    # The views are the two ends, and what is between them.
    assert {view.frame for view in clip.views[:2]} == {clip.frames[0], clip.frames[-1]}
    assert clip.view_spread_deg == pytest.approx((degrees[1] - degrees[0]) * 8 / 12, abs=6)


def test_shots_are_those_that_were_joined(dataset: DatasetFolder, clips: list[Clip], dropped: list[Dropped]) -> None:
    assert of(clips, "joined.mp4").shot == (2, 11)
    assert [row.shot for row in dropped if row.path == "joined.mp4"] == [(15, 24)]


def test_clips_are_in_the_order_of_their_ids_and_show_the_face(clips: list[Clip]) -> None:
    assert [clip.clip_id for clip in clips] == sorted(clip.clip_id for clip in clips)
    sign = of(clips, "sign.mp4")
    assert sign.crop == (0, sign.crop[1], 176, sign.crop[1] + 176)
    assert 20 <= sign.crop[1] <= 60
    assert sign.caption == "Somebody in sign."
    assert sign.person == "sign.mp4#0"
    car = [clip for clip in clips if clip.path == "car.mp4"]
    assert {clip.person for clip in car} == {"car.mp4#0"}
    assert len({clip.split for clip in car}) == 1
    assert {clip.split for clip in clips} == {"train", "val"}
    assert all(np.diff(clip.frames).min() > 2 for clip in car)
    used = [frame for clip in car for frame in clip.frames]
    assert len(used) == len(set(used))


def test_pictures_of_views_hold_the_landmarks(dataset: DatasetFolder, clips: list[Clip]) -> None:
    clip = of(clips, "nod.mp4")
    shard = Shard(dataset.part(clip.part)["pictures"], REMEDY)
    for view in clip.views:
        landmarks = shard.tensor(f"{view.key}/landmarks")
        assert landmarks.shape == (478, 3)
        assert 70 < landmarks[:, 1].max() - landmarks[:, 1].min() < 95
        assert shard.tensor(f"{view.key}/vertices").abs().max() < 30
        assert bytes(shard.tensor(f"{view.key}/picture")[:3].tolist()) == b"\xff\xd8\xff"
    tracks = Shard(dataset.part(clip.part)["tracks"], REMEDY).tensor(f"{clip.clip_id}/landmarks")
    assert tracks.shape == (9, 478, 3)
    assert torch.isfinite(tracks).all()


def test_the_manifest_counts_and_the_report_shows_everything(dataset: DatasetFolder, clips: list[Clip]) -> None:
    manifest = dataset.read_manifest()
    assert manifest.kept == len(clips)
    assert manifest.candidates == manifest.kept + sum(manifest.dropped.values())
    assert manifest.licences == {"public domain": len(clips)}
    page = html.unescape(dataset.report.read_text())
    for word in (*manifest.dropped, "I TOLD YOU", *(clip.caption for clip in clips), *manifest.backends):
        assert word in page, word
    assert "<script" not in page
    assert "http" not in page
    assert page.count("data:image/jpeg;base64,") >= sum(len(clip.views) + 1 for clip in clips)


def test_other_rules_decide_anew_without_looking_at_a_video(
    films: Films, dataset: DatasetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(self: Video) -> None:
        raise AssertionError("a video was read")

    out, preset = tmp_path / "clips", tmp_path / "lenient.yaml"
    shutil.copytree(dataset.path, out)
    preset.write_text(PRESET.replace("min_side: 128", "min_side: 100, captions: measured"))
    before = contents(out)
    monkeypatch.setattr(Video, "frames", forbidden)
    given = ["data", "prepare", films.folder, "--out", out, "--licence", "public domain", "--config"]
    assert run(*given, preset).exit_code == 0
    kept = {clip.path: clip for clip in read_table(DatasetFolder(out).clips, Clip, REMEDY)}
    reasons = {row.reason for row in read_table(DatasetFolder(out).dropped, Dropped, REMEDY)}
    assert not reasons & {"too small", "no caption"}
    assert kept["silent.mp4"].caption == "A person looks up."
    assert kept["silent.mp4"].caption_from == "measured"
    preset.write_text(PRESET)
    assert run(*given, preset).exit_code == 0
    assert contents(out) == before


def test_another_way_to_measure_is_refused(films: Films, dataset: DatasetFolder, tmp_path: Path) -> None:
    preset = tmp_path / "other.yaml"
    given = ["data", "prepare", films.folder, "--out", dataset.path, "--licence", "public domain", "--config", preset]
    preset.write_text(PRESET.replace("text_frames: 2", "text_frames: 3"))
    assert "is measured with measure.text_frames 2 and not 3" in refusal(*given)
    preset.write_text(PRESET.replace("text_frames: 2", "text_frames: 0"))
    assert "The field measure.text_frames of the preset" in refusal(*given)
    preset.write_text(PRESET)
    given[given.index("public domain")] = "other terms"
    assert "was begun with other videos" in refusal(*given)
