"""Captions of re-posed clips: who, what they do, and where, in one plain wording and in many.

Left and right are those of the picture. No names: people are described by sex and age decade alone.
"""

from collections.abc import Sequence

import numpy as np

_SUBJECT = {0: ("A person", "their"), 1: ("A woman", "her"), 2: ("A man", "his")}
_PLAIN_SHARE = 0.35

# What else a phrase of `programs.PROGRAMS` may be called; {their} is the person's.
_ACTIONS: dict[str, tuple[str, ...]] = {
    "turns the head to the left": (
        "turns left",
        "looks to the left",
        "turns {their} face to the left",
        "rotates the head leftwards",
        "is turning {their} head toward the left side",
        "glances left",
    ),
    "turns the head to the right": (
        "turns right",
        "looks to the right",
        "turns {their} face to the right",
        "rotates the head rightwards",
        "is turning {their} head toward the right side",
        "glances right",
    ),
    "faces left": ("is seen from the side, facing left", "looks left the whole time", "has {their} head turned left"),
    "faces right": (
        "is seen from the side, facing right",
        "looks right the whole time",
        "has {their} head turned right",
    ),
    "tilts the head to the left": (
        "leans {their} head to the left",
        "tips the head left",
        "cocks {their} head to the left",
    ),
    "tilts the head to the right": (
        "leans {their} head to the right",
        "tips the head right",
        "cocks {their} head to the right",
    ),
    "looks up": ("raises {their} head", "lifts the chin", "gazes upwards", "looks toward the ceiling"),
    "looks down": ("lowers {their} head", "drops the chin", "gazes downwards", "looks at the floor"),
    "nods": ("nods {their} head", "nods in agreement", "says yes with {their} head", "is nodding"),
    "shakes the head": (
        "shakes {their} head",
        "shakes {their} head in disagreement",
        "says no with {their} head",
        "is shaking the head",
    ),
    "looks at the camera": ("looks straight into the camera", "gazes at the viewer", "looks ahead", "faces the camera"),
    "smiles": (
        "is smiling",
        "breaks into a smile",
        "grins",
        "smiles happily",
        "looks happy",
        "smiles at the camera",
        "has a warm smile",
    ),
    "keeps a serious face": (
        "looks serious",
        "is serious",
        "stays serious",
        "does not smile",
        "has a neutral expression",
        "keeps a straight face",
    ),
    "opens the mouth": (
        "opens {their} mouth",
        "has {their} mouth wide open",
        "gapes",
        "opens {their} mouth wide",
        "drops {their} jaw",
    ),
    "keeps the mouth closed": (
        "keeps {their} mouth shut",
        "has closed lips",
        "stays silent",
        "presses {their} lips together",
    ),
    "talks": (
        "is talking",
        "speaks",
        "is speaking",
        "says something",
        "talks to the camera",
        "has a conversation",
        "tells a story",
    ),
    "purses the lips": ("puckers {their} lips", "blows a kiss", "pouts"),
    "blinks": ("blinks {their} eyes", "is blinking", "blinks once"),
    "closes the eyes": ("shuts {their} eyes", "closes {their} eyes", "falls asleep"),
    "raises the eyebrows": (
        "lifts {their} eyebrows",
        "looks surprised",
        "raises {their} brows in surprise",
        "is surprised",
    ),
    "frowns": ("is frowning", "looks angry", "furrows {their} brow", "scowls", "looks upset"),
    "the camera zooms in": ("the camera moves closer", "slow zoom in"),
    "the camera zooms out": ("the camera moves away", "slow zoom out"),
}
_NOUNS = {
    0: ("A person", "Someone", "This person"),
    1: ("A woman", "A lady", "The woman", "This woman"),
    2: ("A man", "A gentleman", "The man", "This man"),
}
_YOUNG, _OLD = 30, 60
_OPENINGS = ("", "", "", "A video of {}", "A portrait video of {}", "Close-up of {}", "A clip in which {}", "We see {}")
_LIGHTS = {
    "lit from the left": ("with light from the left", "light falls from the left side", "left side lighting"),
    "lit from the right": ("with light from the right", "light falls from the right side", "right side lighting"),
}
_ENDINGS = ("", "", "", "", "realistic", "high quality", "portrait", "photorealistic video", "head and shoulders")


def subject(sex: int, decade: int) -> str:
    """`"A woman in her 40s"`; sex 0 unknown, 1 female, 2 male; decade 0 leaves the age out."""
    noun, possessive = _SUBJECT[sex]
    return f"{noun} in {possessive} {decade}s" if decade else noun


def caption(person: str, actions: Sequence[str], place: str = "", light: str = "") -> str:
    """One sentence of a person, what they do in order, where, and how it is lit.

    Args:
        person: From `subject`.
        actions: Phrases such as `"smiles"`; joined by "and".
        place: Such as `"in front of a plain blue background"`, or empty.
        light: Such as `"lit from the left"`, or empty.
    """
    clauses = [f"{person} {' and '.join(actions)}", *(clause for clause in (place, light) if clause)]
    return ", ".join(clauses) + "."


def worded(
    rng: np.random.Generator, sex: int, decade: int, actions: Sequence[str], place: str = "", light: str = ""
) -> str:
    """The same in one of many wordings, so that free prompts are understood; a third of the time `caption` itself.

    Args:
        rng: Of the wording.
        sex: As in `subject`.
        decade: As in `subject`.
        actions: As in `caption`.
        place: As in `caption`.
        light: As in `caption`.
    """
    if rng.uniform() < _PLAIN_SHARE:
        return caption(subject(sex, decade), actions, place, light)
    their = _SUBJECT[sex][1]
    chosen = [_one_of(rng, (action, *_ACTIONS.get(action, ()))).format(their=their) for action in actions]
    joined = _one_of(rng, (" and ", " while ")).join(chosen) if len(chosen) > 1 else chosen[0]
    clauses = [f"{_person(rng, sex, decade)} {joined}"]
    if place:
        clauses.append(place.replace("in front of", _one_of(rng, ("in front of", "before", "with"))))
    if light:
        clauses.append(_one_of(rng, (light, *_LIGHTS[light])))
    place_first = bool(place) and rng.uniform() < 0.2
    if place_first:
        clauses = [clauses[1].capitalize(), clauses[0][0].lower() + clauses[0][1:], *clauses[2:]]
    sentence = ", ".join(clauses)
    opening = _one_of(rng, _OPENINGS)
    if opening and not place_first:
        sentence = opening.format(sentence[0].lower() + sentence[1:])
    ending = _one_of(rng, _ENDINGS)
    sentence = f"{sentence}, {ending}" if ending else sentence
    return sentence + ("." if rng.uniform() < 0.7 else "")


def _person(rng: np.random.Generator, sex: int, decade: int) -> str:
    noun = _one_of(rng, _NOUNS[sex])
    if not decade or rng.uniform() < 0.3:
        return noun
    kind = noun.split()[-1]
    if kind != "Someone" and rng.uniform() < 0.4 and (decade <= _YOUNG or decade >= _OLD):
        return f"A young {kind}" if decade <= _YOUNG else f"An {_one_of(rng, ('older', 'elderly'))} {kind}"
    return f"{noun} in {_SUBJECT[sex][1]} {decade}s"


def _one_of(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
