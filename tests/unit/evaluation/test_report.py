"""The table, from judgements whose numbers are known."""

from typing import Any

import pytest

from fantasyid.evaluation.kept import KeptMeasurement
from fantasyid.evaluation.metrics.registry import all_metrics
from fantasyid.evaluation.protocol import FULL, IDENTITY_PROMPTS, NO_IDENTITY, OPPOSITE_PROMPTS, REPOSED
from fantasyid.evaluation.report import EvaluationReport, VideoJudgement, build_report, to_markdown
from fantasyid.evaluation.statistics import ReportLine

PEOPLE = ("p1", "p2", "p3", "p4")
MEASURED = {
    "turn_left": {"yaw_deg": -10, "smile": 0.9, "mouth_opening": 0},
    "turn_right": {"yaw_deg": 10, "smile": 0.9, "mouth_opening": 0},
    "smile": {"yaw_deg": 0, "smile": 1.1, "mouth_opening": 0},
    "serious": {"yaw_deg": 0, "smile": 0.8, "mouth_opening": 0},
    "mouth_open": {"yaw_deg": 0, "smile": 0.9, "mouth_opening": 0.3},
    "mouth_closed": {"yaw_deg": 0, "smile": 0.9, "mouth_opening": 0.0},
}


def scores(verified: int, frames: int = 4, without_face: int = 0) -> dict[str, Any]:
    """Of `frames` frames the first `verified` are near, the last `without_face` show none."""
    near_and_far = (0.4,) * verified + (0.8,) * (frames - verified - without_face)
    return {
        "detection_rate": (frames - without_face, frames),
        "verification_rate": verified / frames,
        "median_distance": (*near_and_far, *(None,) * without_face),
        "reference_similarity": 0.5 if near_and_far else None,
        "inter_frame_similarity": 0.9 if near_and_far else None,
    }


def kept(values: dict[str, Any]) -> dict[str, KeptMeasurement]:
    return {key: KeptMeasurement(made_of="0" * 64, value=value) for key, value in values.items()}


def judgement(
    person: str,
    mode: str,
    key: str,
    identity: dict[str, Any],
    motion: float | None = 0.02,
    actions: dict[str, float] | None = None,
) -> VideoJudgement:
    others: dict[str, Any] = {metric.definition.key: None for metric in all_metrics()}
    others["face_frechet_distance"] = "1 AAAAAA=="  # the photo's one feature, and none of a frame
    acted = MEASURED.get(key, MEASURED["smile"]) if actions is None else actions
    return VideoJudgement(
        recognizer="dlib-resnet",
        person=person,
        shuffled_person="other",
        mode=mode,
        prompt_key=key,
        measured=kept({**others, **identity, "face_motion": motion, **acted}),
        shuffled=kept(scores(0)),
    )


def full_run() -> list[VideoJudgement]:
    """Three people verified in 4 of 4 frames, the fourth in 2; without identity nobody; re-posed clips move twice.

    The videos of the opposite prompts show nobody: they count for the actions only.
    """
    keys = [prompt.key for prompt in (*IDENTITY_PROMPTS, *OPPOSITE_PROMPTS)]
    five = keys[:5]
    return [
        *(judgement(p, FULL.name, key, scores(2 if p == "p4" else 4)) for p in PEOPLE for key in five),
        *(judgement(p, FULL.name, key, scores(0)) for p in PEOPLE for key in keys[5:]),
        *(judgement(p, NO_IDENTITY.name, key, scores(0, without_face=1)) for p in PEOPLE for key in five),
        *(judgement(p, REPOSED.name, key, scores(4), motion=0.04) for p in PEOPLE for key in keys),
    ]


def acting(video: VideoJudgement, actions: dict[str, float | None]) -> VideoJudgement:
    return video.model_copy(update={"measured": video.measured | kept(actions)})


def lines(report: EvaluationReport) -> dict[str, ReportLine]:
    return {line.name: line for line in report.lines}


def test_numbers_intervals_and_bars() -> None:
    report = build_report(full_run())
    table = lines(report)
    verified = table["full: verified"]
    assert verified.value == pytest.approx(0.875)
    assert verified.low is not None
    assert verified.high is not None
    assert 0.5 <= verified.low < 0.875 < verified.high <= 1.0
    assert (verified.bar, verified.direction, verified.met) == (0.5, "at least", True)
    assert table["full: verified, shuffled"].value == 0
    assert table["full: verified, shuffled"].met is True
    assert table["no_identity: verified"].met is True
    assert table["no_identity: face found"].value == pytest.approx(0.75)
    assert table["full: median distance"].value == pytest.approx(0.4)
    assert table["FM, full / reposed"].value == pytest.approx(0.5)
    assert table["FM, full / reposed"].met is True
    assert (report.num_people, report.num_videos, report.num_frames) == (4, 84, 336)
    assert report.frames_without_face == 20


def test_actions_compare_the_two_videos_of_a_person() -> None:
    run = full_run()
    backwards = {
        ("p1", "turn_left"): MEASURED["turn_right"],
        ("p1", "turn_right"): MEASURED["turn_left"],
        ("p2", "turn_left"): MEASURED["turn_right"],
    }
    run = [
        acting(video, backwards[key])
        if video.mode == FULL.name and (key := (video.person, video.prompt_key)) in backwards
        else video
        for video in run
    ]
    table = lines(build_report(run))
    assert table["full: turn_right over turn_left (yaw_deg)"].value == 0.5, "p1 turns wrongly, p2 not at all"
    assert table["full: turn_right over turn_left (yaw_deg)"].met is False
    assert table["full: turn_right over turn_left (yaw_deg), median difference"].value == 10
    assert table["full: smile over serious (smile)"].value == 1
    assert table["full: mouth_open over mouth_closed (mouth_opening)"].value == 1
    assert table["reposed: turn_right over turn_left (yaw_deg)"].value == 1


def test_a_video_without_a_face_does_not_do_what_was_asked() -> None:
    run = [
        acting(video, dict.fromkeys(MEASURED["smile"]))
        if (video.person, video.prompt_key) == ("p1", "smile")
        else video
        for video in full_run()
    ]
    assert lines(build_report(run))["full: smile over serious (smile)"].value == 0.75


def test_nothing_measured_fails_its_bar() -> None:
    run = [judgement(p, FULL.name, key, scores(0, without_face=4), motion=None) for p in PEOPLE for key in MEASURED]
    table = lines(build_report(run))
    assert table["full: median distance"].value is None
    assert table["full: RS"].value is None
    assert table["full: face found"].value == 0
    assert table["full: face found"].met is False
    assert "FM, full / reposed" not in table


def test_markdown_and_json() -> None:
    report = build_report(full_run())
    text = to_markdown(report)
    assert "4 people, 84 videos, 336 frames, 20 of them without a face" in text
    assert "Judge: dlib-resnet; made of " in text
    assert "| full: verified | 0.875 |" in text
    assert "| at least 0.5 | yes |" in text
    assert EvaluationReport.model_validate_json(report.model_dump_json()) == report


def test_intervals_do_not_change_from_run_to_run() -> None:
    assert build_report(full_run()) == build_report(full_run())
