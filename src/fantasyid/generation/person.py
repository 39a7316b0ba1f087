"""From photos, a mesh and edits to what the networks are told of a person."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.conditioning.identity import IdentityInputs, IdentityPreparation, read_identity
from fantasyid.core.errors import TopologyMismatchError
from fantasyid.core.imaging import read_photo_and_sha256
from fantasyid.face.reader import FaceReader
from fantasyid.face.registry import reader_backends
from fantasyid.face.types import FaceReading
from fantasyid.generation.request import PersonRequest
from fantasyid.geometry.edits import HeadEditor
from fantasyid.geometry.head_files import read_head_and_sha256
from fantasyid.geometry.head_model import HeadModel
from fantasyid.pipelines.fantasyid import FantasyIDPipeline


@dataclass(frozen=True, eq=False)
class PersonFiles:
    """The files of a person, read: they may go away while a video is made.

    Attributes:
        photos: RGB uint8 (H,W,3) each, upright.
        photo_sha256: Hash of each file.
        head: Vertices (N,3) in cm that stand in for those of the photos, and the hash of their mesh; None without.
        head_file_sha256: Hash of that file.
    """

    photos: tuple[NDArray[np.uint8], ...]
    photo_sha256: tuple[str, ...]
    head: tuple[torch.Tensor, str] | None
    head_file_sha256: str | None

    @classmethod
    def read(cls, person: PersonRequest) -> "PersonFiles":
        """Read the files of a request, each once.

        Args:
            person: Names them.

        Raises:
            FantasyIDError: A file cannot be used.
        """
        photos, hashes = zip(*map(read_photo_and_sha256, person.photos), strict=True)
        if person.head_file is None:
            return cls(photos, hashes, None, None)
        vertices, topology_hash, sha256 = read_head_and_sha256(person.head_file)
        return cls(photos, hashes, (vertices, topology_hash), sha256)


@dataclass(frozen=True, eq=False)
class Person:
    """A person as the networks are told of them.

    Attributes:
        inputs: For one person (B = 1).
        readings: What was read of each photo.
        files: Where it comes from.
    """

    inputs: IdentityInputs
    readings: tuple[FaceReading, ...]
    files: PersonFiles

    @property
    def portrait(self) -> NDArray[np.uint8]:
        """RGB (H,W,3), the reference picture as the model saw it."""
        picture = (self.inputs.reference_image[0].permute(1, 2, 0).cpu().numpy() + 1) * 127.5
        return picture.round().clip(0, 255).astype(np.uint8)


def read_person(
    files: PersonFiles, request: PersonRequest, pipeline: FantasyIDPipeline, preparation: IdentityPreparation
) -> Person:
    """Read a person for a model.

    The first photo gives reference picture and face; the neutral head is the mean over all photos, which takes out some
    of what each one shows wrongly (paper 3.3).

    Args:
        files: Of the same request.
        request: Which face, what reads it, and what is changed.
        pipeline: The model.
        preparation: How its networks want a photo, at the video's size.

    Returns:
        The person.

    Raises:
        FantasyIDError: A photo or the face in it cannot be used, or the mesh is another head's.
    """
    reader = reader_for(pipeline, request)
    read = [read_identity(photo, reader, request.face_index, preparation) for photo in files.photos]
    inputs = read[0][0]
    if len(read) > 1:
        inputs = replace(inputs, vertices=torch.stack([other.vertices for other, _ in read]).mean(0))
    inputs = change_head(inputs, files.head, request.edits)
    return Person(inputs, tuple(reading for _, reading in read), files)


def change_head(
    person: IdentityInputs, head: tuple[torch.Tensor, str] | None, edits: dict[str, float]
) -> IdentityInputs:
    """The person with the vertices of another head, if one is given, and edited.

    Args:
        person: As read.
        head: Vertices (N,3) in cm, and the hash of their mesh.
        edits: Strengths by name.

    Raises:
        TopologyMismatchError: The head is of another mesh.
    """
    if head is not None:
        vertices, topology_hash = head
        if topology_hash != person.topology_hash:
            raise TopologyMismatchError(
                f"The head's file is of mesh {topology_hash}, the photo's head of {person.topology_hash}; "
                "use one that `fantasyid edit` or `fantasyid face inspect` wrote, its vertices in their order."
            )
        person = replace(person, vertices=vertices[None].to(person.vertices))
    if edits:
        editor = HeadEditor(HeadModel.load())
        person = replace(person, vertices=editor.edit(person.vertices, person.topology_hash, edits))
    return person


def reader_for(pipeline: FantasyIDPipeline, request: PersonRequest) -> FaceReader:
    """What reads the photos of a request: the pipeline's own reader, or one with the backend asked for.

    Args:
        pipeline: The model.
        request: Names the backend.

    Raises:
        FantasyIDError: The backend or its files are missing.
    """
    if request.face_backend is None:
        return pipeline.face_reader
    model = pipeline.face_reader_model or load_component(MINI_FOLDER, "face_reader_model")
    keep = pipeline.config.keep_expression_and_pose
    return FaceReader(model, *reader_backends(request.face_backend, request.deca_folder, keep))
