"""Tiny configs of the real models, for tests, in evaluation mode; weights are random and the same at every call."""

from itertools import pairwise
from typing import Any

import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import Tensor, nn

from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.injection import LayerAwareFeature
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.models.vision import FaceVisionModel

BASE_CONFIG: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 8,
    "out_channels": 4,
    "time_embed_dim": 12,
    "text_embed_dim": 20,
    "num_layers": 3,
    "sample_width": 4,
    "sample_height": 6,
    "sample_frames": 9,
    "patch_size": 1,
    "max_text_seq_length": 6,
    "use_rotary_positional_embeddings": True,
}
IDENTITY_CONFIG: dict[str, Any] = {"identity_token_dim": 24, "injection_dim": 16, "injection_heads": 2}


def seeded(build: type[nn.Module], seed: int = 0, **config: Any) -> Any:
    """Build a model in evaluation mode, with weights drawn from `seed`, leaving the global random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(**config).eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Gaussian noise drawn from `seed`."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny_base(**overrides: Any) -> CogVideoXTransformer3DModel:
    """CogVideoX's own transformer, tiny."""
    return seeded(CogVideoXTransformer3DModel, **{**BASE_CONFIG, **overrides})


def tiny_transformer(**overrides: Any) -> FantasyIDTransformer3DModel:
    """Our transformer with an untrained injection, tiny."""
    return seeded(FantasyIDTransformer3DModel, **{**BASE_CONFIG, **IDENTITY_CONFIG, **overrides})


def open_injection(model: nn.Module, seed: int = 1) -> None:
    """Give the zero-initialised gains of an injection, and its identity kernels, random values, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, LayerAwareFeature):
            nn.init.normal_(module.norm.weight, generator=generator)
            nn.init.normal_(module.norm.bias, generator=generator)
            nn.init.normal_(module.conv.weight, std=0.3, generator=generator)
    gain = getattr(model, "injection_gain", None)
    if gain is not None:
        nn.init.constant_(gain, 0.7)


def tiny_transformer_inputs(batch_size: int = 2, num_frames: int = 3) -> dict[str, Any]:
    """Inputs of `tiny_transformer`, without identity: latents, text, timesteps, rotary code."""
    height, width = BASE_CONFIG["sample_height"], BASE_CONFIG["sample_width"]
    rotary = get_3d_rotary_pos_embed(
        BASE_CONFIG["attention_head_dim"], ((0, 0), (height, width)), (height, width), num_frames
    )
    return {
        "hidden_states": noise(batch_size, num_frames, BASE_CONFIG["in_channels"], height, width, seed=2),
        "encoder_hidden_states": noise(batch_size, 6, BASE_CONFIG["text_embed_dim"], seed=3),
        "timestep": torch.arange(batch_size) * 300 + 100,
        "image_rotary_emb": rotary,
    }


def tiny_hierarchy(levels: tuple[int, ...], spiral_length: int, seed: int = 0) -> dict[str, Any]:
    """A mesh hierarchy of random neighbours, as arguments of `IdentityEncoder.set_hierarchy`."""
    generator = torch.Generator().manual_seed(seed)

    def indices(fine: int, rows: int, columns: int) -> Tensor:
        return torch.randint(fine, (rows, columns), generator=generator)

    def weights(rows: int) -> Tensor:
        return torch.rand(rows, 3, generator=generator).softmax(dim=-1)

    return {
        "spirals": [indices(count, count, spiral_length) for count in levels],
        "down": [(indices(fine, coarse, 3), weights(coarse)) for fine, coarse in pairwise(levels)],
        "template": 8.0 * torch.randn(levels[0], 3, generator=generator),
        "topology_hash": "tiny",
    }


def tiny_identity_encoder(with_mesh: bool = True, **overrides: Any) -> IdentityEncoder:
    """The identity encoder, tiny, for 60 vertices and a 4 x 4 grid of 32-wide face tokens."""
    config = {
        "face_dim": 32,
        "grid_size": 4,
        "pool_factor": 2,
        "hidden_dim": 64,
        "num_layers": 2,
        "token_dim": 24,
        "levels": (60, 20, 7),
        "spiral_length": 5,
        "spiral_channels": (8, 16),
        **overrides,
    }
    encoder: IdentityEncoder = seeded(IdentityEncoder, **config)
    if with_mesh and encoder.config.use_vertices:
        encoder.set_hierarchy(**tiny_hierarchy(config["levels"], config["spiral_length"]))
    return encoder


def tiny_face_vision(**overrides: Any) -> FaceVisionModel:
    """The face vision net, tiny: 32-pixel crops to a 4 x 4 grid of 32-wide tokens."""
    config = {"image_size": 32, "width": 32, "num_layers": 2, "num_heads": 2, "embedding_dim": 16, **overrides}
    return seeded(FaceVisionModel, **config)


def tiny_face_reader_model(**overrides: Any) -> FaceReaderModel:
    """The face reader's net, tiny: 32-pixel crops."""
    config = {
        "image_size": 32,
        "channels": (8, 16, 16),
        "landmark_channels": 8,
        "landmark_width": 16,
        "head_channels": 8,
        "head_width": 32,
        **overrides,
    }
    return seeded(FaceReaderModel, **config)
