"""Settings of a training stage, read from a preset file: one class for each network, objective and stage.

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


class OptimiserConfig(Strict):
    """How weights are changed."""

    steps: Count
    """Steps taken; the learning rate falls to zero at their end."""
    batch_size: Count
    """Samples a step, of all processes together."""
    learning_rate: float = Field(gt=0)
    """Peak, after the warm-up."""
    method: Literal["adamw", "muon"] = "adamw"
    """AdamW; or Muon for the matrices of the transformer's blocks, each change as large as AdamW's, and AdamW for the
    rest. The stages pairs and clips have Muon."""
    warmup_steps: int = Field(default=200, ge=0)
    """Steps of linear warm-up."""
    cooldown: float = Field(default=1.0, gt=0, le=1)
    """Last part of the run over which a cosine takes the learning rate to zero, 0 to 1; 1 is a plain cosine."""
    cycles: Count = 1
    """How often it does so within that part, from the peak each time: a cosine with restarts."""
    beta2: float = Field(default=0.99, gt=0, lt=1)
    """AdamW's, of the squared gradients' average."""
    weight_decay: Weight = 0.01
    """AdamW's, on weights with two dimensions or more."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Of the averaged weights, which are the result."""
    accumulation: Count = 1
    """In how many parts, one after another, each process computes its samples of a step."""
    spike_factor: float | None = Field(default=None, gt=1)
    """A gradient's norm above so many times the median of the last 200 steps' leaves the update out; None takes all."""
    save_every: Count = 1000
    """Steps between checkpoints; the last three are kept."""
    compile: bool = False
    """torch.compile, per repeated block where the model has them; the stages vae, decoder, pairs and clips have it."""


GroupName = Literal["identity_encoder", "injection_gain", "injection", "patch_embed", "base", "base_lora"]
"""Weights of the video model. The injection has its zero-initialised gains too (F_l's norms, or the one that layers
share), and the base the patch embedding, unless a group before takes them."""


class GroupConfig(Strict):
    """Weights that are trained with a rate of their own."""

    weights: GroupName
    """Which."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak; the optimiser's when None."""
    weight_decay: Weight | None = None
    """The optimiser's when None."""


class LoraConfig(Strict):
    """A LoRA of the base's attention, trained by the group base_lora."""

    rank: Count
    """Of each matrix's change."""
    alpha: float = Field(gt=0)
    """The change is alpha / rank of the product of its two factors."""


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


class TokenConfig(Strict):
    """What the encoder's tokens must fit."""

    identity_token_dim: Count
    """Their width, as the transformer's."""


class VaeObjectiveConfig(Strict):
    """`objectives.vae.VaeObjective`."""

    edge_weight: Weight = 1.0
    """Of the edge loss."""
    vision_weight: Weight = 0.1
    """Of the distance between what the vision model sees."""
    size_weight: Weight = 1e-4
    """Of the latents' mean square."""
    noise: Weight = 0.1
    """Largest standard deviation of noise on the latents."""
    half_share: Fraction = 0.25
    """Fraction of the pictures that are also asked for at half size."""


class VisionObjectiveConfig(Strict):
    """`objectives.vision.VisionObjective`."""

    real_share: Fraction = 0.1
    """Fraction of pairs that are photos."""
    temperature: float = Field(default=0.07, gt=0)
    """Of the softmax over people."""


class ReaderObjectiveConfig(Strict):
    """`objectives.reader.ReaderObjective`."""

    real_share: Fraction = 0.25
    """Fraction of crops that are photos."""
    other_share: Fraction = 0.125
    """Crops that show no face, over the batch size."""
    real_weight: Weight = 0.3
    """Of fitted answers against known ones."""
    temperature: float = Field(default=0.1, gt=0)
    """Of the softmax over cosines."""
    near: float = Field(default=0.35, gt=0)
    """Distance, over the batch's mean, at which the softmax over distances falls by a factor of e."""
    identity_weight: Weight = 6.0
    """Of the shape's distance in cm."""
    prior_weight: Weight = 0.1
    """Of the coefficients' squared error."""
    contrast_weight: Weight = 0.3
    """Of telling people apart."""
    expression_weight: Weight = 4.0
    """Of the expression's distance in cm."""
    pose_weight: Weight = 1.0
    """Of the angles' error in units of 10 degrees."""
    confidence_weight: Weight = 0.3
    """Of faces against other pictures."""


class EncoderObjectiveConfig(Strict):
    """`objectives.encoder.EncoderObjective`, and the encoder it teaches."""

    identity_encoder: IdentityEncoderConfig = IdentityEncoderConfig()
    """The encoder that is taught."""
    temperature: float = Field(default=0.07, gt=0)
    """Of the softmax over people."""
    contrast_weight: Weight = 0.1
    """Of telling people apart."""
    shape_weight: Weight = 0.5
    """Of the coarse vertices' error in cm."""
    shape_noise: Weight = 0.2
    """Standard deviation added to the known head shape."""
    drift_weight: Weight = 0.01
    """Of what keeps the tokens from running away."""


