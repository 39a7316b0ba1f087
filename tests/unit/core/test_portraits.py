"""The one reader of the manifest of portraits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.portraits import FACE_BOX, Portrait, held_out_and_others, read_landmarks, read_portraits

HEADER = "id,person,file,licence,sex,age_decade,face_x0,face_y0,face_x1,face_y1,yaw_deg,split"
ROW = "a1,a,a1.jpg,CC0,female,40,1.5,2,30,40,-8.8,val"


def written(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return path


def test_a_row_with_everything_and_one_with_blanks(tmp_path: Path) -> None:
    first, second = read_portraits(written(tmp_path, ROW, "b1,b,b1.jpg,,,,,,,,,train"))
    assert first == Portrait(
        id="a1", person="a", file="a1.jpg", split="val", sex="female", age_decade=40,
        face_x0=1.5, face_y0=2, face_x1=30, face_y1=40, yaw_deg=-8.8,
    )  # fmt: skip
    assert first.face_box == (1.5, 2, 30, 40)
    manifest = tmp_path / "manifest.csv"
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes())  # as spreadsheets write it
    assert read_portraits(manifest) == (first, second)
    assert second == Portrait(id="b1", person="b", file="b1.jpg", split="train")


def test_columns_that_nobody_asks_for_may_be_missing(tmp_path: Path) -> None:
    path = written(tmp_path, "a1,a,a1.jpg,val", header="id,person,file,split")
    assert [portrait.id for portrait in read_portraits(path)] == ["a1"]
    with pytest.raises(InvalidRequestError, match=r"manifest\.csv has no column 'face_x0'; add it"):
        read_portraits(path, FACE_BOX)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW.replace("-8.8", ""), r"Line 2 of .* has no yaw_deg; fill it in"),
        (ROW.replace("-8.8", "left"), r"Line 2 of .* has no yaw_deg that can be read \('left': "),
        (ROW.replace("female", "woman"), r"Line 2 of .* has no sex that can be read \('woman': "),
        (ROW.replace("a1,a,", "a1,,"), r"Line 2 of .* has no person that can be read \('': "),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        read_portraits(written(tmp_path, row), ("yaw_deg",))


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"There is no manifest at .*none\.csv"):
        read_portraits(tmp_path / "none.csv")
    (tmp_path / "photo.csv").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InvalidRequestError, match=r"photo\.csv is not a CSV"):
        read_portraits(tmp_path / "photo.csv")


def test_people_held_out_and_others(tmp_path: Path) -> None:
    """The split val and those listed are held out; of the others only people with two photos count."""
    rows = ["a1,a,f,val", "b1,b,f,train", "c1,c,f,train", "c2,c,f,train", "d1,d,f,train"]
    portraits = read_portraits(written(tmp_path, *rows, header="id,person,file,split"))
    (tmp_path / "people.txt").write_text("# held out too\nb\n")
    held_out, others = held_out_and_others(portraits, tmp_path / "people.txt")
    assert [portrait.id for portrait in held_out] == ["a1", "b1"]
    assert [portrait.id for portrait in others] == ["c1", "c2"]
    (tmp_path / "people.txt").write_text("b\nz\n")
    with pytest.raises(InvalidRequestError, match=r"lacks 1 people of .* such as z"):
        held_out_and_others(portraits, tmp_path / "people.txt")
    with pytest.raises(InvalidRequestError, match=r"no file .*none\.txt"):
        held_out_and_others(portraits, tmp_path / "none.txt")


POINTS = np.arange(2 * 478 * 3, dtype=np.float32).reshape(2, 478, 3)
PEOPLE = [Portrait(id=name, person=name[0], file=f"{name}.jpg", split="train") for name in ("b1", "a1")]


def landmarks(folder: Path, **changes: Any) -> Path:
    path = folder / "landmarks.npz"
    np.savez(path, **{"ids": np.array(["a1", "b1"]), "landmarks": POINTS} | changes)
    return path


def test_landmarks_in_the_order_of_the_portraits(tmp_path: Path) -> None:
    path = landmarks(tmp_path)
    assert np.array_equal(read_landmarks(path, PEOPLE), POINTS[::-1])
    assert read_landmarks(path, []).shape == (0, 478, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": np.array(["a1", "c1"])}, "has no landmarks of 1 photos, such as b1; add them"),
        (
            {"ids": np.array(["a1"])},
            r"ids of shape \(1,\) and landmarks of shape \(2, 478, 3\), float32; write it anew",
        ),
        ({"landmarks": POINTS[..., :2]}, r"landmarks of shape \(2, 478, 2\), float32; write it anew"),
        ({"landmarks": POINTS.astype(str)}, r"landmarks of shape \(2, 478, 3\), <U32; write it anew"),
        ({"landmarks": np.full_like(POINTS, np.nan)}, "The landmarks of b1 in .* are no finite numbers"),
        ({"landmarks": np.array([{}])}, "is damaged or holds no landmarks"),
    ],
)
def test_landmarks_that_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        read_landmarks(landmarks(tmp_path, **changes), PEOPLE)


def test_landmarks_that_are_damaged_or_missing(tmp_path: Path) -> None:
    path = landmarks(tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InvalidRequestError, match=r"landmarks\.npz is damaged or holds no landmarks \(BadZipFile"):
        read_landmarks(path, PEOPLE)
    np.savez(path, ids=np.array(["a1", "b1"]))
    with pytest.raises(InvalidRequestError, match=r"holds no landmarks \('landmarks'\); write it anew"):
        read_landmarks(path, PEOPLE)
    with pytest.raises(InvalidRequestError, match=r"There are no landmarks at .*none\.npz"):
        read_landmarks(tmp_path / "none.npz", PEOPLE)
