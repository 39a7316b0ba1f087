"""What `fantasyid evaluate run` is told: whom to show, what to ask for, with which seeds, and who makes the videos."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fantasyid.core.bounds import SEED
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.faults import first_fault
from fantasyid.core.input_files import check_input_file
from fantasyid.evaluation.consisid.request import ConsisIDRequest
from fantasyid.evaluation.metrics.interface import MeanOfVideos, Metric
from fantasyid.evaluation.metrics.registry import all_metrics, metric_of
from fantasyid.evaluation.protocol import Aspect, Person, read_people

_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Part of file names."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class People(_Part):
    """Whose photos are the references: of a manifest, or all photos of a folder."""

    portraits: Path | None = None
    """Folder with manifest.csv and the photos that it names."""
    split: str = "val"
    """Which of the manifest's people."""
    photos: Path | None = None
    """Folder in which each photo is a person, named like the file."""
    caption: str = "A person"
    """What prompts call the people of `photos`; the manifest's are called by sex and age."""
    first: Annotated[int, Field(ge=1)] | None = None
    """Only the first so many; None is all."""

    @model_validator(mode="after")
    def _check(self) -> "People":
        if (self.portraits is None) == (self.photos is None):
            raise ValueError("give either portraits or photos")
        return self

    def read(self, base: Path) -> tuple[tuple[Person, ...], Path]:
        """List the people, and the folder that their photos are relative to.

        Args:
            base: What paths are relative to.

        Raises:
            InvalidRequestError: There is nobody, or there are fewer than `first`.
        """
        if self.portraits is not None:
            folder = base / self.portraits
            check_input_file(folder / "manifest.csv", "manifest")
            return self._first(read_people(folder / "manifest.csv", self.split), folder), folder
        folder = base / (self.photos or "")
        files = sorted(file for file in folder.glob("*") if file.suffix.lower() in _PHOTO_SUFFIXES)
        if not files:
            raise InvalidRequestError(f"There are no photos in {folder}; check the path given as people.photos.")
        return self._first(tuple(Person(file.stem, file.name, self.caption, "") for file in files), folder), folder

    def _first(self, people: tuple[Person, ...], folder: Path) -> tuple[Person, ...]:
        if self.first is not None and self.first > len(people):
            raise InvalidRequestError(
                f"There are {len(people)} people in {folder}, and people.first asks for {self.first}; add photos, or "
                "ask for fewer."
            )
        return people[: self.first]


class Prompt(_Part):
    """One thing to ask for."""

    key: Name
    """Names it in files."""
    text: str
    """The prompt; `{person}` becomes what the person is called."""
    asks: frozenset[Aspect] = frozenset()
    """What of the photo it overrules: what still follows the photo then is copied."""


class Opposites(_Part):
    """Two prompts that ask for opposite things, and what tells whether they were obeyed; see `obedience`."""

    measure: str
    """Key of a metric that has a number of each video."""
    higher: Name
    """Key of the prompt whose video must have more of it."""
    lower: Name
    """Key of the other."""

    @model_validator(mode="after")
    def _check(self) -> "Opposites":
        if not isinstance(metric_of(self.measure), MeanOfVideos):
            raise ValueError(f"the metric {self.measure} has no number of each video by itself")
        return self


class VideoFolder(_Part):
    """Videos that were made elsewhere."""

    folder: Path
    """Where they lie."""
    pattern: str = "{person}_{prompt}_{seed}.mp4"
    """The path of each in it."""

    @model_validator(mode="after")
    def _check(self) -> "VideoFolder":
        try:
            first, second = (self.pattern.format(person=name, prompt=name, seed=name) for name in "ab")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"the pattern {self.pattern!r} may hold {{person}}, {{prompt}} and {{seed}}") from error
        if first == second:
            raise ValueError(f"the pattern {self.pattern!r} names one file for all videos")
        return self


