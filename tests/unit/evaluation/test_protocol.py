"""The evaluation as data: the people, the prompts and the files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fantasyid.core.errors import InvalidRequestError, UnreadableVideoError
from fantasyid.evaluation.protocol import (
    ACTION_PAIRS,
    FULL,
    IDENTITY_PROMPTS,
    NO_IDENTITY,
    OPPOSITE_PROMPTS,
    SEED,
    Person,
    evaluation_rows,
    frames_made_of,
    load_frames,
    read_people,
    save_frames,
    shuffled_reference,
)

MANIFEST = """id,person,file,sex,age_decade,face_x0,face_y0,face_x1,face_y1,split
p1_a,p1,a.jpg,female,40,0,0,100,100,val
p1_b,p1,b.jpg,female,40,0,0,200,90,val
p2_a,p2,c.jpg,male,,0,0,100,100,val
p3_a,p3,d.jpg,,60,0,0,100,100,val
p4_a,p4,e.jpg,male,50,0,0,100,100,train
"""
PEOPLE = tuple(
    Person(name=f"p{index}", photo=f"{index}.jpg", caption="A person", sex=sex)
    for index, sex in enumerate(("male", "female", "male", "female", "male"))
)


def test_people_of_the_split_with_their_largest_face(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(MANIFEST)
    people = read_people(tmp_path / "m.csv")
    assert [(person.name, person.photo) for person in people] == [("p1", "b.jpg"), ("p2", "c.jpg"), ("p3", "d.jpg")]
    assert [person.caption for person in people] == ["A woman in her 40s", "A man", "A person in their 60s"]


def test_bad_manifests(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="no manifest"):
        read_people(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text(MANIFEST)
    with pytest.raises(InvalidRequestError, match="'test'"):
        read_people(tmp_path / "m.csv", split="test")
    (tmp_path / "m.csv").write_text(MANIFEST.replace("face_x1", "face_right"))
    with pytest.raises(InvalidRequestError, match="face_x1"):
        read_people(tmp_path / "m.csv")


def test_everybody_is_judged_against_somebody_else_of_the_same_sex_where_possible() -> None:
    others = shuffled_reference(PEOPLE)
    assert {other.name for other in others.values()} == {person.name for person in PEOPLE}
    assert all(others[person.name] != person for person in PEOPLE)
    assert sum(others[person.name].sex == person.sex for person in PEOPLE) == 3


def test_rows() -> None:
    rows = list(evaluation_rows(PEOPLE))
    assert len(IDENTITY_PROMPTS) == 5
    assert len(rows) == len(PEOPLE) * (8 + 5 + 5 + 5)
    assert len({row.file for row in rows}) == len(rows)
    first = rows[0]
    assert (first.mode, first.use_reference, first.use_identity_tokens) == ("full", True, True)
    assert first.prompt == "A person turns the head to the left, in front of a plain grey background."
    assert first.file == Path("full/p0_turn_left.npz")
    seeds = {(row.person.name, row.seed) for row in rows}
    assert seeds == {(person.name, SEED + index) for index, person in enumerate(PEOPLE)}
    bare = {(row.use_reference, row.use_identity_tokens) for row in evaluation_rows(PEOPLE, (NO_IDENTITY,))}
    assert bare == {(False, False)}


def test_a_pair_differs_in_its_action_only() -> None:
    texts = {prompt.key: prompt.text for prompt in (*IDENTITY_PROMPTS, *OPPOSITE_PROMPTS)}
    rows = {row.prompt_key for row in evaluation_rows(PEOPLE, (FULL,))}
    for pair in ACTION_PAIRS:
        assert {pair.higher, pair.lower} <= rows
        assert texts[pair.higher].split(", ")[1] == texts[pair.lower].split(", ")[1]


def test_frames_round_trip(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    path = tmp_path / "full" / "p1_nod.npz"
    save_frames(path, frames, 8.0)
    back, fps = load_frames(path)
    np.testing.assert_array_equal(back, frames)
    assert fps == 8
    assert [file.name for file in path.parent.iterdir()] == ["p1_nod.npz"]


def test_damaged_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(UnreadableVideoError, match=r"a\.npz"):
        load_frames(path)
    save_frames(path, np.zeros((3, 8, 8, 3), np.uint8), 8.0)
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[80:100] = b"\xff" * 20
    for content in (whole[:100], changed, b"", b"PK"):
        path.write_bytes(content)
        assert not frames_made_of(path)
        with pytest.raises(UnreadableVideoError, match=r"a\.npz does not hold frames .*; remove it and make it again"):
            load_frames(path)
    np.savez(path, frames=np.zeros((3, 8, 8)), fps=8.0)
    with pytest.raises(UnreadableVideoError, match="float64"):
        load_frames(path)


def test_needs_no_encoder_and_no_face_library() -> None:
    """The machine that generates has neither."""
    script = (
        "import sys, fantasyid.evaluation.protocol; "
        "sys.exit(sorted({'av', 'dlib', 'rich', 'typer', 'torch'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