class VideoObjectiveConfig(Strict):
    """`objectives.video.VideoObjective`, and the encoder beside the transformer."""

    renamed: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"freeze_base": "the stage's groups, which name what is trained: identity_encoder and injection"}
    )

    identity_encoder: IdentityEncoderConfig = IdentityEncoderConfig()
    """The encoder, where the transformer has an injection."""
    drop_text: Fraction = 0.1
    """Fraction of samples with the empty prompt."""
    drop_reference: Fraction = 0.1
    """Fraction of samples without the reference latent."""
    drop_identity: Fraction = 0.1
    """Fraction of samples without identity tokens."""
    drop_all: Fraction = 0.05
    """Fraction of samples with none of the three."""
    views: Literal["any", "first"] = "any"
    """Which of a clip's views the person is shown by; "first" is the ablation without multi-view collections."""
    shape_noise: Weight = 0.2
    """Standard deviation added to the known head shape."""
    drift_weight: Weight = 0.01
    """Of what keeps the tokens from running away."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """What the transformer computes in; noise, loss and identity encoder always have float32."""


class StageConfig(Strict):
    """What all stages have."""

    optimiser: OptimiserConfig
    """How weights are changed."""
    seed: int = Field(default=0, ge=0)
    """Of initial weights, batches and noise."""
    has_blocks: ClassVar[bool] = False
    """Whether a transformer is trained, whose matrices Muon can change."""

    @model_validator(mode="after")
    def _has_matrices_for_muon(self) -> "StageConfig":
        if self.optimiser.method == "muon" and not self.has_blocks:
            raise ValueError("optimiser.method muon is for a transformer's blocks, and here are none; leave it out")
        return self


class UncompiledStage(StageConfig):
    """What the stages without torch.compile have."""

    @model_validator(mode="after")
    def _is_not_compiled(self) -> "UncompiledStage":
        if self.optimiser.compile:
            raise ValueError("optimiser.compile is true, and this stage compiles nothing; leave it out")
        return self


class ReaderStage(UncompiledStage):
    """The face reader."""

    stage: Literal["reader"]
    """Its name."""
    model: ReaderConfig
    """The network."""
    objective: ReaderObjectiveConfig = ReaderObjectiveConfig()
    """What it is asked for."""


class VisionStage(UncompiledStage):
    """The face vision network."""

    stage: Literal["vision"]
    """Its name."""
    model: VisionConfig
    """The network."""
    objective: VisionObjectiveConfig = VisionObjectiveConfig()
    """What it is asked for."""


class VaeStage(StageConfig):
    """The VAE, or its decoder alone."""

    stage: Literal["vae", "decoder"]
    """Its name."""
    model: VaeConfig
    """The network."""
    objective: VaeObjectiveConfig = VaeObjectiveConfig()
    """What it is asked for."""


class EncoderStage(UncompiledStage):
    """The identity encoder, taught before the video model meets it."""

    stage: Literal["encoder"]
    """Its name."""
    model: TokenConfig
    """What the encoder's tokens must fit."""
    objective: EncoderObjectiveConfig = EncoderObjectiveConfig()
    """The encoder, and what it is asked for."""


class VideoStage(StageConfig):
    """The video model, on pairs of frames or on clips."""

    has_blocks: ClassVar[bool] = True
    stage: Literal["pairs", "clips"]
    """Its name."""
    model: TransformerConfig
    """The transformer."""
    objective: VideoObjectiveConfig = VideoObjectiveConfig()
    """The encoder, and what both are asked for."""
    snr_shift_scale: float = Field(default=3.0, gt=0)
    """Of the noise levels: CogVideoX-5B and 1.5 have 1, CogVideoX-2B and the built-in model 3."""
    groups: tuple[GroupConfig, ...] = ()
    """What is trained, each weight in the first group that names it; all is, at one rate, where there are none."""
    lora: LoraConfig | None = None
    """A LoRA beside the base, for the group base_lora; None has none."""
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"
    """How matrices are held that are not trained; CogVideoX's come in bfloat16."""
    recompute: Literal["nothing", "blocks", "all_but_attention"] = "nothing"
    """What of the transformer's blocks is computed again for the gradient, to save memory."""
    pools_on: Literal["device", "disk"] = "device"
    """Where the encoded clips lie: all of them beside the model, or on the disk, from which a batch is read."""
    shard_among: Count = 1
    """How many processes share one copy of the transformer's weights (FSDP2); 1 gives each process its own."""

    @model_validator(mode="after")
    def _identity_has_a_place(self) -> "VideoStage":
        if self.model.identity_token_dim is None and self.objective.identity_encoder != IdentityEncoderConfig():
            raise ValueError("objective.identity_encoder needs model.identity_token_dim; set that, or leave it out")
        return self

    @model_validator(mode="after")
    def _reference_has_a_place(self) -> "VideoStage":
        asked = {
            "objective.drop_reference": "drop_reference" in self.objective.model_fields_set
            and self.objective.drop_reference,
            "model.reference_in_all_frames": self.model.reference_in_all_frames,
        }
        for name, is_asked in asked.items():
            if is_asked and self.model.in_channels == self.model.out_channels:
                raise ValueError(
                    f"{name} needs a base that takes a reference, and model.in_channels is out_channels; leave it out"
                )
        return self

    @model_validator(mode="after")
    def _lora_is_trained(self) -> "VideoStage":
        names = {group.weights for group in self.groups}
        if (self.lora is None) == ("base_lora" in names):
            raise ValueError("lora and a group base_lora belong together; give both, or neither")
        if self.lora is not None and names & {"base", "patch_embed"}:
            raise ValueError("a LoRA stands for training the base; leave out lora, or the groups base and patch_embed")
        return self

    @model_validator(mode="after")
    def _matrices_are_whole(self) -> "VideoStage":
        if self.optimiser.method == "muon" and self.shard_among > 1:
            raise ValueError(
                "optimiser.method muon needs whole matrices, and shard_among shares them out; set that to 1, or the "
                "method to adamw"
            )
        return self


AnyStage = ReaderStage | VisionStage | VaeStage | EncoderStage | VideoStage
STAGES: dict[str, type[AnyStage]] = {
    "reader": ReaderStage,
    "vision": VisionStage,
    "vae": VaeStage,
    "decoder": VaeStage,
    "encoder": EncoderStage,
    "pairs": VideoStage,
    "clips": VideoStage,
}
"""The stages in their order, and what a preset of each may say."""
