"""The layouts that can be read, by name."""

from collections.abc import Callable
from pathlib import Path

from fantasyid.core.choices import SourceFormat
from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.sources.celebvhq import read_celebvhq
from fantasyid.data.sources.consisid import read_consisid
from fantasyid.data.sources.folder import read_folder
from fantasyid.data.sources.listing import Listing
from fantasyid.data.sources.opens2v import read_opens2v
from fantasyid.data.sources.openvid import read_openvid

PUBLISHED: dict[str, Callable[[Path], Listing]] = {
    "consisid": read_consisid,
    "celebvhq": read_celebvhq,
    "openvid": read_openvid,
    "opens2v": read_opens2v,
}
"""Sets that bring their captions and state their licence."""


def list_sources(folder: Path, layout: SourceFormat, licence: str | None, captions: Path | None) -> Listing:
    """List the videos of a folder.

    Args:
        folder: Where they lie.
        layout: How.
        licence: Of the videos of a plain folder, which alone needs it.
        captions: File of captions for a plain folder; None looks beside the videos.

    Raises:
        InvalidRequestError: Something is missing, or given and not used.
    """
    if not folder.is_dir():
        raise InvalidRequestError(f"There is no folder {folder}; check the path of the videos.")
    if layout == "folder":
        if not licence:
            raise InvalidRequestError(
                "The licence of the videos is not given; say under what terms they may be used, such as "
                '--licence "CC-BY-4.0".'
            )
        return read_folder(folder, licence, captions)
    if licence is not None or captions is not None:
        given = "licence" if licence is not None else "captions file"
        raise InvalidRequestError(f"The format {layout} has its own {given}; leave the option out.")
    return PUBLISHED[layout](folder)
