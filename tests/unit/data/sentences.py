"""Reading captions back: whom, what and which light a sentence speaks of, whatever its wording."""

import re

from fantasyid.data.captions import _ACTIONS, _LIGHTS

WORDS = {
    0: {"person", "someone", "their"},
    1: {"woman", "lady", "her"},
    2: {"man", "gentleman", "his"},
}
"""Words that only sentences about an unknown, a female or a male person hold."""


def sex_of(sentence: str) -> int:
    """0 unknown, 1 female, 2 male; a sentence that speaks of two or none fails."""
    words = set(re.findall(r"[a-z]+", sentence.lower()))
    found = [sex for sex, only in WORDS.items() if words & only]
    assert len(found) == 1, sentence
    return found[0]


def decade_of(sentence: str) -> str:
    """`"40s"`, `"young"`, `"old"` or nothing."""
    found = re.findall(r"\d0s|\byoung\b|\bolder\b|\belderly\b", sentence.lower())
    assert len(found) < 2, sentence
    return {"older": "old", "elderly": "old"}.get(found[0], found[0]) if found else ""


def wordings(action: str) -> list[str]:
    """All that a phrase may be called, by anybody."""
    return [each.format(their=their) for each in (action, *_ACTIONS[action]) for their in ("her", "his", "their")]


def says(sentence: str, action: str) -> bool:
    """Whether a sentence tells of an action."""
    return any(re.search(rf"\b{re.escape(each)}\b", sentence, re.IGNORECASE) for each in wordings(action))


def light_of(sentence: str) -> str:
    """`"lit from the left"`, the other side, or nothing."""
    found = [light for light, others in _LIGHTS.items() if any(each in sentence for each in (light, *others))]
    assert len(found) < 2, sentence
    return found[0] if found else ""
