"""A tiny model that reads real photos."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fantasyid.face.align import READER_SCALE
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.tiny import tiny_face_reader_model, tiny_face_vision, tiny_hierarchy, tiny_identity_encoder
from tests.tiny_pipeline import tiny_pipeline, tiny_pipeline_transformer

Config = Mapping[str, Any]


def tiny_photo_pipeline(
    encoder_config: Config | None = None, transformer_config: Config | None = None
) -> FantasyIDPipeline:
    """A pipeline for 128 x 128 pixels and 9 frames, whose face reader is right enough for a frontal photo."""
    head = HeadModel.load()
    levels = (len(head.mean), 20, 7)
    encoder = tiny_identity_encoder(with_mesh=False, levels=levels, grid_size=12, **(encoder_config or {}))
    if encoder.config.use_vertices:
        mesh = {"template": head.mean, "topology_hash": head.topology.hash}
        encoder.set_hierarchy(**{**tiny_hierarchy(levels, 5), **mesh})
    return tiny_pipeline(
        transformer=tiny_pipeline_transformer(
            sample_width=16, sample_height=16, sample_frames=9, **(transformer_config or {})
        ),
        identity_encoder=encoder.eval(),
        face_vision=tiny_face_vision(image_size=96).eval(),
        face_reader_model=_mean_face_reader(head),
        default_num_inference_steps=2,
    )


def _mean_face_reader(head: HeadModel) -> FaceReaderModel:
    """A face reader that sees the mean frontal face in every crop."""
    points = head.mean[head.landmarks478] * torch.tensor([1.0, -1.0, -1.0])
    low, high = points.amin(dim=0), points.amax(dim=0)
    width, height, _ = (high - low).tolist()
    model: FaceReaderModel = tiny_face_reader_model(image_size=128)
    model.mean_landmarks.copy_((points - (low + high) / 2) / (READER_SCALE * max(height, 1.2 * width)) + 0.5)
    for layer in (model.to_landmarks, model.to_pose, model.to_confidence):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.constant_(model.to_confidence.bias, 10.0)
    return model.eval()
