"""A tiny pipeline of the real classes, for videos of 32 x 32 pixels and 9 frames."""

from functools import cache
from typing import Any

from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler
from transformers import BertConfig, BertModel

from fantasyid.conditioning.identity import IdentityInputs
from fantasyid.conditioning.text import load_text_encoder
from fantasyid.models.frame_vae import forget_older_frames
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from tests.tiny import (
    noise,
    open_injection,
    seeded,
    tiny_face_reader_model,
    tiny_face_vision,
    tiny_hierarchy,
    tiny_identity_encoder,
    tiny_transformer,
)

SCHEDULER_CONFIG = {
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 1.0,
    "timestep_spacing": "trailing",
}


def tiny_vae() -> AutoencoderKLCogVideoX:
    """The video VAE, tiny: 8 times smaller in space, 4 times in time, 4 latent channels."""
    return seeded(
        AutoencoderKLCogVideoX,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.7,
    ).eval()


def tiny_frame_vae(**overrides: Any) -> AutoencoderKLCogVideoX:
    """The VAE of single frames, tiny: 4 times smaller in space, 4 latent channels with statistics of their own."""
    config = {
        "down_block_types": ("CogVideoXDownBlock3D",) * 3,
        "up_block_types": ("CogVideoXUpBlock3D",) * 3,
        "block_out_channels": (4, 4, 8),
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "temporal_compression_ratio": 1,
        "latents_mean": (0.1, -0.2, 0.0, 0.3),
        "latents_std": (0.5, 1.0, 2.0, 0.25),
        **overrides,
    }
    vae: AutoencoderKLCogVideoX = seeded(AutoencoderKLCogVideoX, **config)
    forget_older_frames(vae)
    return vae


def tiny_pipeline_transformer(**overrides: Any) -> Any:
    """A transformer for `tiny_pipeline`, its injection open."""
    transformer = tiny_transformer(**{"sample_width": 4, "sample_height": 4, "max_text_seq_length": 12, **overrides})
    open_injection(transformer)
    return transformer.eval()


@cache
def minilm_tokenizer() -> Any:
    """The built-in text encoder's tokenizer; tokenizers keep no state, so one serves all tests."""
    return load_text_encoder()[0]


def tiny_pipeline(**components: Any) -> FantasyIDPipeline:
    """A whole pipeline: real tokenizer, random weights, components replaced as asked."""
    text_config = BertConfig(hidden_size=20, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    defaults = {
        "tokenizer": minilm_tokenizer(),
        "text_encoder": seeded(BertModel, config=text_config).eval(),
        "vae": tiny_vae(),
        "transformer": tiny_pipeline_transformer(),
        "scheduler": CogVideoXDDIMScheduler(**SCHEDULER_CONFIG),
        "identity_encoder": tiny_identity_encoder().eval(),
        "face_vision": tiny_face_vision().eval(),
        "face_reader_model": tiny_face_reader_model().eval(),
        "guidance_drops_identity": True,
        "default_num_inference_steps": 3,
        "default_guidance_scale": 3.0,
    }
    pipeline = FantasyIDPipeline(**{**defaults, **components})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_person(seed: int = 0, people: int = 1, topology_hash: str = "tiny") -> IdentityInputs:
    """People for `tiny_pipeline`, who differ from its mean head by millimetres."""
    mean_head = tiny_hierarchy((60, 20, 7), 5)["template"]
    return IdentityInputs(
        reference_image=noise(people, 3, 32, 32, seed=seed).clamp(-1, 1),
        face_crop=noise(people, 3, 32, 32, seed=seed + 1).clamp(-1, 1),
        vertices=mean_head + 0.5 * noise(people, 60, 3, seed=seed + 2),
        topology_hash=topology_hash,
    )
