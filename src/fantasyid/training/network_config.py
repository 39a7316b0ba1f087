"""What a preset says of networks, one class for each.

Every field has the default of what it sets. Unknown fields are refused, also by diffusers' networks, which would ignore
them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fantasyid.models.injection import InjectionKind

Count = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Finite numbers and known fields alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """What to write in the place of fields that there were once."""

    @model_validator(mode="before")
    @classmethod
    def _only_known_fields(cls, content: Any) -> Any:
        if isinstance(content, dict) and (unknown := sorted({str(name) for name in content} - set(cls.model_fields))):
            if unknown[0] in cls.renamed:
                raise ValueError(f"{unknown[0]} is no field any more; write {cls.renamed[unknown[0]]}")
            allowed = ", ".join(cls.model_fields) or "none"
            raise ValueError(f"there is no field {unknown[0]}; allowed are {allowed}")
        return content


class VaeConfig(Strict):
    """Diffusers' `AutoencoderKLCogVideoX`."""

    in_channels: Count = 3
    """Of a picture."""
    out_channels: Count = 3
    """Of a decoded picture."""
    down_block_types: tuple[Literal["CogVideoXDownBlock3D"], ...] = ("CogVideoXDownBlock3D",) * 4
    """One for each of `block_out_channels`."""
    up_block_types: tuple[Literal["CogVideoXUpBlock3D"], ...] = ("CogVideoXUpBlock3D",) * 4
    """One for each of `block_out_channels`."""
    block_out_channels: tuple[Count, ...] = (128, 256, 256, 512)
    """Channels at each resolution; each but the last halves the picture's size."""
    latent_channels: Count = 16
    """Channels of a latent."""
    layers_per_block: Count = 3
    """Residual blocks at each resolution."""
    norm_num_groups: Count = 32
    """Of the group norms; divides all channels."""
    temporal_compression_ratio: Count = 4
    """Frames a latent; 1 keeps them apart."""
    sample_height: Count = 480
    """Pixels."""
    sample_width: Count = 720
    """Pixels."""


class VisionConfig(Strict):
    """`models.vision.FaceVisionModel`."""

    image_size: Count = 96
    """Side of the crop in pixels."""
    patch_size: Count = 8
    """Pixels per token side; a power of two that divides `image_size`."""
    width: Count = 192
    """Channels of the tokens."""
    num_layers: Count = 6
    """Transformer blocks."""
    num_heads: Count = 3
    """Attention heads; divides `width`."""
    embedding_dim: Count = 128
    """Length of the identity embedding."""


class ReaderConfig(Strict):
    """`models.face_reader.FaceReaderModel`."""

    image_size: Count = 128
    """Side of the crop in pixels."""
    channels: tuple[Count, ...] = (32, 64, 128, 192, 256)
    """Of the stem and of each stage, multiples of 8."""
    landmark_channels: Count = 16
    """Kept per position for the landmarks; a multiple of 8."""
    landmark_width: Count = 224
    """Of the hidden layer before the points."""
    head_channels: Count = 64
    """Kept per position of the last map; a multiple of 8."""
    head_width: Count = 384
    """Of the hidden layer before shape, expression, pose and confidence."""
    head_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of that layer's inputs that training drops."""
    identity_dim: Count = 60
    """Identity coefficients."""
    expression_dim: Count = 52
    """Expression coefficients."""


class TransformerConfig(Strict):
    """`models.transformer.FantasyIDTransformer3DModel`: CogVideoX's fields, and those of the injection."""

    renamed: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"use_layer_aware": "injection_kind, which is paper_without_layers where it was false"}
    )

    num_attention_heads: Count = 30
    """Heads of the joint attention."""
    attention_head_dim: Count = 64
    """Width of a head."""
    in_channels: Count = 16
    """Channels of noise and reference together; a base with `out_channels` alone takes no reference."""
    out_channels: Count = 16
    """Channels of a latent."""
    time_embed_dim: Count = 512
    """Width of the time's embedding."""
    ofs_embed_dim: Count | None = None
    """Width of the embedding of CogVideoX-1.5-I2V's offset; None for a base that is told none."""
    text_embed_dim: Count = 4096
    """Width of the text states."""
    num_layers: Count = 30
    """Blocks."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of attention and feed-forward layers."""
    sample_width: Count = 90
    """Of the latents."""
    sample_height: Count = 60
    """Of the latents."""
    sample_frames: Count = 49
    """Frames of a clip."""
    patch_size: Count = 2
    """Latents per token side."""
    patch_size_t: Count | None = None
    """Latent frames per token; None is CogVideoX's own patching, one frame."""
    temporal_compression_ratio: Count = 4
    """The VAE's."""
    max_text_seq_length: Count = 226
    """Tokens of a prompt."""
    use_rotary_positional_embeddings: bool = False
    """Rotary codes in place of added ones."""
    use_learned_positional_embeddings: bool = False
    """Added codes that are weights, beside the rotary ones: CogVideoX-5B-I2V's."""
    patch_bias: bool = True
    """Of the patch embedding; CogVideoX 1.5 has none."""
    identity_token_dim: Count | None = None
    """Width of the identity tokens; None builds no injection."""
    injection_dim: Count | None = None
    """Width of the injection's values; None is the transformer's own."""
    injection_query_dim: Count | None = None
    """Width of its queries and keys; None is `injection_dim`."""
    injection_heads: Count | None = None
    """Heads of the injection; None is as many as the transformer's."""
    injection_interval: Count = 1
    """Inject after every so many blocks."""
    injection_kind: InjectionKind = "paper"
    """The paper's injection, that without layer-aware features (an ablation), or the released checkpoint's."""
    reference_in_all_frames: bool = False
    """The reference latent stands beside every frame; False is beside the first alone, as CogVideoX-I2V has it."""


class IdentityEncoderConfig(Strict):
    """`models.identity_encoder.IdentityEncoder` on the built-in mesh; identity_token_dim is its token_dim."""

    face_dim: Count = 192
    """Width of the face tokens."""
    grid_size: Count = 12
    """Side of the grid of face tokens."""
    pool_factor: Count = 2
    """Downsampling of the grid per side."""
    hidden_dim: int = Field(default=128, gt=0, multiple_of=64)
    """Width of fusion."""
    num_layers: Count = 6
    """Of the fusion transformer."""
    abstractor: Literal["c-abstractor", "q-former"] = "c-abstractor"
    """The q-former is the ablation without the facial abstractor."""
    use_vertices: bool = True
    """False for the ablation without vertices."""
    spiral_channels: tuple[Count, ...] = (32, 64)
    """Channels on every level of the mesh but the last."""
    centre: bool = False
    """Whether what people have in common is taken out of the tokens."""
