"""Generate Video: a person, or anybody, doing what a prompt says."""

import io as bytes_io
import tempfile
from pathlib import Path
from typing import Any

from comfy_api.latest import InputImpl, io

from fantasyid.core.bounds import (
    DENOISING_STEPS,
    FRAMES_PER_SECOND,
    GUIDANCE_SCALE,
    IDENTITY_SCALE,
    NUM_FRAMES,
    PIXELS_PER_SIDE,
    SEED,
)
from fantasyid.core.errors import InvalidRequestError
from fantasyid.generation.request import GenerationRequest

from .kinds import LoadedModel, ModelKind, PersonKind, PhotographedPerson, image_of
from .progress import NodeProgress

_FIELDS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "identity_scale": "identity_scale",
    "use_reference": "use_reference",
    "use_identity_tokens": "use_identity_tokens",
    "frames": "num_frames",
    "width": "width",
    "height": "height",
    "fps": "fps",
}
"""Inputs of the node, and the fields of a request that they fill in."""
_OWN = {"steps": 0, "guidance": -1.0, "frames": 0, "width": 0, "height": 0, "fps": 0.0}
"""Values that leave a choice to the model."""


class Generate(io.ComfyNode):
    """Makes one video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's inputs and outputs."""
        return io.Schema(
            node_id="FantasyID_Generate",
            display_name="Generate Video (FantasyID)",
            category="FantasyID",
            description="Makes a video of a person doing what the prompt says. The frames carry an invisible mark that "
            "says that they were generated.",
            inputs=[
                ModelKind.Input("model", tooltip="Of Load FantasyID."),
                io.String.Input("prompt", multiline=True, default="", tooltip="What happens, in English."),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    default="",
                    tooltip="What the video should keep away from; needs guidance.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=SEED.low,
                    max=SEED.high,
                    control_after_generate=True,
                    tooltip="Same seed, same machine: same video.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=DENOISING_STEPS.high,
                    tooltip="Denoising steps; 0 is the model's own.",
                ),
                io.Float.Input(
                    "guidance",
                    default=-1.0,
                    min=-1.0,
                    max=float(GUIDANCE_SCALE.high),
                    step=0.1,
                    tooltip="How strictly the prompt is followed, off at 0 to 1; -1 is the model's own.",
                ),
                io.Float.Input(
                    "identity_scale",
                    default=1.0,
                    min=float(IDENTITY_SCALE.low),
                    max=float(IDENTITY_SCALE.high),
                    step=0.05,
                    tooltip="Strength of the identity tokens; 1 is what the model was trained with.",
                ),
                io.Boolean.Input(
                    "use_reference", default=True, tooltip="Off: without the portrait's latent beside the noise."
                ),
                io.Boolean.Input("use_identity_tokens", default=True, tooltip="Off: without the identity tokens."),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=NUM_FRAMES.high,
                    tooltip="Frames of the video; 0 is the model's own.",
                ),
                io.Int.Input(
                    "width", default=0, min=0, max=PIXELS_PER_SIDE.high, tooltip="Pixels; 0 is the model's own."
                ),
                io.Int.Input(
                    "height", default=0, min=0, max=PIXELS_PER_SIDE.high, tooltip="Pixels; 0 is the model's own."
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=float(FRAMES_PER_SECOND.high),
                    step=0.5,
                    tooltip="Frames shown per second, another than the model's plays slower or faster; 0 is its own.",
                ),
                io.Boolean.Input("preview", default=True, tooltip="Show four of the frames as they look so far."),
                io.Boolean.Input(
                    "keep_model",
                    default=True,
                    tooltip="Off: the model's memory is free after this video, and it is loaded again for the next.",
                ),
                PersonKind.Input(
                    "person", optional=True, tooltip="Of Read Person or Edit Head; without one the video shows anybody."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="frames"),
                io.Video.Output(display_name="video", tooltip="With the words that say that it was generated."),
                io.Float.Output(display_name="fps"),
                io.String.Output(display_name="record", tooltip="JSON: everything needed to make the video again."),
                io.String.Output(display_name="notes", tooltip="What should be read about this video, if anything."),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None) -> bool | str:
        """Refuse a prompt, where it is typed here, before anything is loaded.

        Args:
            prompt: None where it comes from another node.
        """
        try:
            _check_prompt("anything" if prompt is None else prompt)
        except InvalidRequestError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: LoadedModel,
        preview: bool,
        keep_model: bool,
        person: PhotographedPerson | None = None,
        **values: Any,
    ) -> io.NodeOutput:
        """Make the video."""
        from fantasyid.core.provenance import add_mark
        from fantasyid.ui.notices import Notices

        request = _request(model, person, values)
        progress = NodeProgress(shows_frames=preview)
        try:
            with Notices().told(progress.note):
                files = None if person is None else person.files
                (made,) = model.studio(progress).videos(request, files, progress)
        finally:
            if not keep_model:
                model.give_up()
        record = made.record
        with tempfile.TemporaryDirectory() as folder:
            video = made.save(Path(folder) / "video.mp4").video.read_bytes()
        return io.NodeOutput(
            image_of(add_mark(made.frames)),
            InputImpl.VideoFromFile(bytes_io.BytesIO(video)),
            record.request.fps,
            record.model_dump_json(indent=2),
            "\n".join(progress.notes),
        )


def _request(model: LoadedModel, person: PhotographedPerson | None, values: dict[str, Any]) -> GenerationRequest:
    """What the inputs ask for; what is wrong is told by their names."""
    _check_prompt(values["prompt"])
    if person is not None and person.request.edits and not values["use_identity_tokens"]:
        raise InvalidRequestError(
            "The edited head acts through the identity tokens, which are switched off; switch use_identity_tokens on, "
            "or leave Edit Head out."
        )
    own = {name for name, value in _OWN.items() if values[name] == value}
    fields = {field: values[name] for name, field in _FIELDS.items() if name not in own}
    fields |= {
        "person": None if person is None else person.request,
        "guidance_interval": model.guidance_interval,
        "model": model.request,
    }
    names = {field: name for name, field in _FIELDS.items()}
    return GenerationRequest.model_validate(fields, context={"names": names})


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise InvalidRequestError("The prompt is empty; say what happens, such as “A person smiles.”")
