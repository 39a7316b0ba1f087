"""Every rule drops what is beyond its limit, and nothing within it."""

from typing import Any

import pytest

from fantasyid.data.clips.captioner import measured_caption
from fantasyid.data.clips.config import KeepConfig
from fantasyid.data.clips.decide import decide
from fantasyid.data.clips.filters import duplicates, judge
from fantasyid.data.dataset.rows import Candidate, ReadText, View

KEEP = KeepConfig()
VIEW = View(key="k", frame=0, yaw_deg=0, pitch_deg=0, roll_deg=0, confidence=1, sharpness=1, error_cm=0)
GOOD: dict[str, Any] = {
    "clip_id": "a",
    "path": "a.mp4",
    "sha256": "0",
    "licence": "CC0",
    "film": "a",
    "captions": ("A man.",),
    "annotations": "{}",
    "crop": (0, 0, 720, 480),
    "frames": tuple(range(20)),
    "confidence": (0.99,) * 20,
    "face_height": 100.0,
    "yaw_deg": (0.0,) * 20,
    "pitch_deg": (0.0,) * 20,
    "roll_deg": (0.0,) * 20,
    "views": (VIEW,),
    "face_motion": 0.01,
    "luma": 100.0,
    "hashes": ("00", "00", "00"),
    "embedding": (1.0, 0.0),
}


def made(**changes: Any) -> Candidate:
    return Candidate(**GOOD | changes)


def reasons(**changes: Any) -> list[str]:
    return [verdict.reason for verdict in judge(made(**changes), KEEP)]


def text(
    frame: int, said: str = "hello", score: float = 0.95, box: tuple[float, ...] = (0.1, 0.9, 0.2, 0.95)
) -> ReadText:
    return ReadText(frame=frame, box=box, score=score, text=said)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"crop": (0, 0, 719, 479)}, ["too small"]),
        ({"confidence": (0.99,) * 19 + (0.0,)}, []),
        ({"confidence": (0.99,) * 18 + (0.0,) * 2}, ["face lost"]),
        ({"confidence": (0.99,) * 19 + (0.8,)}, []),
        ({"confidence": (0.99,) * 18 + (0.8,) * 2}, ["unsure face"]),
        ({"confidence": (0.0,) * 20, "views": ()}, ["no face"]),
        ({"face_height": 63.0}, ["face too small"]),
        ({"face_height": 80.0, "crop": (0, 0, 3000, 2001)}, ["face too small"]),
        ({"face_height": 80.0, "crop": (0, 0, 3000, 2000)}, []),
        ({"face_outside": 0.06}, ["face cut off"]),
        ({"views": ()}, ["no view"]),
        ({"other_area": 0.25, "other_frames": 0.5}, []),
        ({"other_area": 0.26, "other_frames": 0.1}, ["several people"]),
        ({"other_area": 0.1, "other_frames": 0.6}, ["several people for long"]),
        ({"person_change": 0.71}, ["person changes"]),
        ({"face_motion": 0.001}, ["frozen"]),
        ({"luma": 15.0}, ["too dark"]),
        ({"luma": 236.0}, ["too bright"]),
        ({"fault": "short shot", "detail": "1 of 49 frames", "confidence": ()}, ["short shot"]),
        ({"luma": 15.0, "face_outside": 0.06}, ["face cut off", "too dark"]),
    ],
)
def test_the_rules_at_their_limits(changes: dict[str, Any], expected: list[str]) -> None:
    assert reasons(**changes) == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((text(0), text(10)), ["subtitle"]),
        ((text(0), text(0)), []),
        ((text(0), text(10, box=(0.5, 0.5, 0.6, 0.55))), []),
        ((text(0), text(10, score=0.89)), []),
        ((text(0, "ab"), text(10, "a, b!")), []),
        ((text(0, "a, b, c"), text(10, "123")), ["subtitle"]),
        ((text(0, box=(0.1, 0.8, 0.4, 0.9)),), ["text"]),
        ((text(0, box=(0.1, 0.8, 0.4, 0.9), score=0.5),), []),
    ],
)
def test_standing_text_is_a_subtitle_and_a_passing_sign_is_none(
    texts: tuple[ReadText, ...], expected: list[str]
) -> None:
    assert reasons(texts=texts) == expected


