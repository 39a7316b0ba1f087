"""Runs of an evaluation: what is there is not made again, what fails is told, what is asked for wrongly is refused."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from skimage.data import astronaut

from fantasyid.cli.evaluate_run import StudioMaker, system_request
from fantasyid.core.errors import InvalidRequestError, OutOfMemoryError
from fantasyid.core.video import write_video
from fantasyid.evaluation.protocol import ACTION_PAIRS, IDENTITY_PROMPTS, OPPOSITE_PROMPTS
from fantasyid.evaluation.run import RunItem, read_items, run
from fantasyid.evaluation.run_config import RunConfig, RunRow, System, read_run_config, run_rows
from fantasyid.evaluation.tables import RunTable
from tests.commands import refusal
from tests.commands import run as run_command

ROOT = Path(__file__).parents[3]
FACE = cv2.resize(astronaut()[20:220, 130:330], (128, 128), interpolation=cv2.INTER_AREA)
OURS = {"name": "ours", "request": {}}
THEIRS = {"name": "theirs", "videos": {"folder": "theirs", "pattern": "{person}/{prompt}-{seed}.mp4"}}
CONFIG = {
    "people": {"photos": "photos"},
    "prompts": [{"key": "smile", "text": "{person} smiles.", "asks": ["expression"]}],
    "seeds": [7],
    "systems": [OURS, THEIRS],
    "compared_with": "ours",
}

OPPOSITES = {"measure": "smile", "higher": "smile", "lower": "serious"}


@dataclass
class Copier:
    """Makes videos of the photo, and writes down which."""

    notes: Path
    version: str = "1"
    fails_at: str = ""
    dies_at: str = ""

    def made_of(self, row: RunRow) -> str:
        """Hash of row and version."""
        return hashlib.sha256(f"{row.name} {row.text} {self.version}".encode()).hexdigest()

    def make(self, row: RunRow, path: Path) -> None:
        """Write two frames."""
        with self.notes.open("a") as notes:
            notes.write(f"{row.name}\n")
        if row.name == self.fails_at:
            raise OutOfMemoryError("There is no memory.")
        if row.name == self.dies_at:
            raise KeyboardInterrupt
        photo = np.array(Image.open(row.photo))
        write_video(path, np.stack([photo, photo]), 8, {"comment": self.version}, overwrite=True)

    @property
    def made(self) -> list[str]:
        """What was made since this was last asked."""
        lines = self.notes.read_text().split() if self.notes.exists() else []
        self.notes.unlink(missing_ok=True)
        return lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two people's photos, and their videos by another system."""
    (tmp_path / "photos").mkdir()
    for name, picture in (("a", FACE), ("b", np.ascontiguousarray(FACE[:, ::-1]))):
        Image.fromarray(picture).save(tmp_path / "photos" / f"{name}.png")
        (tmp_path / "theirs" / name).mkdir(parents=True)
        write_video(tmp_path / "theirs" / name / "smile-7.mp4", np.stack([picture] * 2), 8)
    return tmp_path


def carry_out(folder: Path, maker: Copier, workers: int = 1, **changes: object) -> list[RunItem]:
    config = RunConfig.model_validate(CONFIG | changes)
    makers = {"ours": partial(_same, maker)} if any(system.request is not None for system in config.systems) else {}
    return run(config, list(run_rows(config, folder)), folder, folder / "out", makers, workers)


def _same(maker: Copier) -> Copier:
    return maker


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (folder / "out" / "items").rglob("*.json")}


def test_what_is_there_is_neither_made_nor_judged_again(folder: Path) -> None:
    maker = Copier(folder / "notes")
    items = carry_out(folder, maker)
    assert [(item.system, item.person, item.failure) for item in items] == [
        ("ours", "a", None),
        ("ours", "b", None),
        ("theirs", "a", None),
        ("theirs", "b", None),
    ]
    assert maker.made == ["a_smile_7", "b_smile_7"]
    before = times(folder)
    assert carry_out(folder, maker) == items
    assert maker.made == []
    assert times(folder) == before


def test_a_killed_run_goes_on_where_it_was(folder: Path) -> None:
    maker = Copier(folder / "notes", dies_at="b_smile_7")
    with pytest.raises(KeyboardInterrupt):
        carry_out(folder, maker)
    assert maker.made == ["a_smile_7", "b_smile_7"]
    config = RunConfig.model_validate(CONFIG)
    with pytest.raises(
        InvalidRequestError, match=r"3 of 4 videos .* are not judged; run `fantasyid evaluate run` again"
    ):
        read_items(folder / "out", list(run_rows(config, folder)))
    maker.dies_at = ""
    assert all(item.failure is None for item in carry_out(folder, maker))
    assert maker.made == ["b_smile_7"]


