"""Readers of plain folders and of published sets, on small folders in the sets' own layouts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.sources.formats import list_sources
from fantasyid.data.sources.listing import Listing


def touch(*paths: Path) -> None:
    """Files of three bytes: readers look at no video."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mp4")


def listed(folder: Path, layout: Any, **options: Any) -> Listing:
    return list_sources(folder, layout, options.get("licence"), options.get("captions"))


def consisid(folder: Path) -> None:
    touch(folder / "part_a" / "videos" / "abc_0_100.mp4", folder / "part_a" / "videos" / "deep" / "abc_120_400.mp4")
    (folder / "total_train_data.txt").write_text("part_a/videos,part_a/captions.json,part_a/annotation\n\n")
    entry = {"resolution": {"height": 720, "width": 1280}, "fps": 25, "duration": 4.0, "num_frames": 100}
    entries = [
        {"path": "deep/abc_120_400.mp4", "cap": ["A man talks.", "He talks."]} | entry,
        {"path": "abc_0_100.mp4", "cap": "A man nods."} | entry,
        {"path": "gone_0_1.mp4", "cap": "Nobody."} | entry,
    ]
    (folder / "part_a" / "captions.json").write_text(json.dumps(entries))


def celebvhq(folder: Path) -> None:
    touch(folder / "processed" / "M2Ohb0FAaJU_1.mp4")
    clip = {
        "ytb_id": "M2Ohb0FAaJU",
        "duration": {"start_sec": 81.62, "end_sec": 86.17},
        "bbox": {"top": 0.0, "bottom": 0.8815, "left": 0.1964, "right": 0.6922},
        "attributes": {"appearance": [0, 1, 1], "action": [1, 0], "emotion": {"sep_flag": False, "labels": "neutral"}},
        "version": "v0.1",
    }
    meta = {"appearance_mapping": ["bald", "wavy_hair", "smiling_eyes"], "action_mapping": ["talk", "nod"]}
    content = {"meta_info": meta, "clips": {"M2Ohb0FAaJU_1": clip, "gone_0": clip}}
    (folder / "celebvhq_info.json").write_text(json.dumps(content))


def openvid(folder: Path) -> None:
    touch(folder / "video" / "celebv_-0A_3_12to144.mp4")
    (folder / "OpenVid-1M.csv").write_text(
        "video,caption,aesthetic score,motion score,temporal consistency score,camera motion,frame,fps,seconds\n"
        'celebv_-0A_3_12to144.mp4,"A woman, in a room.",5.2,3.1,0.99,static,132,30.0,4.4\n'
        "gone_0to10.mp4,Nobody.,5,3,0.9,pan_left,10,30.0,0.3\n"
    )


def opens2v(folder: Path) -> None:
    touch(folder / "videos" / "part1" / "xyz" / "xyz_segment_3.mp4")
    metadata = {
        "path": "part1/xyz/xyz_segment_3.mp4",
        "cut": [0, 300],
        "face_cut": [10, 210],
        "crop": [0, 1280, 64, 656],
        "fps": 24.0,
        "num_frames": 300,
        "resolution": {"height": 720, "width": 1280},
        "cap": ["long"],
        "aesthetic": 5.5,
        "motion": 4.0,
        "tech": 3.2,
        "face_cap_qwen": "A man looks up.",
    }
    entries = {"xyz_3": {"metadata": metadata, "annotation": {"mask_map": {"1": "RLE"}}}}
    entries["gone"] = {"metadata": metadata | {"path": "part1/gone.mp4"}, "annotation": {}}
    (folder / "total_part1.json").write_text(json.dumps(entries))


def test_consisid(tmp_path: Path) -> None:
    consisid(tmp_path)
    listing = listed(tmp_path, "consisid")
    assert listing.absent == 1
    nod, talk = listing.sources
    assert (nod.path, nod.captions, nod.film) == ("part_a/videos/abc_0_100.mp4", ("A man nods.",), "abc")
    assert (talk.path, talk.film) == ("part_a/videos/deep/abc_120_400.mp4", "abc")
    assert talk.captions == ("A man talks.", "He talks.")
    assert "Apache-2.0" in nod.licence
    assert json.loads(nod.annotations) == {"duration_s": 4.0, "fps": 25.0, "height": 720, "width": 1280}


def test_celebvhq(tmp_path: Path) -> None:
    celebvhq(tmp_path)
    listing = listed(tmp_path, "celebvhq")
    assert listing.absent == 1
    (source,) = listing.sources
    assert (source.path, source.film, source.captions) == ("processed/M2Ohb0FAaJU_1.mp4", "M2Ohb0FAaJU", ())
    assert "non-commercial" in source.licence
    assert json.loads(source.annotations) == {"action": ["talk"], "appearance": ["wavy_hair", "smiling_eyes"]}


def test_openvid(tmp_path: Path) -> None:
    openvid(tmp_path)
    listing = listed(tmp_path, "openvid")
    assert listing.absent == 1
    (source,) = listing.sources
    assert (source.path, source.film) == ("video/celebv_-0A_3_12to144.mp4", "celebv_-0A")
    assert source.captions == ("A woman, in a room.",)
    assert json.loads(source.annotations)["aesthetic_score"] == 5.2


