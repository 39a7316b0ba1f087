"""What the page consists of, section by section; what happens between the parts is in `page`."""

from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import gradio as gr

from fantasyid.core.bounds import IDENTITY_SCALE
from fantasyid.geometry.edit_table import EDITS
from fantasyid.ui import prompts
from fantasyid.ui.form import LABELS, label_of

MOST_VIDEOS = 8
_PHOTO_PIXELS = 250
_HEAD_TEMPLATE = """
<p class="empty">The head in 3D appears here.</p>
<canvas tabindex="0" role="img" aria-label="The head in 3D; arrow keys turn it, as dragging does"></canvas>
<p class="missing">This browser draws nothing in 3D; the edits count all the same.</p>
<label><input type="checkbox"> Without the edits</label>
"""


@dataclass(frozen=True)
class PersonPart:
    """The photo and what was read of it."""

    photo: gr.Image
    example: gr.Button
    face: gr.Radio
    more_photos: gr.File
    overlay: gr.Image
    said: gr.HTML


@dataclass(frozen=True)
class HeadPart:
    """The head in 3D and its edits."""

    view: gr.HTML
    doubt: gr.HTML
    sliders: dict[str, gr.Slider]
    reset: gr.Button


@dataclass(frozen=True)
class PromptPart:
    """What happens, and the buttons that start and stop it."""

    prompt: gr.Textbox
    choices: tuple[gr.Dropdown, ...]
    doubt: gr.HTML
    go: gr.Button
    stop: gr.Button


@dataclass(frozen=True)
class ResultPart:
    """The video that is made or shown."""

    progress: gr.HTML
    preview: gr.HTML
    said: gr.HTML
    shown: gr.Column
    reference: gr.Image
    video: gr.Video
    facts: gr.HTML
    likeness: gr.HTML
    again: gr.Button
    vary: gr.Button
    change: gr.Button
    downloads: tuple[gr.DownloadButton, ...]
    delete: gr.Button
    really: gr.Button
    keep: gr.Button


@dataclass(frozen=True)
class Parts:
    """All of the page."""

    model: gr.HTML
    person: PersonPart
    head: HeadPart
    prompt: PromptPart
    settings: dict[str, Any]
    result: ResultPart
    gallery: gr.Gallery
    cancel: gr.State = field(default_factory=gr.State)
    """Set when the running job should end."""
    shown: gr.State = field(default_factory=gr.State)
    """Name of the video that is shown."""
    mine: gr.State = field(default_factory=lambda: gr.State(()))
    """Names of this visit's videos."""
    listed: gr.State = field(default_factory=lambda: gr.State(()))
    """Names of the gallery's videos."""

    @property
    def form(self) -> dict[str, Any]:
        """What a request is made of, by the names of `ui.form`."""
        person = {"photo": self.person.photo, "more_photos": self.person.more_photos, "face": self.person.face}
        return {**person, "prompt": self.prompt.prompt, **self.settings, **self.head.sliders}


def lay_out(guidance_interval: tuple[float, float], place: str) -> Parts:
    """Put the parts on the page that is being built.

    Args:
        guidance_interval: Share of the steps that are guided until a visitor says otherwise.
        place: Says where videos are kept.
    """
    with gr.Row(elem_classes="fid-header"):
        model = gr.HTML(header("The model is loaded when it is first needed."))
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320):
            person, view = _person()
            head = _head(view)
            prompt = _prompt()
            settings = _settings(guidance_interval)
        with gr.Column(scale=5, min_width=320, elem_classes="fid-result"):
            result = _result()
    gr.Markdown("## Your videos", elem_classes="fid-section")
    gr.HTML(f'<p class="fid-hint">{place}</p>')
    gallery = gr.Gallery(
        label="Videos, the newest first; choose one to show it",
        columns=6,
        height="auto",
        fit_columns=False,
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id="gallery",
    )
    return Parts(model, person, head, prompt, settings, result, gallery)


def header(line: str) -> str:
    """The title, with a line about the model, which is HTML."""
    return (
        "<h1>FantasyID</h1><p>One photo of a face and one sentence become a video of that person."
        f'<span id="model-line">{line}</span></p>'
    )


def _folded(title: str, **options: Any) -> gr.Accordion:
    """A section that `page` folds up once all of it is there.

    What Gradio 6 builds when an accordion is first opened, it fills in with its first values a little later, and what
    a visitor has typed by then is lost. Built open, it is filled in before anybody can type.
    """
    return gr.Accordion(title, open=True, elem_classes="fid-unfolded", **options)


