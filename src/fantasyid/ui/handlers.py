"""What happens when a visitor does something: values of the page in, changes of the page out."""

import threading
import time
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from fantasyid.core.errors import InvalidRequestError
from fantasyid.generation.progress import Progress
from fantasyid.generation.request import GenerationRequest
from fantasyid.geometry.edit_table import EDITS
from fantasyid.ui import markup, prompts
from fantasyid.ui.form import person_asked_for, request_asked_for, values_of
from fantasyid.ui.jobs import End, Event, Note, Preview, Stage, explain, follow
from fantasyid.ui.parts import Parts, header
from fantasyid.ui.shelf import KeptVideo
from fantasyid.ui.workshop import Workshop, example_photo

Updates = dict[Any, Any]

_MOST_IN_GALLERY = 60


class Handlers:
    """Answers to what a visitor does.

    Args:
        parts: Of the page.
        workshop: Does the work.
    """

    def __init__(self, parts: Parts, workshop: Workshop) -> None:
        self._parts, self._workshop = parts, workshop

    def _values(self, values: tuple[Any, ...]) -> dict[str, Any]:
        """The form's values by name."""
        return dict(zip(self._parts.form, values, strict=True))

    # The person

    def open(self, mine: tuple[str, ...]) -> Iterator[Updates]:
        """The page was opened: show the gallery and load the model."""
        model = self._parts.model
        yield {model: header("Loading the model …"), **self._gallery(mine)}
        try:
            studio = self._workshop.studio()
        except Exception as error:
            yield {model: header("The model cannot be loaded."), self._parts.result.said: _error(error)}
            return
        settings, asked = self._parts.settings, studio.request
        own = studio.complete(GenerationRequest(prompt="a nod", model=asked))
        said = escape(f"Model {asked.name}, on {asked.device} in {asked.dtype}.")
        yield {
            model: header(said),
            self._parts.head.doubt: markup.notices([self._workshop.doubt_about_edits() or ""]),
            **{
                settings[name]: gr.update(placeholder=f"{getattr(own, name):g}")
                for name in ("num_inference_steps", "guidance_scale", "num_frames", "fps", "width", "height")
            },
            settings["seed"]: gr.update(placeholder="random"),
        }

    def example(self) -> Updates:
        """The photo that comes with the page."""
        try:
            return {self._parts.person.photo: example_photo()}
        except Exception as error:
            return {self._parts.person.said: _error(error)}

    def read_new(self, *values: Any) -> Iterator[Updates]:
        """Another photo, or another reader: nobody has chosen a face of it yet."""
        yield from self._read({**self._values(values), "face": None})

    def read_face(self, *values: Any) -> Iterator[Updates]:
        """Another face of the same photo."""
        yield from self._read(self._values(values))

    def _read(self, values: dict[str, Any]) -> Iterator[Updates]:
        person, head = self._parts.person, self._parts.head
        nothing = {person.overlay: None, head.view: None}
        if values["photo"] is None:
            yield {**nothing, person.said: "", person.face: gr.update(visible=False, value=None)}
            return
        yield {person.said: markup.notice("Reading the photo …")}
        try:
            asked = person_asked_for({**values, "anybody": False, "more_photos": None, "head_file": None})
            assert asked is not None, "there is a photo"
            view = self._workshop.read(asked)
            shown = {person.overlay: view.overlay(), head.view: view.head([values[edit.name] for edit in EDITS])}
        except Exception as error:
            yield {**nothing, person.said: _error(error)}
            return
        several = view.reading.num_faces > 1
        chosen = view.face_names[view.reading.face_index] if several else None
        said = markup.notice(view.sentence()) + markup.notices(view.notices)
        yield {
            **shown,
            person.said: said,
            person.face: gr.update(choices=view.face_names if several else [], value=chosen, visible=several),
        }

    # The prompt

    def compose(self, *choices: Any) -> str:
        """A sentence from the words that the model knows."""
        return prompts.compose(*choices)

    def doubt_about_prompt(self, prompt: str) -> str:
        """A warning about words of the prompt, if there is one."""
        return markup.notices([self._workshop.doubt_about_prompt(prompt) or ""])

    # Making a video

    def start(self) -> Updates:
        """A job is asked for: from now on it can be cancelled, while it waits for its turn, too."""
        prompt, result = self._parts.prompt, self._parts.result
        return {
            self._parts.cancel: threading.Event(),
            prompt.go: gr.update(visible=False),
            prompt.stop: gr.update(visible=True, interactive=True, value="Cancel"),
            result.progress: markup.progress_bar("Waiting for its turn", 0, 0, None),
            **dict.fromkeys((result.preview, result.said), ""),
        }

    def stop(self, cancel: threading.Event | None) -> Any:
        """The job is not wanted any more; it ends at its next step."""
        if cancel is not None:
            cancel.set()
        return gr.update(interactive=False, value="Cancelling …")

    def make(self, cancel: threading.Event, mine: tuple[str, ...], *values: Any) -> Iterator[Updates]:
        """Make what the form asks for."""

        def asked() -> GenerationRequest:
            return request_asked_for(self._values(values), self._workshop.settings.model)

        yield from self._follow(asked, cancel, mine)

    def again(self, cancel: threading.Event, mine: tuple[str, ...], shown: str) -> Iterator[Updates]:
        """Make the video that is shown again, with its seed."""
        yield from self._follow(lambda: self._asked_by(shown, {}), cancel, mine, like=shown)

    def vary(self, cancel: threading.Event, mine: tuple[str, ...], shown: str) -> Iterator[Updates]:
        """Make the video that is shown again, with another seed."""
        yield from self._follow(lambda: self._asked_by(shown, {"seed": None}), cancel, mine)

    def _asked_by(self, shown: str, changes: dict[str, Any]) -> GenerationRequest:
        request = self._workshop.shelf.find(shown).request()
        return request.model_copy(update={"model": self._workshop.settings.model, **changes})

    def _follow(
        self,
        asked: Callable[[], GenerationRequest],
        cancel: threading.Event,
        mine: tuple[str, ...],
        like: str | None = None,
    ) -> Iterator[Updates]:
        """Make a request's videos, and tell of it until the end; everybody's page is ready again then."""
        made: list[KeptVideo] = []

        def work(progress: Progress) -> None:
            request = asked()
            if like is not None:
                self._workshop.studio(progress).warn_of_differences(self._workshop.shelf.find(like).record)
            self._workshop.make(request, progress, made.append)

        prompt, result, told = self._parts.prompt, self._parts.result, _Told()
        for event in follow(work, self._workshop.notices, cancel):
            if isinstance(event, Preview):
                yield {result.preview: markup.film_strip(event.frames)}
            elif not isinstance(event, End):
                yield {result.progress: told.progress(event), result.said: markup.notices(told.notes)}
            else:
                ended = markup.notice(event.error or "", "error")
                if event.cancelled:
                    ended = markup.notice("Cancelled." if not made else f"Cancelled after {len(made)} videos.")
                mine = (*mine, *(video.name for video in made))
                yield {
                    prompt.go: gr.update(visible=True),
                    prompt.stop: gr.update(visible=False),
                    result.said: ended + markup.notices(told.notes),
                    **dict.fromkeys((result.progress, result.preview), ""),
                    self._parts.mine: mine,
                    **self._gallery(mine),
                    **(self._show(made[-1]) if made else {}),
                }

    # Videos that were made

    def _show(self, video: KeptVideo) -> Updates:
        result, reference = self._parts.result, video.reference()
        return {
            self._parts.shown: video.name,
            result.shown: gr.update(visible=True),
            result.reference: gr.update(value=reference, visible=reference is not None),
            result.video: _to_browser(video.paths.video),
            result.facts: markup.facts(video.record),
            result.likeness: "",
            **{
                button: gr.update(value=_to_browser(path))
                for button, path in zip(result.downloads, video.paths.all, strict=True)
            },
            **self.keep(),
        }

    def likeness(self, shown: str | None) -> str:
        """How much each frame looks like the photo."""
        if shown is None:
            return ""
        try:
            distances = self._workshop.likeness(self._workshop.shelf.find(shown))
        except Exception as error:
            return markup.notice(explain(error))
        return "" if distances is None else markup.likeness(distances, self._workshop.same_person_distance)

    def select(self, listed: tuple[str, ...], event: gr.SelectData) -> Updates:
        """A video of the gallery was chosen."""
        try:
            video = self._workshop.shelf.find(listed[event.index])
            return {**self._show(video), **dict.fromkeys(self._progress(), "")}
        except Exception as error:
            return {self._parts.result.said: _error(error)}

    def change(self, shown: str) -> Updates:
        """Fill in the form with what made the video that is shown."""
        try:
            values = values_of(self._workshop.shelf.find(shown).request())
        except Exception as error:
            return {self._parts.result.said: _error(error)}
        for name in ("photo", "head_file"):
            values[name] = None if values[name] is None else _to_browser(Path(values[name]))
        values["more_photos"] = [_to_browser(Path(photo)) for photo in values["more_photos"] or ()] or None
        del values["face"]  # the photo is read anew, with its largest face
        return {self._parts.form[name]: gr.update(value=value) for name, value in values.items()}

    def ask_to_delete(self) -> Updates:
        """Ask before a video goes."""
        return self._deleting(True)

    def keep(self) -> Updates:
        """It stays."""
        return self._deleting(False)

    def delete(self, shown: str, mine: tuple[str, ...]) -> Updates:
        """It goes, with its record, and its photo where no other video has it."""
        try:
            self._workshop.shelf.delete(shown)
        except InvalidRequestError as error:
            return {self._parts.result.said: _error(error)}
        mine = tuple(name for name in mine if name != shown)
        return {
            self._parts.shown: None,
            self._parts.mine: mine,
            self._parts.result.shown: gr.update(visible=False),
            self._parts.result.said: markup.notice("Deleted."),
            **self._gallery(mine),
        }

    def _deleting(self, asks: bool) -> Updates:
        result = self._parts.result
        hidden = {result.delete: not asks, result.really: asks, result.keep: asks}
        return {button: gr.update(visible=visible) for button, visible in hidden.items()}

    def _progress(self) -> tuple[Any, ...]:
        result = self._parts.result
        return result.said, result.progress, result.preview

    def _gallery(self, mine: tuple[str, ...]) -> Updates:
        shelf = self._workshop.shelf
        kept = [video for video in shelf.videos() if self._workshop.settings.shows_all or video.name in mine][
            :_MOST_IN_GALLERY
        ]
        pictures = [(video.first_frame(), video.record.request.prompt) for video in kept]
        return {self._parts.gallery: pictures, self._parts.listed: tuple(video.name for video in kept)}


class _Told:
    """What was told of a job, and since when it counts steps."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._stage = Stage("Starting")
        self._begun = time.monotonic()

    def progress(self, event: Event) -> str:
        """The progress bar after one more event."""
        if isinstance(event, Note):
            self.notes.append(event.text)
        elif isinstance(event, Stage):
            if event.done <= 1:  # the first step takes longer than the others
                self._begun = time.monotonic()
            self._stage = event
        stage, left = self._stage, None
        if 1 < stage.done < stage.total:
            left = (time.monotonic() - self._begun) / (stage.done - 1) * (stage.total - stage.done)
        return markup.progress_bar(stage.what, stage.done, stage.total, left)


def _error(error: Exception) -> str:
    return markup.notice(explain(error), "error")


def _to_browser(path: Path) -> str:
    """A copy that a browser may fetch, under a name that nobody can guess: the folder itself is not served."""
    return str(save_file_to_cache(path, cache_dir=gr.utils.get_upload_folder()))