def test_what_was_made_but_not_judged_is_not_made_again(folder: Path) -> None:
    maker = Copier(folder / "notes")
    (folder / "photos" / "a.png").rename(folder / "away.png")
    Image.fromarray(FACE * 0).save(folder / "photos" / "a.png")
    items = carry_out(folder, maker)
    assert items[0].failure is not None
    assert items[0].failure.startswith("NoFaceError: No face was found in the photo")
    assert items[1].failure is None, "others go on"
    assert maker.made == ["a_smile_7", "b_smile_7"]
    assert carry_out(folder, maker) == items
    assert maker.made == []


@pytest.mark.parametrize("change", ["version", "prompt", "video"])
def test_what_is_made_of_something_else_is_made_anew(folder: Path, change: str) -> None:
    maker = Copier(folder / "notes")
    first = carry_out(folder, maker)
    assert len(maker.made) == 2
    video = folder / "out" / "videos" / "ours" / "a_smile_7.mp4"
    changes: dict[str, object] = {}
    if change == "version":
        maker.version = "2"
    elif change == "prompt":
        changes["prompts"] = [{"key": "smile", "text": "{person} smiles at last.", "asks": ["expression"]}]
    else:
        write_video(video, np.zeros((2, 64, 64, 3), np.uint8), 8, overwrite=True)
    again = carry_out(folder, maker, **changes)
    assert maker.made == (["a_smile_7", "b_smile_7"] if change in ("version", "prompt") else ["a_smile_7"])
    assert (again[0].video_sha256 != first[0].video_sha256) == (change == "version")


def test_another_systems_video_that_changed_is_judged_anew(folder: Path) -> None:
    maker = Copier(folder / "notes")
    before = carry_out(folder, maker)
    write_video(folder / "theirs" / "a" / "smile-7.mp4", np.zeros((3, 64, 64, 3), np.uint8), 8, overwrite=True)
    after = carry_out(folder, maker)
    assert after[2].measured["detection_rate"].value == (0, 3)
    assert [*after[:2], after[3]] == [*before[:2], before[3]]


def test_what_fails_is_told_and_tried_again(folder: Path) -> None:
    maker = Copier(folder / "notes", fails_at="a_smile_7")
    (folder / "theirs" / "b" / "smile-7.mp4").unlink()
    failures = [item.failure for item in carry_out(folder, maker)]
    assert failures[0] == "OutOfMemoryError: There is no memory."
    assert failures[1] is failures[2] is None
    assert failures[3] is not None
    assert failures[3].startswith("UnreadableVideoError: There is no video file at")
    assert len(maker.made) == 2
    maker.fails_at = ""
    assert [item.failure is None for item in carry_out(folder, maker)] == [True, True, True, False]
    assert maker.made == ["a_smile_7"]


# The commands


def write_config(folder: Path, **changes: object) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(CONFIG | {"systems": [THEIRS], "compared_with": "theirs"} | changes))
    return path