def _person() -> tuple[PersonPart, gr.HTML]:
    gr.Markdown("## 1. The person", elem_classes="fid-section")
    with gr.Row(equal_height=True):
        photo = gr.Image(
            label="Photo",
            format="png",
            sources=["upload", "webcam", "clipboard"],
            height=_PHOTO_PIXELS,
            buttons=[],
            elem_id="photo",
            min_width=150,
        )
        overlay = gr.Image(
            label="What was read",
            alt_text="The photo with the head that was read laid over the face",
            interactive=False,
            buttons=["fullscreen"],
            height=_PHOTO_PIXELS,
            elem_id="overlay",
            min_width=150,
        )
        view = gr.HTML(
            label="The head, to turn and edit",
            show_label=True,
            container=True,
            html_template=_HEAD_TEMPLATE,
            css_template=_file("head.css"),
            js_on_load=_file("head.js"),
            elem_id="head",
            min_width=150,
        )
    # The file as it was uploaded: we read more formats than Gradio does, and every byte counts for the record.
    photo.preprocess = _path_of
    said = gr.HTML(elem_id="person-said")
    face = gr.Radio(label="Which face?", type="index", visible=False, interactive=True, elem_id="face")
    example = gr.Button("Try it with an example portrait (NASA, public domain)", size="sm", elem_id="example")
    with _folded("More photos of the same person"):
        gr.HTML('<p class="fid-hint">The head\'s shape becomes the mean of what all photos show.</p>')
        more = gr.File(label="More photos", file_count="multiple", elem_id="more-photos")
    return PersonPart(photo, example, face, more, overlay, said), view


def _path_of(upload: Any) -> str | None:
    """Where Gradio put a file, which it has checked to be an upload."""
    return None if upload is None else str(upload.path)


def _head(view: gr.HTML) -> HeadPart:
    with _folded("2. The head: change its shape", elem_id="edit-head"):
        doubt = gr.HTML(elem_id="head-doubt")
        sliders = {}
        for pair in zip(EDITS[::2], EDITS[1::2], strict=True):
            with gr.Row(elem_classes="fid-sliders"):
                for edit in pair:
                    sliders[edit.name] = gr.Slider(
                        -1,
                        1,
                        0,
                        step=0.05,
                        label=label_of(edit.name),
                        info=f"{edit.effect[0].upper()}{edit.effect[1:]}.",
                        buttons=[],
                        elem_id=f"edit-{edit.name}",
                    )
        reset = gr.Button("Back to the head as it was read", size="sm", elem_id="reset-head")
    return HeadPart(view, doubt, sliders, reset)


def _prompt() -> PromptPart:
    gr.Markdown("## 3. What happens", elem_classes="fid-section")
    prompt = gr.Textbox(
        "A person smiles, in front of a plain blue background.",
        label=LABELS["prompt"],
        lines=2,
        max_lines=5,
        elem_id="prompt",
    )
    with _folded("Words that the built-in model knows"):
        with gr.Row():
            who = gr.Dropdown(list(prompts.PEOPLE), value="A person", label="Who", min_width=120)
            age = gr.Dropdown(list(prompts.AGES), value="any age", label="Age", min_width=120)
        actions = gr.Dropdown(
            list(prompts.ACTIONS),
            value=["smiles"],
            multiselect=True,
            max_choices=prompts.MOST_ACTIONS,
            label="Does what",
            info="One or two fit the two seconds of its video. Left and right are those of the picture.",
        )
        with gr.Row():
            place = gr.Dropdown(list(prompts.PLACES), value="plain blue", label="Background", min_width=120)
            light = gr.Dropdown(list(prompts.LIGHTS), value="as it comes", label="Light", min_width=120)
    doubt = gr.HTML(elem_id="prompt-doubt")
    go = gr.Button("Make the video", variant="primary", elem_id="go")
    stop = gr.Button("Cancel", variant="stop", visible=False, elem_id="stop")
    return PromptPart(prompt, (who, age, actions, place, light), doubt, go, stop)