def test_opens2v(tmp_path: Path) -> None:
    opens2v(tmp_path)
    listing = listed(tmp_path, "opens2v")
    assert listing.absent == 1
    (source,) = listing.sources
    assert (source.path, source.film) == ("videos/part1/xyz/xyz_segment_3.mp4", "xyz")
    assert (source.cut, source.crop, source.captions) == ((10, 210), (0, 64, 1280, 656), ("A man looks up.",))


def test_a_plain_folder(tmp_path: Path) -> None:
    touch(tmp_path / "b.MOV", tmp_path / "a" / "c.mp4", tmp_path / "notes.pdf")
    (tmp_path / "b.txt").write_text("A man\nnods. \n")
    listing = listed(tmp_path, "folder", licence="CC0 1.0")
    assert [source.path for source in listing.sources] == ["a/c.mp4", "b.MOV"]
    assert [source.captions for source in listing.sources] == [(), ("A man nods.",)]
    assert {source.licence for source in listing.sources} == {"CC0 1.0"}
    assert {source.size_bytes for source in listing.sources} == {3}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("said.jsonl", '{"path": "a/c.mp4", "caption": "One."}\n{"path": "a/c.mp4", "caption": "Two.", "more": 1}\n'),
        ("said.csv", "path,caption,more\na/c.mp4,One.,1\na/c.mp4,Two.,1\n"),
    ],
)
def test_captions_in_one_file(tmp_path: Path, name: str, text: str) -> None:
    touch(tmp_path / "videos" / "a" / "c.mp4", tmp_path / "videos" / "b.mp4")
    (tmp_path / "videos" / "b.txt").write_text("beside")
    said = tmp_path / name
    said.write_text(text)
    listing = listed(tmp_path / "videos", "folder", licence="CC0 1.0", captions=said)
    assert [source.captions for source in listing.sources] == [("One.", "Two."), ()]
    said.write_text(text.replace("a/c.mp4", "a/d.mp4"))
    with pytest.raises(InvalidRequestError, match=rf"Line [12] of .*{name} has a caption of a/d.mp4"):
        listed(tmp_path / "videos", "folder", licence="CC0 1.0", captions=said)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="There is no folder"):
        listed(tmp_path / "none", "folder", licence="CC0 1.0")
    with pytest.raises(InvalidRequestError, match="licence of the videos is not given"):
        listed(tmp_path, "folder")
    with pytest.raises(InvalidRequestError, match="There is no video in"):
        listed(tmp_path, "folder", licence="CC0 1.0")
    with pytest.raises(InvalidRequestError, match="openvid has its own licence"):
        listed(tmp_path, "openvid", licence="CC0 1.0")
    for layout, named in (
        ("consisid", "total_train_data.txt"),
        ("celebvhq", "celebvhq_info.json"),
        ("openvid", "OpenVid-1M.csv"),
        ("opens2v", ".json file"),
    ):
        with pytest.raises(InvalidRequestError, match=f"There is no .*{named}"):
            listed(tmp_path, layout)


@pytest.mark.parametrize(
    ("layout", "make", "file", "old", "new", "message"),
    [
        ("consisid", consisid, "part_a/captions.json", '"cap"', '"words"', r"Entry 0 of .* has no cap"),
        ("consisid", consisid, "part_a/captions.json", "[{", "{", "cannot be read"),
        ("consisid", consisid, "total_train_data.txt", ",part_a/annotation", "", "must be videos, captions and"),
        ("consisid", consisid, "total_train_data.txt", "part_a/videos", "../videos", "do not lie in"),
        ("celebvhq", celebvhq, "celebvhq_info.json", '"ytb_id"', '"id"', "has no clips.M2Ohb0FAaJU_1.ytb_id"),
        ("celebvhq", celebvhq, "celebvhq_info.json", "[0, 1, 1]", "[0, 1]", "no appearance attributes of 3 numbers"),
        ("openvid", openvid, "OpenVid-1M.csv", ",caption,", ",words,", "Line 2 of .* has no caption"),
        ("openvid", openvid, "OpenVid-1M.csv", ",5.2,", ",good,", "Line 2 of .* has no aesthetic score"),
        ("openvid", openvid, "OpenVid-1M.csv", "celebv_-0A_3_12to144.mp4", "other.mp4", "None of the 2 videos"),
        ("opens2v", opens2v, "total_part1.json", '"face_cut"', '"cuts"', "xyz_3 of .* has no metadata.face_cut"),
        ("opens2v", opens2v, "total_part1.json", '{"xyz_3"', '"xyz_3"', "is not JSON"),
    ],
)
def test_lists_that_cannot_be_read_are_named(
    tmp_path: Path, layout: str, make: Callable[[Path], None], file: str, old: str, new: str, message: str
) -> None:
    make(tmp_path)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    with pytest.raises(InvalidRequestError, match=message):
        listed(tmp_path, layout)


def test_a_video_that_is_listed_twice_is_named(tmp_path: Path) -> None:
    openvid(tmp_path)
    table = tmp_path / "OpenVid-1M.csv"
    head, row, _ = table.read_text().splitlines()
    table.write_text("\n".join([head, row, row]))
    with pytest.raises(InvalidRequestError, match=r"lists video/celebv_-0A_3_12to144\.mp4 twice"):
        listed(tmp_path, "openvid")