def test_the_commands(folder: Path) -> None:
    config = write_config(folder)
    result = run_command("evaluate", "run", config, "--out", folder / "out", "--workers", 2)
    assert result.exit_code == 0, result.output
    assert "| theirs |" in result.stdout
    table = RunTable.model_validate_json((folder / "out" / "table.json").read_text())
    assert (table.num_people, table.num_videos, table.failures) == (2, {"theirs": 2}, {})
    assert "RS (dlib-resnet)" in (folder / "out" / "table.md").read_text()
    assert "\\begin{tabular}" in (folder / "out" / "table.tex").read_text()
    (folder / "out" / "table.md").unlink()
    assert run_command("evaluate", "table", config, "--out", folder / "out").exit_code == 0
    assert (folder / "out" / "table.md").exists()
    (folder / "theirs" / "a" / "smile-7.mp4").unlink()
    result = run_command("evaluate", "run", config, "--out", folder / "out")
    assert result.exit_code == 1
    assert "1 of 2 videos failed" in result.stderr
    assert "theirs, a_smile_7: UnreadableVideoError" in (folder / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"people": {}}, "give either portraits or photos"),
        ({"people": {"photos": "nowhere"}}, "There are no photos in"),
        ({"people": {"portraits": "nowhere"}}, "There is no file"),
        ({"prompts": []}, "prompts: "),
        ({"prompts": [CONFIG["prompts"][0]] * 2}, "prompts names smile twice"),
        ({"prompts": [{"key": "a/b", "text": "x"}]}, "prompts.0.key"),
        ({"seeds": [-1]}, "seeds.0"),
        ({"compared_with": "nobody"}, "compared_with is 'nobody', which is none of the systems"),
        ({"systems": [{"name": "theirs"}]}, "a request, videos or consisid, one of the three"),
        ({"systems": [{"name": "theirs", "videos": {"folder": ".", "pattern": "{who}.mp4"}}]}, "may hold {person}"),
        ({"systems": [{"name": "theirs", "videos": {"folder": ".", "pattern": "a.mp4"}}]}, "one file for all videos"),
        ({"systems": [{"name": "theirs", "request": {"seed": 1}}]}, "gives seed, which is each video's own"),
        ({"systems": [{"name": "theirs", "request": {"steps": 1}}]}, "system theirs cannot be used (steps: Extra"),
        ({"systems": [{"name": "theirs", "request": {"guidance_scale": -1}}]}, "guidance_scale is -1"),
        ({"people": {"photos": "photos", "first": 3}}, "There are 2 people in"),
        ({"opposites": [OPPOSITES | {"measure": "cheer"}]}, "There is no metric 'cheer'; there are"),
        ({"opposites": [OPPOSITES | {"measure": "detection_rate"}]}, "detection_rate has no number of each video"),
        (
            {"opposites": [OPPOSITES | {"measure": "clip_score", "lower": "smile"}]},
            "opposites measures clip_score, which needs clip_folder",
        ),
        ({"opposites": [OPPOSITES]}, "opposites names serious, which is none of the prompts"),
        ({"surprise": 1}, "surprise: Extra inputs"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_sentence(folder: Path, changes: dict[str, object], message: str) -> None:
    assert message in refusal("evaluate", "run", write_config(folder, **changes), "--out", folder / "out")
    assert not (folder / "out").exists()


def test_a_file_that_is_no_config(folder: Path) -> None:
    assert "There is no file" in refusal("evaluate", "run", folder / "no.yaml", "--out", folder / "out")
    (folder / "run.yaml").write_text("a: [")
    assert "is no YAML" in refusal("evaluate", "run", folder / "run.yaml", "--out", folder / "out")


def test_rows_are_every_person_with_every_prompt_and_seed(folder: Path) -> None:
    path = write_config(folder, people={"photos": "photos", "first": 1, "caption": "A woman"}, seeds=[3, 4])
    rows = list(run_rows(read_run_config(path), folder))
    assert [(row.name, row.text, row.photo) for row in rows] == [
        ("a_smile_3", "A woman smiles.", folder / "photos" / "a.png"),
        ("a_smile_4", "A woman smiles.", folder / "photos" / "a.png"),
    ]


def test_what_an_earlier_version_did_not_measure_is_not_judged(folder: Path) -> None:
    config = RunConfig.model_validate(CONFIG | {"systems": [THEIRS], "compared_with": "theirs"})
    rows = list(run_rows(config, folder))
    (first, _) = run(config, rows, folder, folder / "out", {})
    (path,) = (folder / "out" / "items").rglob("a_*.json")
    less = {key: value for key, value in first.measured.items() if key != "jitter"}
    path.write_text(first.model_copy(update={"measured": less}).model_dump_json())
    with pytest.raises(InvalidRequestError, match="1 of 2 videos"):
        read_items(folder / "out", rows)
    assert run(config, rows, folder, folder / "out", {})[0] == first


def test_the_protocol_is_fifty_prompts_and_eight_motions_of_fifty_people(tmp_path: Path) -> None:
    path = ROOT / "configs" / "eval" / "protocol.yaml"
    config = read_run_config(path)
    assert len({prompt.text for prompt in config.prompts}) == len(config.prompts) == 50 + 8
    assert all(prompt.text.startswith("{person} ") and prompt.text.endswith(".") for prompt in config.prompts)
    motions = {prompt.key: prompt for prompt in (*IDENTITY_PROMPTS, *OPPOSITE_PROMPTS)}
    assert {key: prompt.text for key, prompt in motions.items()} == {
        prompt.key: prompt.text for prompt in config.prompts[50:]
    }
    assert all(prompt.asks == motions[prompt.key].asks for prompt in config.prompts[50:])
    pairs = [(pair.measure, pair.higher, pair.lower) for pair in config.opposites]
    assert pairs == [(pair.measure, pair.higher, pair.lower) for pair in ACTION_PAIRS]
    (tmp_path / "portraits").mkdir()
    for number in range(51):
        (tmp_path / "portraits" / f"{number:02}.jpg").touch()
    assert len(list(run_rows(config, tmp_path))) == 50 * 58
    for number in range(2):
        (tmp_path / "portraits" / f"{number:02}.jpg").unlink()
    with pytest.raises(InvalidRequestError, match=r"There are 49 people in .*, and people.first asks for 50"):
        list(run_rows(config, tmp_path))


# Our own videos


def test_our_videos_know_what_they_are_made_of(folder: Path) -> None:
    config = RunConfig.model_validate(CONFIG)
    row, other, *_ = run_rows(config, folder)
    maker = StudioMaker(system_request(System.model_validate(OURS | {"request": {"model": {"device": "cpu"}}}), row))
    made_of = maker.made_of(row)
    assert maker.made_of(row) == made_of
    assert maker.made_of(other) != made_of, "another photo"
    moved = folder / "moved.png"
    moved.write_bytes(row.photo.read_bytes())
    assert maker.made_of(RunRow("ours", row.person, moved, row.prompt, row.seed)) == made_of, "the same photo elsewhere"
    assert maker.made_of(RunRow("ours", row.person, row.photo, row.prompt, 8)) != made_of
    maker.request = maker.request.model_copy(update={"identity_scale": 0.5})
    assert maker.made_of(row) != made_of
