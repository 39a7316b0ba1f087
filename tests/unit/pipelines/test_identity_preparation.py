import pytest
import torch

from fantasyid.conditioning.identity import IdentityPreparation, read_identity
from fantasyid.core.errors import InvalidRequestError
from fantasyid.face.reader import FaceReader
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.eva_vision import EvaVisionModel
from fantasyid.models.released import ReleasedIdentityEncoder
from tests.tiny_pipeline import tiny_person, tiny_pipeline
from tests.unit.face.faces import average_face_model, head_landmarks, portrait


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return FaceReader(average_face_model(head_landmarks(HeadModel.load())))


def test_components_say_how_a_photo_is_prepared() -> None:
    pipeline = tiny_pipeline()
    assert pipeline.identity_preparation() == IdentityPreparation("portrait", (32, 32), 32)
    assert pipeline.identity_preparation(width=48) == IdentityPreparation("portrait", (32, 48), 32)
    released = tiny_pipeline(
        identity_encoder=ReleasedIdentityEncoder(
            face_dim=32, conv_dim=32, widths=(64, 64), strides=(2,), num_layers=1, levels=(20, 10, 5)
        ),
        face_vision=EvaVisionModel(28, width=16, num_layers=1, num_heads=2, feed_forward_width=32),
    )
    assert released.identity_preparation(480, 720) == IdentityPreparation("ffhq", (480, 720), 28)
    bare = tiny_pipeline(identity_encoder=None, face_vision=None, face_reader_model=None)
    assert bare.identity_preparation() == IdentityPreparation("portrait", (32, 32), 96)


def test_a_photo_becomes_a_video_of_another_size(reader: FaceReader) -> None:
    pipeline = tiny_pipeline()
    person, _ = read_identity(portrait(), reader, None, pipeline.identity_preparation(32, 48))
    call = {"num_inference_steps": 1, "num_frames": 1, "use_identity_tokens": False, "output_type": "pt"}
    videos = [
        pipeline(
            "smile", identity_inputs=who, height=32, width=48, generator=torch.Generator().manual_seed(0), **call
        ).frames
        for who in (person, None)
    ]
    assert videos[0].shape == (1, 1, 3, 32, 48)
    assert (videos[0] - videos[1]).abs().max() > 1e-3
    with pytest.raises(InvalidRequestError, match="must have the video's size, 48x32"):
        pipeline("smile", identity_inputs=tiny_person(), height=32, width=48, **call)
