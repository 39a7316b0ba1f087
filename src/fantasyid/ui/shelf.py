"""Videos that were made: kept with their records, photos and contact sheets in one folder, and found again there."""

import os
import re
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fantasyid.core.credentials import SigningKey
from fantasyid.core.errors import FantasyIDError
from fantasyid.core.imaging import read_photo
from fantasyid.core.output_files import write_file
from fantasyid.core.video import open_video
from fantasyid.generation.output_paths import GenerationPaths
from fantasyid.generation.record import GenerationRecord, find_inputs, read_record
from fantasyid.generation.request import GenerationRequest, PersonRequest
from fantasyid.generation.studio import GeneratedVideo
from fantasyid.ui.reading import face_picture

_HASH_DIGITS = 16
# What `keep` and `keep_inputs` call files: others in the folder are not deleted when they are old.
_NAME = re.compile(r"\d{8}-\d{6}-seed\d+(-\d+)?")
_INPUT = re.compile(rf"(photo|head)-[0-9a-f]{{{_HASH_DIGITS}}}(\.\w+)?")


@dataclass(frozen=True)
class KeptVideo:
    """A video in the folder.

    Attributes:
        paths: Its files.
        record: What made it.
    """

    paths: GenerationPaths
    record: GenerationRecord

    @property
    def name(self) -> str:
        """By which the folder knows it."""
        return self.paths.record.stem

    def request(self) -> GenerationRequest:
        """What to ask for to get it again, with files that are there.

        Raises:
            InvalidRequestError: A photo is missing or has changed.
        """
        return self.record.request.model_copy(update={"person": find_inputs(self.record, self.paths.record)})

    def photo(self) -> NDArray[np.uint8] | None:
        """The first photo of its person, RGB (H,W,3); None without a person.

        Raises:
            FantasyIDError: It is missing or cannot be read.
        """
        person = self.request().person
        return None if person is None else read_photo(person.photos[0])

    def reference(self, side: int = 512) -> NDArray[np.uint8] | None:
        """The face that was read, RGB (side,side,3); None without a person, or where the photo is gone."""
        try:
            photo = self.photo()
        except FantasyIDError:
            return None
        box = self.record.face_box
        return None if photo is None or box is None else face_picture(photo, box, side)

    def first_frame(self) -> NDArray[np.uint8]:
        """RGB (H,W,3).

        Raises:
            UnreadableVideoError: It cannot be read.
        """
        return next(open_video(self.paths.video).frames())


class Shelf:
    """The folder of the videos.

    Args:
        folder: Must exist.
        signing_key: Signs what is kept; None leaves credentials out.
    """

    def __init__(self, folder: Path, signing_key: SigningKey | None = None) -> None:
        self.folder = folder.resolve()
        self._signing_key = signing_key

    def keep_inputs(self, person: PersonRequest) -> PersonRequest:
        """Copy what a visitor uploaded into the folder, where the records will find it.

        Args:
            person: With uploaded files, which go away after a while.

        Returns:
            The same person, from files of this folder.

        Raises:
            FantasyIDError: The folder cannot be written to.
        """
        head = None if person.head_file is None else self._keep(person.head_file, "head")
        photos = tuple(self._keep(photo, "photo") for photo in person.photos)
        return person.model_copy(update={"photos": photos, "head_file": head})

    def keep(self, video: GeneratedVideo) -> KeptVideo:
        """Write a video that was made.

        Args:
            video: Its person, if any, from `keep_inputs`.

        Raises:
            FantasyIDError: It cannot be written.
        """
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-seed{video.record.request.seed}"
        name, number = stamp, 1
        while (self.folder / f"{name}.json").exists():
            number += 1
            name = f"{stamp}-{number}"
        video.save(self.folder / f"{name}.mp4", signing_key=self._signing_key)
        return self.find(name)

    def find(self, name: str) -> KeptVideo:
        """A video by its name.

        Args:
            name: Of a `KeptVideo`.

        Raises:
            InvalidRequestError: It is not there any more.
        """
        paths = GenerationPaths.beside(self.folder / f"{name}.mp4")
        return KeptVideo(paths, read_record(paths.record))

    def videos(self) -> list[KeptVideo]:
        """All that are there, the newest first; files that are no records of ours are none."""
        kept = []
        for path in sorted(self.folder.glob("*.json"), reverse=True):
            try:
                video = self.find(path.stem)
            except FantasyIDError:
                continue
            if video.paths.video.is_file():
                kept.append(video)
        return kept

    def delete(self, name: str) -> None:
        """Remove a video with its record and contact sheet, and its photos and head where no other video has them.

        Args:
            name: Of a `KeptVideo`.

        Raises:
            InvalidRequestError: It is not there any more.
        """
        gone = self.find(name)
        for path in gone.paths.all:
            path.unlink(missing_ok=True)
        others = {path for video in self.videos() for path in _inputs(video)}
        for path in set(_inputs(gone)) - others:
            if path.parent == self.folder:
                path.unlink(missing_ok=True)

    def expire(self, keep_hours: int) -> None:
        """Delete what is too old: videos, and photos and heads that no video has any more, or never had.

        Args:
            keep_hours: How long a video is kept after it was made, and a file after it was last used.
        """
        end = time.time() - 3600 * keep_hours

        def is_over(path: Path) -> bool:
            try:
                return path.stat().st_mtime <= end
            except FileNotFoundError:  # deleted meanwhile
                return False

        for record in self.folder.glob("*.json"):
            if _NAME.fullmatch(record.stem) and is_over(record):
                for path in GenerationPaths.beside(record.with_suffix(".mp4")).all:
                    path.unlink(missing_ok=True)
        old = [path for path in self.folder.iterdir() if _INPUT.fullmatch(path.name) and is_over(path)]
        if old:
            used = {path for video in self.videos() for path in _inputs(video)}
            for path in old:
                if path not in used:
                    path.unlink(missing_ok=True)

    def _keep(self, file: Path, kind: str) -> Path:
        content = file.read_bytes()
        kept = self.folder / f"{kind}-{sha256(content).hexdigest()[:_HASH_DIGITS]}{file.suffix.lower()}"
        try:
            os.utime(kept)  # so that `expire` leaves it to the video that will be made
        except FileNotFoundError:
            write_file(kept, content)
        return kept


def _inputs(video: KeptVideo) -> list[Path]:
    person = video.record.request.person
    return [] if person is None else [path for path, _ in person.files]
