"""The portraits that measures of the face reader are taken on: of people that nothing was trained on."""

from pathlib import Path

from fantasyid.data import portraits as manifest_rows
from fantasyid.data.portraits import Portrait, held_out_and_others


def read_portraits(manifest: Path, also: Path) -> tuple[tuple[Portrait, ...], tuple[Portrait, ...]]:
    """All photos of the held-out people, and those of the other people with two photos.

    Args:
        manifest: CSV, see `data.portraits`, with sex and the faces' boxes.
        also: File of person ids, held out beside the split `val`.

    Raises:
        InvalidRequestError: A file, a column or a value is missing, or a person of `also` is not in the manifest.
    """
    needs = ("sex", *manifest_rows.FACE_BOX)
    return held_out_and_others(manifest_rows.read_portraits(manifest, needs), also)


def of_first_people(portraits: tuple[Portrait, ...], count: int | None) -> tuple[Portrait, ...]:
    """The photos of the first `count` people by name; of all if that is None."""
    chosen = sorted({portrait.person for portrait in portraits})[:count]
    return tuple(portrait for portrait in portraits if portrait.person in chosen)
