"""The fixed evaluation as data: which people, prompts, seeds and identity settings, and where each video's frames lie.

Generating (on a GPU machine) and judging (anywhere) share nothing but this file and a folder of frames, so it imports
neither a video encoder nor a face library.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fantasyid.core.errors import InvalidRequestError, UnreadableVideoError
from fantasyid.core.output_files import write_together
from fantasyid.core.portraits import FACE_BOX, SEX_CODES, Portrait, read_portraits
from fantasyid.data.captions import subject

# What numpy raises of files that are empty, cut short, changed, or something else.
_DAMAGED = (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error)

SEED = 20_261_122
"""The k-th person's videos all start from seed `SEED + k`, so prompts and modes differ in nothing else."""

Aspect = Literal["pose", "expression", "light"]
"""What a prompt may ask for, whatever the photo shows."""
_POSE: frozenset[Aspect] = frozenset({"pose"})
_EXPRESSION: frozenset[Aspect] = frozenset({"expression"})


@dataclass(frozen=True)
class EvaluationPrompt:
    """One thing to ask for, in the words of the training captions."""

    key: str
    text: str
    """With `{person}` to fill in."""
    asks: frozenset[Aspect]
    """What of the photo it overrules."""


@dataclass(frozen=True)
class ActionPair:
    """Two opposite prompts, and the measure that must come out higher for the first."""

    measure: str
    """A field of `motion.ActionMeasures`."""
    higher: str
    lower: str


@dataclass(frozen=True)
class IdentityMode:
    """How identity enters a video."""

    name: str
    use_reference: bool
    use_identity_tokens: bool
    all_prompts: bool
    """Whether the opposite prompts are acted out too."""


IDENTITY_PROMPTS = (
    EvaluationPrompt("turn_left", "{person} turns the head to the left, in front of a plain grey background.", _POSE),
    EvaluationPrompt("smile", "{person} smiles, in front of a plain blue background.", _EXPRESSION),
    EvaluationPrompt("mouth_open", "{person} opens the mouth, in front of a plain green background.", _EXPRESSION),
    EvaluationPrompt("talk", "{person} talks, in front of a plain white background.", _EXPRESSION),
    EvaluationPrompt("nod", "{person} nods, in front of a plain brown background.", _POSE),
)
OPPOSITE_PROMPTS = (
    EvaluationPrompt("turn_right", "{person} turns the head to the right, in front of a plain grey background.", _POSE),
    EvaluationPrompt("serious", "{person} keeps a serious face, in front of a plain blue background.", _EXPRESSION),
    EvaluationPrompt(
        "mouth_closed", "{person} keeps the mouth closed, in front of a plain green background.", _EXPRESSION
    ),
)
ACTION_PAIRS = (
    ActionPair("yaw_deg", higher="turn_right", lower="turn_left"),
    ActionPair("smile", higher="smile", lower="serious"),
    ActionPair("mouth_opening", higher="mouth_open", lower="mouth_closed"),
)
FULL = IdentityMode("full", use_reference=True, use_identity_tokens=True, all_prompts=True)
REFERENCE_ONLY = IdentityMode("reference_only", use_reference=True, use_identity_tokens=False, all_prompts=False)
TOKENS_ONLY = IdentityMode("tokens_only", use_reference=False, use_identity_tokens=True, all_prompts=False)
NO_IDENTITY = IdentityMode("no_identity", use_reference=False, use_identity_tokens=False, all_prompts=False)
MODES = (FULL, REFERENCE_ONLY, TOKENS_ONLY, NO_IDENTITY)
REPOSED = IdentityMode("reposed", use_reference=False, use_identity_tokens=False, all_prompts=True)
"""No model's output: the same prompts acted out by re-posing the real photos; the ceiling, and the unit of motion."""


@dataclass(frozen=True)
class Person:
    """One held-out person and the photo that stands for them."""

    name: str
    photo: str
    """Path of the photo, relative to the photo folder."""
    caption: str
    """Such as "A woman in her 40s"."""
    sex: str


