"""What the page has done behind it: one model for all its visitors, loaded when it is first needed."""

import threading
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fantasyid.conditioning.prompt_words import doubt_about
from fantasyid.core.imaging import read_photo
from fantasyid.core.optional import require
from fantasyid.core.video import read_video
from fantasyid.evaluation.identity import Judge
from fantasyid.generation.person import reader_for
from fantasyid.generation.progress import SILENT, Progress
from fantasyid.generation.request import GenerationRequest, PersonRequest
from fantasyid.generation.studio import Studio
from fantasyid.ui.notices import Notices
from fantasyid.ui.reading import PersonView
from fantasyid.ui.settings import PageSettings
from fantasyid.ui.shelf import KeptVideo, Shelf

NOT_FOLLOWED = (
    "Edits change this head and the record, but with this model they do not show in the video: it does not follow the "
    "head's shape."
)
NEVER_MEASURED = "Edits may not show in the video: whether this model follows the head's shape was never measured."


class Workshop:
    """A model, a folder and a judge.

    Args:
        settings: Name the model and the folder.
        studio: That model, where it is loaded already.
    """

    def __init__(self, settings: PageSettings, studio: Studio | None = None) -> None:
        self.settings, self.notices = settings, Notices()
        self.shelf = Shelf(settings.folder, settings.signing_key)
        self._loading = threading.Lock()
        self._studio = studio

    def studio(self, progress: Progress = SILENT) -> Studio:
        """The model; who asks first waits for it, and the others with them.

        Args:
            progress: Told of loading.

        Raises:
            FantasyIDError: It cannot be had.
        """
        with self._loading:
            if self._studio is None:
                self._studio = Studio(self.settings.model, progress)
            return self._studio

    @cached_property
    def _judge(self) -> Judge:
        return Judge.builtin()

    def read(self, person: PersonRequest) -> PersonView:
        """Read the first photo of a person, to show what was understood.

        Args:
            person: With a photo.

        Raises:
            FantasyIDError: The photo or the face in it cannot be used.
        """
        notices: list[str] = []
        reader = reader_for(self.studio().pipeline, person)
        with self.notices.told(notices.append):
            photo = read_photo(person.photos[0])
            reading = reader.read(photo, person.face_index)
        return PersonView(photo, reading, tuple(dict.fromkeys(notices)))

    def doubt_about_edits(self) -> str | None:
        """A sentence for who edits a head, where the video may not show it."""
        follows = self.studio().pipeline.config.follows_vertices
        return None if follows is True else NEVER_MEASURED if follows is None else NOT_FOLLOWED

    def doubt_about_prompt(self, prompt: str) -> str | None:
        """A sentence about what of a prompt the text encoder cannot have learned, or None.

        Args:
            prompt: The text.
        """
        return doubt_about(self.studio().pipeline.tokenizer, prompt)

    def make(self, request: GenerationRequest, progress: Progress, tell: Callable[[KeptVideo], None]) -> None:
        """Make the videos of a request and keep each.

        Args:
            request: What to make; its person's files are kept, too.
            progress: Told of every stage.
            tell: Given each video as soon as it is kept.

        Raises:
            FantasyIDError: The request cannot be met.
        """
        if request.person is not None:
            request = request.model_copy(update={"person": self.shelf.keep_inputs(request.person)})
        studio = self.studio(progress)
        for video in studio.videos(request, progress=progress):
            tell(self.shelf.keep(video))

    def likeness(self, video: KeptVideo) -> tuple[float | None, ...] | None:
        """Distance of each frame's face to the photo's, None where there is none; None for a video of nobody.

        Args:
            video: Of the shelf.

        Raises:
            FantasyIDError: The judge is not installed, or finds no face in the photo.
        """
        photo = video.photo()
        if photo is None:
            return None
        reference = self._judge.embed_reference(photo, video.record.face_index)
        return self._judge.distances(reference, self._judge.track(read_video(video.paths.video)[0]))

    @property
    def same_person_distance(self) -> float:
        """Faces nearer than this are taken for one person."""
        return self._judge.recognizer.same_person_distance


def example_photo() -> NDArray[np.uint8]:
    """A public-domain portrait by NASA that comes with scikit-image, RGB (H,W,3).

    Raises:
        MissingBackendError: scikit-image is not installed.
    """
    portrait: NDArray[np.uint8] = require("skimage.data", "ui", "have an example photo").astronaut()
    return portrait
