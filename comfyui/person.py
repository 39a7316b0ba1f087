"""Read Person and Edit Head: whom a video shows."""

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from comfy_api.latest import io, ui

from fantasyid.core.bounds import FACE_INDEX
from fantasyid.core.choices import FaceBackend
from fantasyid.generation.request import PersonRequest
from fantasyid.geometry.edit_table import EDITS

from .kinds import LoadedModel, ModelKind, PersonKind, PhotographedPerson, image_of, photos_of, pixels_sha256
from .progress import NodeProgress

if TYPE_CHECKING:
    from fantasyid.geometry.edits import HeadEditor

OF_THE_MODEL = "of the model"
_NAME_DIGITS = 16
_YAWS_DEG = (-45.0, 0.0, 45.0)
_HEIGHT = 240


class ReadPerson(io.ComfyNode):
    """Reads the face in a photo, and shows what was understood."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's inputs and outputs."""
        return io.Schema(
            node_id="FantasyID_ReadPerson",
            display_name="Read Person",
            category="FantasyID",
            description="Reads a person from one or more photos, and lays the head that was read over each.",
            inputs=[
                ModelKind.Input("model", tooltip="Of Load FantasyID."),
                io.Image.Input(
                    "image",
                    tooltip="Photo of the person. Of a batch, the first gives the face, and the head's shape is the "
                    "mean of what all show.",
                ),
                io.Int.Input(
                    "face",
                    default=0,
                    min=FACE_INDEX.low,
                    max=FACE_INDEX.high,
                    tooltip="Which face of the photo, 0 being the largest; the overlay shows the numbers.",
                ),
                io.Combo.Input(
                    "reader",
                    options=[OF_THE_MODEL, *get_args(FaceBackend)],
                    default=OF_THE_MODEL,
                    tooltip="What reads the photo; insightface and deca need files of their owners.",
                ),
            ],
            outputs=[
                PersonKind.Output(display_name="person"),
                io.Image.Output(display_name="overlay", tooltip="The head that was read, over each photo."),
                io.String.Output(display_name="reading", tooltip="In words, with warnings."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: LoadedModel, image: torch.Tensor, face: int, reader: str) -> io.NodeOutput:
        """Read every photo of the batch."""
        from fantasyid.generation.person import PersonFiles, reader_for
        from fantasyid.ui.notices import Notices
        from fantasyid.ui.reading import PersonView

        photos = photos_of(image)
        hashes = tuple(map(pixels_sha256, photos))
        request = PersonRequest.model_validate(
            {
                "photos": [f"image-{sha[:_NAME_DIGITS]}.png" for sha in hashes],
                "face_index": face,
                "face_backend": None if reader == OF_THE_MODEL else reader,
            }
        )
        progress, views = NodeProgress(), []
        with Notices().told(progress.note):
            face_reader = reader_for(model.studio(progress).pipeline, request)
            for photo in photos:
                with progress.stage("Reading the photo"):
                    views.append(PersonView(photo, face_reader.read(photo, face), ()))
        overlay = image_of(np.stack([view.overlay(first_number=0) for view in views]))
        said = "\n".join([*(view.sentence() for view in views), *progress.notes])
        person = PhotographedPerson(request, PersonFiles(photos, hashes, None, None), views[0].reading)
        return io.NodeOutput(person, overlay, said, ui=ui.PreviewImage(overlay, cls=cls))


class EditHead(io.ComfyNode):
    """Changes the shape of a person's head."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's inputs and outputs."""
        sliders = [
            io.Float.Input(
                edit.name.replace("-", "_"),
                default=0.0,
                min=-1.0,
                max=1.0,
                step=0.05,
                round=0.001,
                display_mode=io.NumberDisplay.slider,
                tooltip=f"{edit.effect[0].upper()}{edit.effect[1:]}; 1 is {abs(edit.change_cm):g} cm.",
            )
            for edit in EDITS
        ]
        return io.Schema(
            node_id="FantasyID_EditHead",
            display_name="Edit Head",
            category="FantasyID",
            description="Changes the shape of the head by named edits; edits of several such nodes add up.",
            inputs=[PersonKind.Input("person", tooltip="Of Read Person, or of another Edit Head."), *sliders],
            outputs=[
                PersonKind.Output(display_name="person"),
                io.Image.Output(display_name="turntable", tooltip="The head before, above, and after, below."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, person: PhotographedPerson, **strengths: float) -> io.NodeOutput:
        """Add the edits to those of the person, and draw the head before and after."""
        from fantasyid.geometry.head_model import HeadModel
        from fantasyid.geometry.pictures import part_colours, turntable

        edits = dict(person.request.edits)
        for edit in EDITS:
            edits[edit.name] = edits.get(edit.name, 0.0) + strengths[edit.name.replace("-", "_")]
        edits = {name: strength for name, strength in edits.items() if strength}
        request = PersonRequest.model_validate({**dict(person.request), "edits": edits})
        model, head = HeadModel.load(), person.reading.head
        neutral = head.vertices.float().cpu()
        heads = [_editor().edit(neutral, head.topology_hash, asked.edits) for asked in (person.request, request)]
        rows = [turntable(vertices, model.triangles, part_colours(model), _YAWS_DEG, _HEIGHT) for vertices in heads]
        pictures = image_of(np.concatenate(rows)[None])
        return io.NodeOutput(replace(person, request=request), pictures, ui=ui.PreviewImage(pictures, cls=cls))


@cache
def _editor() -> "HeadEditor":
    from fantasyid.geometry.edits import HeadEditor
    from fantasyid.geometry.head_model import HeadModel

    return HeadEditor(HeadModel.load())