@dataclass(frozen=True)
class EvaluationRow:
    """One video to make and to judge."""

    person: Person
    mode: str
    use_reference: bool
    use_identity_tokens: bool
    prompt_key: str
    prompt: str
    asks: frozenset[Aspect]
    seed: int

    @property
    def file(self) -> Path:
        """Where its frames lie, relative to the frame folder."""
        return Path(self.mode) / f"{self.person.name}_{self.prompt_key}.npz"


def read_people(manifest: Path, split: str = "val") -> tuple[Person, ...]:
    """Read the people of one split from a portrait manifest, each with their largest face as reference.

    Args:
        manifest: CSV, see `core.portraits`, with sex, age_decade and the faces' boxes.
        split: Which value of the column `split`.

    Returns:
        People sorted by name.

    Raises:
        InvalidRequestError: The file, a column or a value is missing, or nobody is in that split.
    """
    best: dict[str, Portrait] = {}
    for portrait in read_portraits(manifest, needs=("sex", "age_decade", *FACE_BOX)):
        name = portrait.person
        if portrait.split == split and (name not in best or _face_area(portrait) > _face_area(best[name])):
            best[name] = portrait
    if not best:
        raise InvalidRequestError(f"Nobody in {manifest} has the split {split!r}.")
    return tuple(
        Person(name, row.file, subject(SEX_CODES[row.sex], row.age_decade or 0), row.sex)
        for name, row in sorted(best.items())
    )


def _face_area(portrait: Portrait) -> float:
    x0, y0, x1, y1 = portrait.face_box
    return (x1 - x0) * (y1 - y0)


def shuffled_reference(people: tuple[Person, ...]) -> dict[str, Person]:
    """Give each person somebody else as reference, of the same sex wherever possible.

    Neighbours of one sex are a harder test than strangers at random: telling men from women does not pass it.

    Args:
        people: At least two.

    Returns:
        The other person by each person's name; everybody is somebody's other exactly once.
    """
    assert len(people) > 1, "one person alone cannot be shuffled"
    ring = sorted(people, key=lambda person: (person.sex, person.name))
    return {person.name: other for person, other in zip(ring, ring[1:] + ring[:1], strict=True)}


def evaluation_rows(people: tuple[Person, ...], modes: tuple[IdentityMode, ...] = MODES) -> Iterator[EvaluationRow]:
    """List every video of the evaluation, mode by mode.

    Args:
        people: From `read_people`.
        modes: Which identity settings; the full one also acts out the opposite prompts.
    """
    for mode in modes:
        prompts = IDENTITY_PROMPTS + (OPPOSITE_PROMPTS if mode.all_prompts else ())
        for index, person in enumerate(people):
            for prompt in prompts:
                yield EvaluationRow(
                    person=person,
                    mode=mode.name,
                    use_reference=mode.use_reference,
                    use_identity_tokens=mode.use_identity_tokens,
                    prompt_key=prompt.key,
                    prompt=prompt.text.format(person=person.caption),
                    asks=prompt.asks,
                    seed=SEED + index,
                )


def save_frames(path: Path, frames: NDArray[np.uint8], fps: float, made_of: str = "") -> None:
    """Write the frames of one video, complete or not at all.

    Args:
        path: Ends in `.npz`; its folder is made.
        frames: RGB (T,H,W,3).
        fps: Frames per second.
        made_of: Hash of what they were made of, for `frames_made_of`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_together([path], overwrite=True) as (made,):
        np.savez_compressed(made, frames=frames, fps=np.float64(fps), made_of=made_of)


def frames_made_of(path: Path) -> str | None:
    """What `save_frames` was told that the frames are made of; None if there are none, or of an earlier version."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return str(file["made_of"])
    except _DAMAGED:
        return None


def load_frames(path: Path) -> tuple[NDArray[np.uint8], float]:
    """Read what `save_frames` wrote.

    Returns:
        RGB frames (T,H,W,3) and frames per second.

    Raises:
        UnreadableVideoError: The file is missing, damaged, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            frames, fps = file["frames"], float(file["fps"])
    except _DAMAGED as error:
        raise UnreadableVideoError(f"{path} does not hold frames ({error}); remove it and make it again.") from error
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise UnreadableVideoError(f"{path} holds {frames.dtype} of shape {frames.shape}, not frames; make it again.")
    return frames, fps
