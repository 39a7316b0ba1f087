"""People kept by name: a photo is uploaded and looked at once, and serves any number of videos."""

import os
import re
import secrets
import shutil
import time
from contextlib import suppress
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
    expires_at: int | None = None
    """Unix seconds; None is never. As the server that is asked keeps it, so it is not kept with the others."""


class CharacterStore:
    """The folder of all people.

    Args:
        folder: Made if it is not there.
        keep_hours: How long a person is kept who is not asked for in a video; None is until deleted.
    """

    def __init__(self, folder: Path, keep_hours: int | None = None) -> None:
        make_folder(folder)
        self._folder, self._keep_hours = folder, keep_hours

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
        facts = character.model_dump_json(exclude={"expires_at"}).encode()
        keep_folder(self._folder / character.id, {_FACTS: facts, _PHOTO: photo})
        return self.find(character.id)

    def find(self, character_id: str) -> Character:
        """A person by id.

        Raises:
            NotFoundError: There is none.
        """
        character = Character.model_validate_json(self._read(character_id, _FACTS))
        try:
            expires_at = self._expires_at(character_id)
        except FileNotFoundError as error:  # deleted meanwhile
            raise _nobody(character_id) from error
        return character.model_copy(update={"expires_at": None if expires_at is None else int(expires_at)})

    def photo(self, character_id: str) -> bytes:
        """The uploaded file, for one more video, from which on the person is kept so long again.

        Raises:
            NotFoundError: There is no such person.
        """
        photo = self._read(character_id, _PHOTO)
        with suppress(FileNotFoundError):  # deleted meanwhile
            os.utime(self._folder / character_id / _FACTS)
        return photo

    def expire(self) -> None:
        """Forget those whose time is over."""
        for folder in self._folder.iterdir():
            if _ID.fullmatch(folder.name) and self._is_over(folder.name):
                self._remove(folder.name)

    def delete(self, character_id: str) -> None:
        """Forget a person; videos that were accepted have their own copy of the photo.

        Raises:
            NotFoundError: There is none.
        """
        self.find(character_id)
        self._remove(character_id)

    def _remove(self, character_id: str) -> None:
        (self._folder / character_id / _PHOTO).unlink(missing_ok=True)  # first: what dies here can be deleted again
        shutil.rmtree(self._folder / character_id, ignore_errors=True)

    def _expires_at(self, character_id: str) -> float | None:
        """In Unix seconds; the facts are touched whenever the photo is used."""
        if self._keep_hours is None:
            return None
        return (self._folder / character_id / _FACTS).stat().st_mtime + 3600 * self._keep_hours

    def _is_over(self, character_id: str) -> bool:
        try:
            expires_at = self._expires_at(character_id)
        except FileNotFoundError:  # half deleted
            return True
        return expires_at is not None and time.time() >= expires_at

    def _read(self, character_id: str, name: str) -> bytes:
        try:
            if _ID.fullmatch(character_id) and not self._is_over(character_id):
                return (self._folder / character_id / name).read_bytes()
        except FileNotFoundError:
            pass
        raise _nobody(character_id)


def _nobody(character_id: str) -> NotFoundError:
    said = f"There is no character {character_id!r}; it may have been deleted or have expired."
    return NotFoundError(said, "character_id")
