"""Networks at their true sizes, or tiny, with random weights made where they are used.

The weights are normal and scaled by their number of inputs, so that every layer matters and nothing overflows. Nothing
is downloaded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeVar

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDPMScheduler,
    CogVideoXTransformer3DModel,
    ConsisIDTransformer3DModel,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from fantasyid.conditioning.identity import IdentityInputs
from fantasyid.conditioning.latents import rotary_embedding
from fantasyid.models.eva_vision import EvaVisionModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from fantasyid.pipelines.options import Acceleration

Model = TypeVar("Model", bound=nn.Module)
Kind = Literal["paper", "released"]
EXACT = Acceleration(compile=True, attention="auto", tune=True)
"""All that makes a step faster without approximation."""


@dataclass(frozen=True)
class Size:
    """What the networks and their inputs measure."""

    base: dict[str, Any]
    """CogVideoX-5B-I2V's transformer."""
    identity: dict[str, Any]
    """What our transformer has beyond it: the paper's injection."""
    released: dict[str, Any]
    """The same for the authors' released checkpoint."""
    consisid: dict[str, Any]
    """What ConsisID's has beyond it."""
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    identity_encoder: dict[str, Any]
    face_vision: dict[str, Any]
    identity_tokens: int
    released_tokens: int
    face_patches: int
    """Tokens of each of the five levels that ConsisID's extractor reads."""