class System(_Part):
    """Who makes videos: this package, diffusers' ConsisID, or anybody whose videos lie in a folder."""

    name: Name
    """In tables and file names."""
    request: dict[str, Any] | None = None
    """Fields of a `GenerationRequest`, but for the prompt, the photos and the seed; `{}` asks for nothing else."""
    videos: VideoFolder | None = None
    """Videos of another system."""
    consisid: ConsisIDRequest | None = None
    """Where ConsisID's weights lie, and how they are used."""
    ablation: bool = False
    """Whether it is the system that others are compared with, less a part: such rows are the paper's Table 3."""

    @model_validator(mode="after")
    def _check(self) -> "System":
        if [self.request, self.videos, self.consisid].count(None) != 2:
            raise ValueError(f"give the system {self.name} a request, videos or consisid, one of the three")
        return self


class RunConfig(_Part):
    """The whole evaluation: every person with every prompt and seed, by every system."""

    people: People
    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1)]
    opposites: tuple[Opposites, ...] = ()
    """Which prompts tell whether prompts are obeyed."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=SEED.low, le=SEED.high)], ...], Field(min_length=1)]
    """Each is used for everybody, so that systems differ in nothing else."""
    systems: Annotated[tuple[System, ...], Field(min_length=1)]
    compared_with: str
    """Name of the system that the others are tested against."""
    recognizer: Literal["dlib", "arcface"] = "dlib"
    """Who tells people apart."""
    arcface_folder: Path | None = None
    """Folder of insightface's two models; None is ~/.insightface/models/antelopev2."""
    inception_weights: Path | None = None
    """torch-fidelity's file of Inception's weights, for the FID of faces; None leaves that number out."""
    clip_folder: Path | None = None
    """Folder of a CLIP model of transformers, for the CLIP score; None leaves that number out."""

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        for what, names in (
            ("systems", [system.name for system in self.systems]),
            ("prompts", [prompt.key for prompt in self.prompts]),
            ("seeds", [str(seed) for seed in self.seeds]),
            ("opposites", [f"{pair.higher} over {pair.lower}" for pair in self.opposites]),
        ):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{what} names {', '.join(sorted(twice))} twice")
        asked = {key for pair in self.opposites for key in (pair.higher, pair.lower)}
        if unknown := asked - {prompt.key for prompt in self.prompts}:
            raise ValueError(f"opposites names {', '.join(sorted(unknown))}, which is none of the prompts")
        for pair in self.opposites:
            network = metric_of(pair.measure).definition.network
            if network and getattr(self, network) is None:
                raise ValueError(f"opposites measures {pair.measure}, which needs {network}")
        if self.compared_with not in {system.name for system in self.systems}:
            raise ValueError(f"compared_with is {self.compared_with!r}, which is none of the systems")
        return self

    def metrics(self) -> tuple[Metric[Any], ...]:
        """All metrics, but for those that need a network that is not given."""
        needs = {metric: metric.definition.network for metric in all_metrics()}
        return tuple(metric for metric, field in needs.items() if not field or getattr(self, field) is not None)


@dataclass(frozen=True)
class RunRow:
    """One video to make and to judge."""

    system: str
    person: Person
    photo: Path
    prompt: Prompt
    seed: int

    @property
    def name(self) -> str:
        """Names it within its system."""
        return f"{self.person.name}_{self.prompt.key}_{self.seed}"

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt.text.replace("{person}", self.person.caption)


def run_rows(config: RunConfig, base: Path) -> Iterator[RunRow]:
    """List every video, one system after the other, and one person after the other.

    Args:
        config: What is evaluated.
        base: What its paths are relative to.

    Raises:
        InvalidRequestError: There are no people.
    """
    people, folder = config.people.read(base)
    for system in config.systems:
        for person in people:
            for prompt in config.prompts:
                for seed in config.seeds:
                    yield RunRow(system.name, person, folder / person.photo, prompt, seed)


def read_run_config(path: Path) -> RunConfig:
    """Read a config.

    Args:
        path: A YAML file; paths in it are relative to its folder.

    Raises:
        InvalidRequestError: It is missing, or something in it is wrong; the message says what.
    """
    check_input_file(path, "config")
    try:
        return RunConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        where, said = first_fault(error, "its content")
        raise InvalidRequestError(f"{path} cannot be used ({where}: {said}); correct it.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = str(error).replace("\n", " ")
        raise InvalidRequestError(f"{path} is no YAML ({said}); correct it.") from error