def test_two_clips_are_one_if_pictures_and_motion_agree() -> None:
    turning = {"yaw_deg": (0.0, 10.0, 20.0), "pitch_deg": (0.0, 0.0, 0.0)}
    first = made(**turning)
    same = made(clip_id="b", film="b", hashes=("3ff", "0", "1"), yaw_deg=(2.9, 10.0, 20.0), pitch_deg=(0.0, 0.0, 0.0))
    other = made(clip_id="c", film="c", hashes=("7ff", "0", "1"), **turning)
    moving = made(clip_id="d", film="d", yaw_deg=(0.0, 10.0, 24.0), pitch_deg=(0.0, 0.0, 0.0))
    take = made(clip_id="e", **turning)
    assert duplicates([first, same, other, moving, take], KEEP) == {"b": "a"}
    assert duplicates([same, first], KEEP) == {"a": "b"}
    assert duplicates([], KEEP) == {}


def test_clips_are_ordered_numbered_by_person_and_split_by_film() -> None:
    far = {"pitch_deg": (40.0,) * 20}
    rows = [
        made(clip_id="c", yaw_deg=(30.0,) * 20),
        made(clip_id="a", embedding=(0.0, 1.0)),
        made(clip_id="b", yaw_deg=(-30.0,) * 20, embedding=(0.6, 0.8)),
        made(clip_id="d", film="other", captions=(), **far),
    ]
    decision = decide([(7, row) for row in rows], KEEP)
    assert [(clip.clip_id, clip.person, clip.part) for clip in decision.clips] == [
        ("a", "a#0", 7),
        ("b", "a#0", 7),
        ("c", "a#1", 7),
    ]
    assert [row.reason for row in decision.dropped] == ["no caption"]
    measured = decide([(7, row) for row in rows], KeepConfig(captions="measured", held_out=1.0))
    assert [(clip.caption, clip.caption_from) for clip in measured.clips][2:] == [
        ("A man.", "source"),
        ("A person looks at the camera.", "measured"),
    ]
    assert {clip.split for clip in measured.clips} == {"val"}
    films = [made(clip_id=f"{index:04}", film=str(index), yaw_deg=(index * 4.0,) * 20) for index in range(400)]
    split = [clip.split for clip in decide([(0, film) for film in films], KeepConfig(held_out=0.25)).clips]
    assert 70 < split.count("val") < 130


def test_the_same_file_twice_is_kept_once() -> None:
    decision = decide([(0, made()), (1, made(path="b.mp4", film="b"))], KEEP)
    assert [clip.path for clip in decision.clips] == ["a.mp4"]
    assert [(row.path, row.reason) for row in decision.dropped] == [("b.mp4", "duplicate")]


@pytest.mark.parametrize(
    ("angles", "sentence"),
    [
        ({"yaw_deg": (-10.0, 0.0, 10.0)}, "A person turns the head to the right."),
        ({"yaw_deg": (10.0, 0.0, -10.0)}, "A person turns the head to the left."),
        ({"pitch_deg": (0.0, 5.0, 12.0)}, "A person looks down."),
        ({"roll_deg": (0.0, 5.0, 12.0)}, "A person tilts the head to the left."),
        (
            {"yaw_deg": (0.0, 9.0, 20.0), "pitch_deg": (9.0, 0.0, -9.0)},
            "A person turns the head to the right and looks up.",
        ),
        ({"yaw_deg": (-25.0, -24.0, -25.0)}, "A person faces left."),
        ({"yaw_deg": (25.0, 24.0, 25.0)}, "A person faces right."),
        ({}, "A person looks at the camera."),
    ],
)
def test_captions_say_what_the_head_does(angles: dict[str, Any], sentence: str) -> None:
    still = dict.fromkeys(("yaw_deg", "pitch_deg", "roll_deg"), (0.0, 0.0, 0.0))
    assert measured_caption(made(**still | angles)) == sentence
