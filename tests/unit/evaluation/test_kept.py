"""What is kept is used again as long as everything it was made of is the same."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from fantasyid.core.checkpoint import save_packed
from fantasyid.core.code_fingerprint import code_fingerprint
from fantasyid.core.errors import InvalidRequestError
from fantasyid.evaluation import kept as subject
from fantasyid.evaluation.identity import Judge
from fantasyid.evaluation.kept import KeptMeasurement, measure_all
from fantasyid.evaluation.metrics.face_found import FaceFound
from fantasyid.evaluation.metrics.interface import Definition, MeanOfVideos
from fantasyid.evaluation.protocol import Aspect
from fantasyid.evaluation.seen import Instruments, Reference, SeenVideo
from tests.tiny import tiny_face_reader_model, tiny_face_vision
from tests.unit.evaluation.seen_videos import BLACK

PHOTO = astronaut()[0:256, 100:356]


@dataclass
class Counting(MeanOfVideos):
    """Counts how often it measures."""

    definition = Definition("counting", "counting", "", (0.0, 1.0), "neither")
    times: int = 0

    def measure(self, video: SeenVideo, reference: Reference) -> float:
        """Count."""
        self.times += 1
        return float(self.times)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.builtin()


def reader(folder: Path, seed: int) -> Path:
    reader, vision = tiny_face_reader_model(), tiny_face_vision()
    reader.to_pose.weight.data.fill_(seed)
    for name, network in (("face_reader_model", reader), ("face_vision", vision)):
        save_packed(network.state_dict(), folder, name, model_class=type(network).__name__, config=network.config)
    return folder


@dataclass
class World:
    """All that a measurement is made of."""

    folder: Path
    judge: Judge
    model: Path
    video: str = "video"
    asks: frozenset[Aspect] = frozenset()

    def measure(self, metric: Counting, kept: dict[str, KeptMeasurement]) -> dict[str, KeptMeasurement]:
        """Measure in a new process, as it were."""
        instruments = Instruments.load(self.judge, self.model)
        video = SeenVideo(lambda: [BLACK], 8, instruments, self.video, self.asks)
        return measure_all([metric], video, Reference.read(self.folder / "photo.png", instruments), kept)


@pytest.fixture
def world(tmp_path: Path, judge: Judge) -> World:
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    return World(tmp_path, judge, reader(tmp_path / "model", 0))


def test_the_same_is_measured_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "__module__", FaceFound.__module__)
    metric = Counting()
    first = world.measure(metric, {})
    assert world.measure(metric, first) == first
    assert metric.times == 1


def other_photo(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.ascontiguousarray(PHOTO[:, ::-1])).save(world.folder / "photo.png")


def other_video(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.video = "another"


def other_prompt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.asks = frozenset({"pose"})


def other_reader(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.model = reader(world.folder / "other", 1)


def other_judge(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = world.judge
    world.judge = Judge(judge.detector, judge.recognizer, judge.centre, judge.name, "other files")


def other_code(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "code_fingerprint", lambda module: code_fingerprint("fantasyid.core.bounds"))


@pytest.mark.parametrize("change", [other_photo, other_video, other_prompt, other_reader, other_judge, other_code])
def test_what_is_made_of_something_else_is_measured_anew(
    world: World, change: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A class of this file has no code of the package: another one lends it its own.
    metric, module = Counting(), FaceFound.__module__
    monkeypatch.setattr(Counting, "__module__", module)
    first = world.measure(metric, {})
    change(world, monkeypatch)
    again = world.measure(metric, first)
    assert again["counting"].value == 2
    assert again["counting"].made_of != first["counting"].made_of


@dataclass
class Refusing(Counting):
    """Refuses the first video."""

    def measure(self, video: SeenVideo, reference: Reference) -> float:
        """Refuse once."""
        if super().measure(video, reference) == 1:
            raise InvalidRequestError("The prompt is too long.")
        return 0.5


def test_what_a_network_of_its_own_cannot_measure_is_told_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "__module__", FaceFound.__module__)
    monkeypatch.setattr(Refusing, "__module__", FaceFound.__module__)
    monkeypatch.setattr(Refusing, "definition", Definition("r", "", "", (0, 1), "neither", network="clip_folder"))
    metric = Refusing()
    first = world.measure(metric, {})
    assert (first["r"].value, first["r"].failure) == (None, "InvalidRequestError: The prompt is too long.")
    again = world.measure(metric, first)
    assert (again["r"].value, again["r"].failure) == (0.5, None)
    assert world.measure(metric, again) == again
    assert metric.times == 2
    monkeypatch.setattr(Refusing, "definition", Definition("r", "", "", (0, 1), "neither"))
    with pytest.raises(InvalidRequestError, match="too long"):
        world.measure(Refusing(), {})


def test_a_metric_of_another_name_is_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "__module__", FaceFound.__module__)
    first = world.measure(Counting(), {})
    monkeypatch.setattr(Counting, "definition", Definition("other", "", "", (0, 1), "neither"))
    assert world.measure(Counting(), first)["other"].made_of != first["counting"].made_of
