"""People kept by name: a photo is uploaded and looked at once, and serves any number of videos."""

import re
import secrets
import shutil
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from fantasyid.core.output_files import make_folder
from fantasyid.serving.errors import NotFoundError
from fantasyid.serving.store import keep_folder

_ID = re.compile(r"char_[0-9a-f]{32}")
_FACTS, _PHOTO = "character.json", "photo"


class Character(BaseModel):
    """A person; also what the API answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    object: str = "character"
    name: str
    """As the client gave it."""
    created_at: int
    """Unix seconds."""
    num_faces: int
    """Found in the photo; the largest is used unless a video asks for another."""


class CharacterStore:
    """The folder of all people.

    Args:
        folder: Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._folder = folder

    def add(self, name: str, photo: bytes, num_faces: int) -> Character:
        """Keep a person.

        Args:
            name: What the client calls the person.
            photo: The uploaded file.
            num_faces: Found in it.

        Raises:
            StorageError: The disk does not take it.
        """
        character = Character(
            id=f"char_{secrets.token_hex(16)}", name=name, created_at=int(time.time()), num_faces=num_faces
        )
        keep_folder(self._folder / character.id, {_FACTS: character.model_dump_json().encode(), _PHOTO: photo})
        return character

    def find(self, character_id: str) -> Character:
        """A person by id.

        Raises:
            NotFoundError: There is none.
        """
        return Character.model_validate_json(self._read(character_id, _FACTS))

    def photo(self, character_id: str) -> bytes:
        """The uploaded file.

        Raises:
            NotFoundError: There is no such person.
        """
        return self._read(character_id, _PHOTO)

    def delete(self, character_id: str) -> None:
        """Forget a person; videos that were accepted have their own copy of the photo.

        Raises:
            NotFoundError: There is none.
        """
        self.find(character_id)
        (self._folder / character_id / _PHOTO).unlink(missing_ok=True)  # first: what dies here can be deleted again
        shutil.rmtree(self._folder / character_id, ignore_errors=True)

    def _read(self, character_id: str, name: str) -> bytes:
        try:
            if _ID.fullmatch(character_id):
                return (self._folder / character_id / name).read_bytes()
        except FileNotFoundError:
            pass
        raise NotFoundError(f"There is no character {character_id!r}; it may have been deleted.", "character_id")
