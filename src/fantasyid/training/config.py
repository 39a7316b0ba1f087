"""Settings of a training stage, read from a preset file: one class for each objective and stage.

Those of networks stand in `network_config`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from fantasyid.training.network_config import (
    Count,
    Fraction,
    IdentityEncoderConfig,
    ReaderConfig,
    Strict,
    TransformerConfig,
    VaeConfig,
    VisionConfig,
    Weight,
)


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
    noised_reference: Fraction = 0.0
    """Fraction of samples whose reference was noised before it was encoded; CogVideoX-I2V and ConsisID have 1."""
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
    tensorboard: bool = False
    """Whether TensorBoard's files are written beside the log."""
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
            "objective.noised_reference": self.objective.noised_reference,
            "model.reference_in_all_frames": self.model.reference_in_all_frames,
        }
        for name, is_asked in asked.items():
            if is_asked and self.model.in_channels == self.model.out_channels:
                raise ValueError(
                    f"{name} needs a base that takes a reference, and model.in_channels is out_channels; leave it out"
                )
        return self

    @model_validator(mode="after")
    def _noised_references_are_read(self) -> "VideoStage":
        if self.objective.noised_reference and self.pools_on == "device":
            raise ValueError(
                "objective.noised_reference is read from the disk, and pools_on is device; set that to disk, or leave "
                "the other out"
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
