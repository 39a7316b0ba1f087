"""The page: one photo and one sentence become a video, with everything that a request can hold.

`fantasyid ui` opens it by itself; a server mounts it beside other things:
`gradio.mount_gradio_app(app, build_page(settings), path="/", **page_options())`.
"""

from importlib.resources import files
from typing import Any

import gradio as gr

from fantasyid.generation.studio import Studio
from fantasyid.ui.handlers import Handlers
from fantasyid.ui.parts import Parts, lay_out
from fantasyid.ui.settings import PageSettings
from fantasyid.ui.workshop import Workshop

_MOST_WAITING = 32
_HOUR_S = 3600
_MOST_HOURS_UNUSED = 24
_SHOW_RESULT = (
    "() => { const result = document.querySelector('.fid-result').getBoundingClientRect();"
    " if (result.top > innerHeight / 2) document.querySelector('.fid-result').scrollIntoView(); }"
)
_FOLD = "() => Array(%d).fill({ __type__: 'update', open: false, elem_classes: [] })"
_SEND_EDITS = "(...edits) => { document.dispatchEvent(new CustomEvent('fantasyid-edits', { detail: edits })); }"
_NO_EDITS = (
    "(...edits) => { const none = edits.map(() => 0);"
    " document.dispatchEvent(new CustomEvent('fantasyid-edits', { detail: none })); return none; }"
)


def build_page(settings: PageSettings, studio: Studio | None = None) -> gr.Blocks:
    """Build the page.

    Args:
        settings: How it works.
        studio: The model that they name, where it is loaded already; None loads it when the first visitor comes.
    """
    place = f"Videos, records and photos are kept on this machine, in {settings.folder}."
    if not settings.shows_all:
        place = "The videos of this visit; close the page, and they are not shown again."
    # What visitors upload, and copies of videos for their browsers, go away after a day, or sooner.
    hours = min(_MOST_HOURS_UNUSED, settings.keep_hours or _MOST_HOURS_UNUSED)
    with gr.Blocks(title="FantasyID", analytics_enabled=False, delete_cache=(_HOUR_S, hours * _HOUR_S)) as page:
        parts = lay_out(settings.guidance_interval, place)
        _connect(page, parts, Handlers(parts, Workshop(settings, studio)))
    return page.queue(max_size=_MOST_WAITING)


def page_options() -> dict[str, Any]:
    """Arguments for `Blocks.launch` and for `gradio.mount_gradio_app`: how the page looks, and what it leaves out."""
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    ).set(  # every text stands out from its ground by 4.5 or more
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
    )
    return {
        "theme": theme,
        "css": (files("fantasyid.ui") / "page.css").read_text(encoding="utf-8"),
        "footer_links": [],
        "run_history": False,
        "max_file_size": "50mb",
        "show_error": True,
    }


def _connect(page: gr.Blocks, parts: Parts, handlers: Handlers) -> None:
    """Say what happens when; private, because the page is for people and the API is another door."""
    person, head, prompt, result = parts.person, parts.head, parts.prompt, parts.result
    form = list(parts.form.values())
    gallery = [parts.gallery, parts.listed]
    shown = [
        parts.shown,
        *(result.shown, result.reference, result.video, result.facts, result.likeness),
        *(*result.downloads, result.delete, result.really, result.keep),
    ]
    told = [result.progress, result.preview, result.said]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    at_once: dict[str, Any] = {**quiet, "queue": False}

    folded = [part for part in page.blocks.values() if isinstance(part, gr.Accordion)]
    page.load(None, None, folded, js=_FOLD % len(folded), **quiet)

    placeholders = [parts.settings[name] for name in _WITH_PLACEHOLDERS]
    page.load(handlers.open, [parts.mine], [parts.model, head.doubt, result.said, *gallery, *placeholders], **quiet)

    read = [person.overlay, head.view, person.said, person.face]
    reading: dict[str, Any] = {**quiet, "trigger_mode": "always_last"}
    person.example.click(handlers.example, None, [person.photo, person.said], **at_once)
    gr.on([person.photo.change, parts.settings["face_backend"].input], handlers.read_new, form, read, **reading)
    person.face.input(handlers.read_face, form, read, **reading)

    sliders = list(head.sliders.values())
    for slider in sliders:
        slider.change(None, sliders, None, js=_SEND_EDITS, **quiet)
    head.reset.click(None, sliders, sliders, js=_NO_EDITS, **quiet)

    for choice in prompt.choices:
        choice.input(handlers.compose, list(prompt.choices), prompt.prompt, **at_once)
    prompt.prompt.blur(handlers.doubt_about_prompt, prompt.prompt, prompt.doubt, **quiet)

    starting = [parts.cancel, prompt.go, prompt.stop, *told]
    ending = [prompt.go, prompt.stop, *told, parts.mine, *gallery, *shown]
    working: dict[str, Any] = {**quiet, "concurrency_limit": 1, "concurrency_id": "model"}
    for start, work, asked in (
        ([prompt.go.click, prompt.prompt.submit], handlers.make, form),
        ([result.again.click], handlers.again, [parts.shown]),
        ([result.vary.click], handlers.vary, [parts.shown]),
    ):
        started = gr.on(start, handlers.start, None, starting, js=_SHOW_RESULT, **at_once)
        done = started.then(work, [parts.cancel, parts.mine, *asked], ending, **working)
        done.then(handlers.likeness, parts.shown, result.likeness, **quiet)
    prompt.stop.click(handlers.stop, parts.cancel, prompt.stop, **at_once)

    chosen = parts.gallery.select(handlers.select, parts.listed, [*shown, *told], **quiet)
    chosen.then(handlers.likeness, parts.shown, result.likeness, **quiet)
    result.change.click(handlers.change, parts.shown, [*form, result.said], **quiet)
    result.delete.click(handlers.ask_to_delete, None, shown, **at_once)
    result.keep.click(handlers.keep, None, shown, **at_once)
    result.really.click(
        handlers.delete, [parts.shown, parts.mine], [parts.mine, result.said, *gallery, *shown], **at_once
    )


_WITH_PLACEHOLDERS = ("num_inference_steps", "guidance_scale", "num_frames", "fps", "width", "height", "seed")
