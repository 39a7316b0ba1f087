"""Sentences in the words the built-in model was trained with (`data.captions`), put together from choices."""

from collections.abc import Sequence

from fantasyid.data.captions import caption, subject
from fantasyid.data.repose.backdrops import COLOURS

PEOPLE = {"A person": 0, "A woman": 1, "A man": 2}
"""Codes of sex, as `data.captions.subject` takes them."""
AGES = {"any age": 0, **{f"{decade}s": decade for decade in range(20, 90, 10)}}
ACTIONS = (
    "smiles",
    "talks",
    "nods",
    "shakes the head",
    "turns the head to the left",
    "turns the head to the right",
    "looks up",
    "looks down",
    "looks at the camera",
    "tilts the head to the left",
    "tilts the head to the right",
    "faces left",
    "faces right",
    "blinks",
    "closes the eyes",
    "raises the eyebrows",
    "frowns",
    "opens the mouth",
    "keeps the mouth closed",
    "keeps a serious face",
    "purses the lips",
    "the camera zooms in",
    "the camera zooms out",
)
MOST_ACTIONS = 2
"""More do not fit two seconds."""
PLACES = {
    "as it comes": "",
    **{
        f"{kind} {colour}": f"in front of a {kind} {colour} background"
        for kind in ("plain", "blurred")
        for colour in COLOURS
    },
}
LIGHTS = {"as it comes": "", "from the left": "lit from the left", "from the right": "lit from the right"}


def compose(person: str, age: str, actions: Sequence[str], place: str, light: str) -> str:
    """One sentence from choices.

    Args:
        person: Of `PEOPLE`.
        age: Of `AGES`.
        actions: Of `ACTIONS`; without any the person looks at the camera.
        place: Of `PLACES`.
        light: Of `LIGHTS`.
    """
    doing = actions or ("looks at the camera",)
    return caption(subject(PEOPLE[person], AGES[age]), doing, PLACES[place], LIGHTS[light])