TRUE_SIZE = Size(
    base={
        "num_attention_heads": 48,
        "num_layers": 42,
        "in_channels": 32,
        "out_channels": 16,
        "use_rotary_positional_embeddings": True,
        "use_learned_positional_embeddings": True,
    },
    # The paper gives no widths. W_q sees every token at every step, so queries are half as wide as the values.
    identity={"identity_token_dim": 3072, "injection_heads": 24, "injection_query_dim": 1536},
    released={
        "injection_kind": "released",
        "identity_token_dim": 2048,
        "injection_dim": 2048,
        "injection_heads": 16,
    },
    consisid={"is_train_face": True},
    vae={
        "block_out_channels": (128, 256, 256, 512),
        "layers_per_block": 3,
        "latent_channels": 16,
        "down_block_types": ("CogVideoXDownBlock3D",) * 4,
        "up_block_types": ("CogVideoXUpBlock3D",) * 4,
        "scaling_factor": 0.7,
        "invert_scale_latents": True,
    },
    text_encoder={
        "d_model": 4096,
        "d_ff": 10240,
        "d_kv": 64,
        "num_heads": 64,
        "num_layers": 24,
        "vocab_size": 32128,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
    identity_encoder={
        "face_dim": 1024,
        "grid_size": 24,
        "pool_factor": 4,
        "hidden_dim": 512,
        "token_dim": 3072,
        "levels": (5023, 1256, 314),
    },
    face_vision={},
    identity_tokens=314,
    released_tokens=115,
    face_patches=577,
)
TINY = Size(
    base={
        **TRUE_SIZE.base,
        "num_attention_heads": 4,
        "attention_head_dim": 16,
        "num_layers": 2,
        "text_embed_dim": 32,
        "sample_width": 8,
        "sample_height": 8,
        "sample_frames": 9,
        "max_text_seq_length": 6,
    },
    identity={"identity_token_dim": 24, "injection_heads": 2, "injection_query_dim": 32},
    released={
        "injection_kind": "released",
        "identity_token_dim": 16,
        "injection_dim": 32,
        "injection_heads": 2,
    },
    consisid={
        "is_train_face": True,
        "cross_attn_dim_head": 8,
        "cross_attn_num_heads": 2,
        "LFE_id_dim": 16,
        "LFE_vit_dim": 16,
        "LFE_output_dim": 42,
        "LFE_num_querie": 4,
    },
    vae={**TRUE_SIZE.vae, "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 2},
    text_encoder={**TRUE_SIZE.text_encoder, "d_model": 32, "d_ff": 16, "d_kv": 8, "num_heads": 4, "num_layers": 1},
    identity_encoder={
        "face_dim": 32,
        "grid_size": 4,
        "pool_factor": 2,
        "hidden_dim": 64,
        "num_layers": 2,
        "token_dim": 24,
        "levels": (60, 20, 7),
    },
    face_vision={
        "image_size": 16,
        "patch_size": 4,
        "width": 32,
        "num_heads": 2,
        "num_layers": 1,
        "feed_forward_width": 16,
        "pretrained_grid": 4,
    },
    identity_tokens=7,
    released_tokens=5,
    face_patches=10,
)


@torch.no_grad()
def random_model(build: Callable[[], Model], device: torch.device, dtype: torch.dtype, seed: int = 0) -> Model:
    """Build a network with random weights straight on a device, in seconds at any size.

    Args:
        build: Makes the network.
        device: Where it is made.
        dtype: Type of its parameters.
        seed: Where the weights are drawn from.

    Returns:
        The network, in evaluation mode and without gradients.
    """
    with torch.device("meta"):
        model = build()
    model = model.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(seed)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 2500
            tensor.normal_(std=fan_in**-0.5, generator=generator)
            if tensor.ndim == 1 and "norm" in name and name.endswith("weight"):
                tensor.add_(1)
    return model


def our_transformer(
    size: Size, device: torch.device, dtype: torch.dtype, kind: Kind = "paper"
) -> FantasyIDTransformer3DModel:
    """Our transformer with the paper's injection, open, or the released one."""
    config = size.base | (size.identity if kind == "paper" else size.released)
    return random_model(lambda: FantasyIDTransformer3DModel(**config), device, dtype)


def cogvideox_transformer(size: Size, device: torch.device, dtype: torch.dtype) -> CogVideoXTransformer3DModel:
    """Diffusers' CogVideoX-5B-I2V."""
    return random_model(lambda: CogVideoXTransformer3DModel(**size.base), device, dtype)


def consisid_transformer(size: Size, device: torch.device, dtype: torch.dtype) -> ConsisIDTransformer3DModel:
    """Diffusers' ConsisID."""
    return random_model(lambda: ConsisIDTransformer3DModel(**size.base, **size.consisid), device, dtype)


def video_vae(size: Size, device: torch.device, dtype: torch.dtype) -> AutoencoderKLCogVideoX:
    """CogVideoX's VAE."""
    return random_model(lambda: AutoencoderKLCogVideoX(**size.vae), device, dtype)


def text_encoder(size: Size, device: torch.device, dtype: torch.dtype) -> T5EncoderModel:
    """The encoder of T5-XXL (version 1.1)."""
    model = random_model(lambda: T5EncoderModel(T5Config(**size.text_encoder)), device, dtype)
    model.tie_weights()
    return model


def identity_encoder(size: Size, device: torch.device, dtype: torch.dtype) -> IdentityEncoder:
    """The paper's identity encoder on a random mesh of FLAME's size."""
    model = random_model(lambda: IdentityEncoder(**size.identity_encoder), device, dtype)
    levels, generator = model.config.levels, torch.Generator().manual_seed(0)
    model.set_hierarchy(
        spirals=[torch.randint(n, (n, model.config.spiral_length), generator=generator) for n in levels],
        down=[
            (torch.randint(fine, (coarse, 3), generator=generator), torch.full((coarse, 3), 1 / 3))
            for fine, coarse in pairwise(levels)
        ],
        template=torch.randn(levels[0], 3, generator=generator),
        topology_hash="benchmark",
    )
    return model


def whole_pipeline(
    size: Size, device: torch.device, dtype: torch.dtype, has_text_encoder: bool = True
) -> FantasyIDPipeline:
    """The full-size pipeline on a device, with all its networks or all but the text encoder."""
    words = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    pipeline = FantasyIDPipeline(
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]"),
        text_encoder=text_encoder(size, device, dtype) if has_text_encoder else None,
        vae=video_vae(size, device, dtype),
        transformer=our_transformer(size, device, dtype),
        scheduler=CogVideoXDPMScheduler(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            snr_shift_scale=1.0,
            timestep_spacing="trailing",
        ),
        identity_encoder=identity_encoder(size, device, torch.float32),
        face_vision=random_model(lambda: EvaVisionModel(**size.face_vision), device, torch.float32),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def denoise(
    pipeline: FantasyIDPipeline, size: Size, device: torch.device, steps: int, **options: object
) -> torch.Tensor:
    """Make a video's latents from text states, a person's pictures and noise that are the same at every call."""
    states = step_inputs(size, device, pipeline.transformer.dtype)["encoder_hidden_states"]
    latents = pipeline(
        prompt_embeds=states[:1],
        negative_prompt_embeds=states[1:],
        identity_inputs=random_person(pipeline),
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        **options,
    ).frames
    assert isinstance(latents, torch.Tensor)
    assert latents.isfinite().all()
    return latents


def random_person(pipeline: FantasyIDPipeline) -> IdentityInputs:
    """A person for `whole_pipeline`."""
    generator = torch.Generator().manual_seed(3)
    config, factor, side = pipeline.transformer.config, 8, pipeline.face_vision.config.image_size
    shapes = (3, config.sample_height * factor, config.sample_width * factor), (3, side, side)
    images = [torch.randn(1, *shape, generator=generator).clamp(-1, 1) for shape in shapes]
    vertices = pipeline.identity_encoder.vertex_encoder.template[None].cpu()
    return IdentityInputs(*images, vertices, topology_hash="benchmark")


def step_inputs(size: Size, device: torch.device, dtype: torch.dtype, batch_size: int = 2) -> dict[str, Any]:
    """Inputs of one denoising step of the base, both branches of guidance in one batch.

    Args:
        size: Of the network.
        device: Where they are made.
        dtype: Of the network.
        batch_size: 2 with guidance.

    Returns:
        Arguments of the transformer, without identity.
    """
    config = FantasyIDTransformer3DModel(**{**size.base, "num_layers": 0}).config
    frames = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
    height, width = config.sample_height, config.sample_width
    generator = torch.Generator(device).manual_seed(1)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=dtype)

    return {
        "hidden_states": noise(batch_size, frames, config.in_channels, height, width),
        "encoder_hidden_states": noise(batch_size, config.max_text_seq_length, config.text_embed_dim),
        "timestep": torch.full((batch_size,), 500, device=device),
        "image_rotary_emb": rotary_embedding(config, frames, height, width, device),
        "return_dict": False,
    }


def identity_tokens(
    size: Size, device: torch.device, dtype: torch.dtype, batch_size: int = 2, kind: Kind = "paper"
) -> torch.Tensor:
    """Identity tokens for `our_transformer`."""
    if kind == "paper":
        shape = (batch_size, size.identity_tokens, size.identity["identity_token_dim"])
    else:
        shape = (batch_size, size.released_tokens, size.released["identity_token_dim"])
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(2), device=device, dtype=dtype)


def consisid_inputs(size: Size, device: torch.device, dtype: torch.dtype, batch_size: int = 2) -> dict[str, Any]:
    """What ConsisID's transformer is told about the person."""
    generator = torch.Generator(device).manual_seed(2)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=dtype)

    vit_dim, id_dim = size.consisid.get("LFE_vit_dim", 1024), size.consisid.get("LFE_id_dim", 1280)
    levels = [noise(batch_size, size.face_patches, vit_dim) for _ in range(5)]
    return {"id_cond": noise(batch_size, id_dim), "id_vit_hidden": levels}
