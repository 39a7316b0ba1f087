"""Which face reader goes with a model's networks."""

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.errors import MissingWeightsError
from fantasyid.face.reader import FaceReader
from fantasyid.face.reconstruct_deca import DecaReconstructor
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.released import ReleasedIdentityEncoder


def face_reader_of(
    face_reader_model: FaceReaderModel | None,
    identity_encoder: IdentityEncoder | ReleasedIdentityEncoder | None,
    keep_expression_and_pose: bool,
) -> FaceReader:
    """Make the reader whose heads an identity encoder was trained with.

    Only the released checkpoint needs FLAME heads, so DECA's files; see `DecaReconstructor`.

    Args:
        face_reader_model: Reads landmarks; the built-in one serves the released checkpoint, which has none.
        identity_encoder: Takes the heads.
        keep_expression_and_pose: Make FLAME heads as the authors' script does, or neutral.

    Raises:
        MissingWeightsError: A network or DECA's files are not there.
    """
    if isinstance(identity_encoder, ReleasedIdentityEncoder):
        reconstructor = DecaReconstructor.load(keep_expression_and_pose=keep_expression_and_pose)
        model = face_reader_model or load_component(MINI_FOLDER, "face_reader_model")
        return FaceReader(model, reconstructor=reconstructor)
    if face_reader_model is None:
        raise MissingWeightsError(
            "This pipeline has no face_reader_model to read a photo with; pass identity_inputs, "
            'or take the one of FantasyIDPipeline.from_pretrained("mini").'
        )
    return FaceReader(face_reader_model)
