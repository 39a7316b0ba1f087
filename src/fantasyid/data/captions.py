"""Captions of re-posed clips: who, what they do, and where; the words prompts of `mini` may use.

Left and right are those of the picture. No names: people are described by sex and age decade alone.
"""

from collections.abc import Sequence

_SUBJECT = {0: ("A person", "their"), 1: ("A woman", "her"), 2: ("A man", "his")}


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