def _settings(guidance_interval: tuple[float, float]) -> dict[str, Any]:
    """The other fields of a request, by their names."""
    fields: dict[str, Any] = {}

    def number(name: str, info: str) -> None:
        fields[name] = gr.Textbox("", label=LABELS[name], info=info, max_lines=1, min_width=120, elem_id=name)

    with _folded("Settings", elem_id="settings"):
        gr.HTML('<p class="fid-hint">What is left empty is the model\'s own choice.</p>')
        with gr.Row():
            number("seed", "Same seed, same video. Empty: drawn at random.")
            fields["num_videos"] = gr.Slider(
                1, MOST_VIDEOS, 1, step=1, label=LABELS["num_videos"], info="Seeds count up.", buttons=[], min_width=120
            )
        with gr.Row():
            number("num_inference_steps", "More take longer and give finer pictures.")
            number("guidance_scale", "How strictly the prompt is followed; 1 is off.")
        fields["negative_prompt"] = gr.Textbox(
            "", label=LABELS["negative_prompt"], info="What the video should not show.", elem_id="negative_prompt"
        )
        with gr.Row():
            number("num_frames", "1, 9, 17 and so on.")
            number("fps", "Another rate plays the same frames slower or faster.")
        with gr.Row():
            number("width", "Pixels.")
            number("height", "Pixels.")
        with gr.Row():
            label = "Guided share of the steps, {}"
            start, end = guidance_interval
            fields["guided_from"] = gr.Slider(0, 1, start, label=label.format("from"), buttons=[], min_width=120)
            fields["guided_to"] = gr.Slider(0, 1, end, label=label.format("to"), buttons=[], min_width=120)
        gr.Markdown("### How the person enters")
        fields["anybody"] = gr.Checkbox(False, label="Nobody in particular: no photo is used", elem_id="anybody")
        fields["use_reference"] = gr.Checkbox(True, label=LABELS["use_reference"])
        fields["use_identity_tokens"] = gr.Checkbox(True, label=LABELS["use_identity_tokens"])
        fields["identity_scale"] = gr.Slider(
            0, IDENTITY_SCALE.high, 1, step=0.1, label=LABELS["identity_scale"], buttons=[]
        )
        fields["face_backend"] = gr.Dropdown(
            [("The model's own", ""), ("Built in", "builtin"), ("insightface", "insightface"), ("DECA", "deca")],
            value="",
            label="What reads the photo",
            elem_id="face_backend",
        )
        fields["head_file"] = gr.File(
            label="A head to use instead (.ply or .obj)", file_types=[".ply", ".obj"], elem_id="head_file"
        )
    return fields


def _result() -> ResultPart:
    gr.Markdown("## The video", elem_classes="fid-section")
    said = gr.HTML(elem_id="result-said")
    progress = gr.HTML('<div class="fid-empty">Your video appears here.</div>', elem_id="progress")
    preview = gr.HTML(elem_id="preview")
    with gr.Column(visible=False, elem_id="result") as shown:
        with gr.Row(equal_height=True):
            reference = gr.Image(
                label="Photo",
                alt_text="The face in the photo",
                interactive=False,
                buttons=[],
                elem_id="reference",
                min_width=140,
            )
            video = gr.Video(
                label="Video", autoplay=True, loop=True, interactive=False, buttons=[], elem_id="video", min_width=140
            )
        facts = gr.HTML(elem_id="facts")
        likeness = gr.HTML(elem_id="likeness")
        with gr.Row(elem_classes="fid-actions"):
            again = gr.Button("Again, same seed", size="sm", min_width=100, elem_id="again")
            vary = gr.Button("Vary the seed", size="sm", min_width=100, elem_id="vary")
            change = gr.Button("Change its settings", size="sm", min_width=100, elem_id="change")
        with gr.Row(elem_classes="fid-actions"):
            downloads = tuple(
                gr.DownloadButton(f"Download {what}", size="sm", min_width=110, elem_id=f"download-{what}")
                for what in ("video", "record", "sheet")
            )
        with gr.Row(elem_classes="fid-actions"):
            delete = gr.Button("Delete", size="sm", min_width=110, elem_id="delete")
            really = gr.Button(
                "Delete it for good", size="sm", variant="stop", visible=False, min_width=110, elem_id="really-delete"
            )
            keep = gr.Button("Keep it", size="sm", visible=False, min_width=110, elem_id="keep")
    buttons = (again, vary, change, downloads, delete, really, keep)
    return ResultPart(progress, preview, said, shown, reference, video, facts, likeness, *buttons)


def _file(name: str) -> str:
    return (files("fantasyid.ui") / name).read_text(encoding="utf-8")
