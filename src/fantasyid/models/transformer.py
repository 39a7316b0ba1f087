"""The video transformer: CogVideoX's, with identity tokens injected after its blocks (paper 3.5)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.hooks import FasterCacheConfig
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  diffusers looks for it here when loading a pipeline
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock, CogVideoXTransformer3DModel
from diffusers.utils import apply_lora_scale
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from fantasyid.core.errors import CorruptWeightsError, InvalidRequestError
from fantasyid.core.upstream import ContextParallelInput, ContextParallelOutput, register_block, run_checkpointed
from fantasyid.models.injection import (
    INJECTIONS,
    IdentityInjection,
    IdentityKeyValues,
    InjectionKind,
    current_fields,
)
from fantasyid.models.joint_attention import JointAttnProcessor
from fantasyid.models.offloading import bring_in_for_projection


class FantasyIDBlock(CogVideoXBlock):
    """An MM-DiT block of CogVideoX with Eq. 2 at its end.

    The injection lies inside the block, so that whatever diffusers does per block (compilation, checkpointing,
    offloading, first-block caching) treats the two as one.

    Args:
        injection: What the block adds to its video tokens; None leaves CogVideoX's block.
        block_config: Arguments of `CogVideoXBlock`.
    """

    def __init__(self, injection: IdentityInjection | None, **block_config: Any) -> None:
        super().__init__(**block_config)
        self.attn1.set_processor(JointAttnProcessor())
        self.injection = injection

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        identity_key: Tensor | None = None,
        identity_value: Tensor | None = None,
        identity_scale: Tensor | None = None,
        token_grid: tuple[int, int, int] | None = None,
        identity_tokens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run CogVideoX's block, then add the identity to the video tokens.

        Args:
            hidden_states: Video tokens (B, T * H * W, dim).
            encoder_hidden_states: Text tokens (B, L, dim).
            temb: Time embedding (B, time_embed_dim).
            image_rotary_emb: Rotary code of the video tokens, cosine and sine, each (T * H * W, head_dim).
            attention_kwargs: Passed to the attention processor.
            identity_key: (B, heads, N, head_dim); None injects nothing.
            identity_value: (B, heads, N, head_dim).
            identity_scale: Strength per sample (B, 1, 1).
            token_grid: T, H and W.
            identity_tokens: (B, N, identity_token_dim), in the place of key and value, which the block then computes.

        Returns:
            Video tokens and text tokens, shaped as they came.
        """
        hidden_states, encoder_hidden_states = super().forward(
            hidden_states, encoder_hidden_states, temb, image_rotary_emb, attention_kwargs
        )
        if identity_key is not None or identity_tokens is not None:
            assert self.injection is not None, "identity was given to a block that injects none"
            if identity_tokens is not None:
                identity_key, identity_value = self.injection.project(identity_tokens)
            injected = self.injection(hidden_states, identity_key, identity_value, token_grid)
            hidden_states = hidden_states + identity_scale * injected
        return hidden_states, encoder_hidden_states


def is_injected(name: str) -> bool:
    """Whether a weight of this name is of what we add to CogVideoX's transformer."""
    return "injection" in name


class FantasyIDTransformer3DModel(CogVideoXTransformer3DModel):
    """CogVideoX's transformer with layer-aware identity injection.

    Key names of the base are CogVideoX's, so its weights load unchanged; every key added has "injection" in its name.
    Without identity, or with an untrained injection, the output equals CogVideoX's bit for bit.

    Args (beyond those of `CogVideoXTransformer3DModel`):
        identity_token_dim: Width of the identity tokens; None builds no injection at all.
        injection_dim: Width of the identity attention's values; the transformer's own width when None.
        injection_query_dim: Width of its queries and keys; `injection_dim` when None.
        injection_heads: Heads of the identity attention; as many as the transformer's when None.
        injection_interval: Inject after blocks 0, interval, 2 * interval, ...
        injection_kind: "paper"; "paper_without_layers" for one zero-initialised gain in the place of every F_l
            (ablation "w/o LACSI"); "released" for the authors' checkpoint, which has neither and is not silent before
            training.
        reference_in_all_frames: The reference latent stands beside every frame and not beside the first alone, as
            CogVideoX-I2V has it; see `conditioning.latents.concat_reference`.
    """

    _no_split_modules: ClassVar[list[str]] = ["FantasyIDBlock", "CogVideoXPatchEmbed"]
    _repeated_blocks: ClassVar[list[str]] = ["FantasyIDBlock"]

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 30,
        attention_head_dim: int = 64,
        in_channels: int = 16,
        out_channels: int = 16,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        time_embed_dim: int = 512,
        ofs_embed_dim: int | None = None,
        text_embed_dim: int = 4096,
        num_layers: int = 30,
        dropout: float = 0.0,
        attention_bias: bool = True,
        sample_width: int = 90,
        sample_height: int = 60,
        sample_frames: int = 49,
        patch_size: int = 2,
        patch_size_t: int | None = None,
        temporal_compression_ratio: int = 4,
        max_text_seq_length: int = 226,
        activation_fn: str = "gelu-approximate",
        timestep_activation_fn: str = "silu",
        norm_elementwise_affine: bool = True,
        norm_eps: float = 1e-5,
        spatial_interpolation_scale: float = 1.875,
        temporal_interpolation_scale: float = 1.0,
        use_rotary_positional_embeddings: bool = False,
        use_learned_positional_embeddings: bool = False,
        patch_bias: bool = True,
        identity_token_dim: int | None = None,
        injection_dim: int | None = None,
        injection_heads: int | None = None,
        injection_interval: int = 1,
        injection_kind: InjectionKind = "paper",
        injection_query_dim: int | None = None,
        reference_in_all_frames: bool = False,
    ) -> None:
        super().__init__(
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            flip_sin_to_cos=flip_sin_to_cos,
            freq_shift=freq_shift,
            time_embed_dim=time_embed_dim,
            ofs_embed_dim=ofs_embed_dim,
            text_embed_dim=text_embed_dim,
            num_layers=0,
            dropout=dropout,
            attention_bias=attention_bias,
            sample_width=sample_width,
            sample_height=sample_height,
            sample_frames=sample_frames,
            patch_size=patch_size,
            patch_size_t=patch_size_t,
            temporal_compression_ratio=temporal_compression_ratio,
            max_text_seq_length=max_text_seq_length,
            activation_fn=activation_fn,
            timestep_activation_fn=timestep_activation_fn,
            norm_elementwise_affine=norm_elementwise_affine,
            norm_eps=norm_eps,
            spatial_interpolation_scale=spatial_interpolation_scale,
            temporal_interpolation_scale=temporal_interpolation_scale,
            use_rotary_positional_embeddings=use_rotary_positional_embeddings,
            use_learned_positional_embeddings=use_learned_positional_embeddings,
            patch_bias=patch_bias,
        )
        # The base class was asked for no blocks and noted that; the blocks are ours, so note their number.
        self.register_to_config(num_layers=num_layers)
        dim = num_attention_heads * attention_head_dim

        injection_class = INJECTIONS[injection_kind]

        def injection_after(layer: int) -> IdentityInjection | None:
            if identity_token_dim is None or layer % injection_interval:
                return None
            inner_dim = dim if injection_dim is None else injection_dim
            heads = num_attention_heads if injection_heads is None else injection_heads
            return injection_class(dim, identity_token_dim, inner_dim, heads, injection_query_dim)

        self.transformer_blocks = nn.ModuleList(
            [
                FantasyIDBlock(
                    injection_after(layer),
                    dim=dim,
                    num_attention_heads=num_attention_heads,
                    attention_head_dim=attention_head_dim,
                    time_embed_dim=time_embed_dim,
                    dropout=dropout,
                    activation_fn=activation_fn,
                    attention_bias=attention_bias,
                    norm_elementwise_affine=norm_elementwise_affine,
                    norm_eps=norm_eps,
                )
                for layer in range(num_layers)
            ]
        )
        has_gain = identity_token_dim is not None and injection_class.shares_gain
        self.injection_gain = nn.Parameter(torch.zeros(1)) if has_gain else None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> Any:
        """Build a model as a config says, also one of before the injection had three kinds; as `ConfigMixin`'s."""
        return super().from_config(current_fields(config), **options)

    @classmethod
    def from_base(cls, base: CogVideoXTransformer3DModel, **identity_config: Any) -> "FantasyIDTransformer3DModel":
        """Copy a CogVideoX transformer and add an untrained injection to it.

        Args:
            base: The transformer to copy; CogVideoX's, or one of ours without an injection.
            identity_config: The identity fields of the config, such as `identity_token_dim=3072`.

        Returns:
            A model whose output equals that of `base` until its injection is trained.

        Raises:
            CorruptWeightsError: The weights of `base` do not fit its own config.
        """
        base_config = {name: value for name, value in base.config.items() if not name.startswith("_")}
        model: FantasyIDTransformer3DModel = cls(**{**base_config, **identity_config})
        incompatible = model.load_state_dict(base.state_dict(), strict=False)
        missing = [key for key in incompatible.missing_keys if not is_injected(key)]
        if missing or incompatible.unexpected_keys:
            raise CorruptWeightsError(
                f"The base transformer lacks {missing} and has unknown {incompatible.unexpected_keys}; "
                "give a CogVideoX transformer as diffusers loads it."
            )
        model.to(device=base.device, dtype=base.dtype)
        return model

    def enable_group_offload(
        self, onload_device: torch.device, *args: Any, offload_type: str = "block_level", **options: Any
    ) -> None:
        """Keep only the layers or blocks that are working on the device; arguments are diffusers'."""
        super().enable_group_offload(onload_device, *args, offload_type=offload_type, **options)
        if offload_type == "block_level":
            for block in self.transformer_blocks:
                if isinstance(block.injection, IdentityInjection):
                    bring_in_for_projection(block, block.injection.once_per_video)

    @property
    def injections(self) -> list[IdentityInjection]:
        """The injections, first block first."""
        return [block.injection for block in self.transformer_blocks if isinstance(block.injection, IdentityInjection)]

    @property
    def latents_dtype(self) -> torch.dtype:
        """The dtype of noisy latents between two steps: float32, or the network's own where it was trained so."""
        return self.dtype if INJECTIONS[self.config.injection_kind].rounds_latents else torch.float32

    @apply_forward_hook
    def project_identity(self, identity_tokens: Tensor) -> IdentityKeyValues:
        """Compute every injecting block's keys and values, once per video.

        Args:
            identity_tokens: (B, N, identity_token_dim).

        Returns:
            Keys and values, one pair per injecting block.
        """
        self._check_injection()
        pairs = [injection.project(identity_tokens) for injection in self.injections]
        return IdentityKeyValues(keys=tuple(key for key, _ in pairs), values=tuple(value for _, value in pairs))

    def _check_injection(self) -> None:
        if not self.injections:
            raise InvalidRequestError(
                "This transformer was built without identity injection; load one whose config has identity_token_dim."
            )

    @property
    def _cp_plan(self) -> dict[str, Any]:
        """How diffusers' context parallelism splits this model over devices.

        Tokens are split when they enter the first block and gathered by `proj_out`; in between, injections gather them
        as they need.
        """
        split = ContextParallelInput(split_dim=1, expected_dims=3)
        split_rotary = ContextParallelInput(split_dim=0, expected_dims=2)
        gather = ContextParallelOutput(gather_dim=1, expected_dims=3)
        plan: dict[str, Any] = {
            "transformer_blocks.*": {"image_rotary_emb": [split_rotary, split_rotary]},
            "transformer_blocks.0": {"hidden_states": split, "encoder_hidden_states": split},
            "proj_out": gather,
        }
        for layer, block in enumerate(self.transformer_blocks):
            if isinstance(block.injection, IdentityInjection):
                for part, how in block.injection.context_parallel_plan.items():
                    plan[f"transformer_blocks.{layer}.injection.{part}"] = how
        return plan

    def fuse_qkv_projections(self) -> None:
        """Refuse: diffusers would put its own attention in place of `JointAttnProcessor`.

        That one knows neither the choice of a kernel nor context parallelism, and fused products are no faster here.
        """
        raise InvalidRequestError(
            "fuse_qkv_projections() would undo the choice of attention kernels and devices, and is no faster; leave it "
            "out, and use fantasyid.pipelines.acceleration."
        )

    def enable_cache(self, config: Any) -> None:
        """Enable one of diffusers' step caches, see `CacheMixin.enable_cache`; FasterCache is refused."""
        if isinstance(config, FasterCacheConfig):
            raise InvalidRequestError(
                "FasterCache leaves out a branch of guidance, but not what that one is told of the person; use another "
                "cache, such as FirstBlockCacheConfig."
            )
        register_block(FantasyIDBlock)
        super().enable_cache(config)

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        timestep_cond: Tensor | None = None,
        ofs: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        identity_tokens: Tensor | None = None,
        identity_key_values: IdentityKeyValues | None = None,
        identity_scale: float | Tensor = 1.0,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predict the denoising target of a video.

        Args:
            hidden_states: Noisy latents (B, T, in_channels, H, W).
            encoder_hidden_states: Text states (B, L, text_embed_dim).
            timestep: (B,).
            timestep_cond: Added to the time embedding; (B, time_embed_dim).
            ofs: Offset of CogVideoX-1.5 image-to-video.
            image_rotary_emb: Cosine and sine of the rotary code, each (tokens, attention_head_dim).
            attention_kwargs: Passed to the attention processors; "scale" scales a LoRA.
            identity_tokens: (B, N, identity_token_dim); give these or `identity_key_values`, or neither.
            identity_key_values: What `project_identity` returned, for all steps of one video.
            identity_scale: Strength of the injection, for all samples or per sample (B,); 0 drops the identity.
            return_dict: False returns a tuple.

        Returns:
            The prediction (B, T, out_channels, H, W).

        Raises:
            InvalidRequestError: Both forms of the identity are given, or the model has no injection.
        """
        batch_size, num_frames, _, height, width = hidden_states.shape

        # 1. Time embedding
        emb = self.time_embedding(self.time_proj(timestep).type_as(hidden_states), timestep_cond)
        if self.ofs_embedding is not None:
            emb = emb + self.ofs_embedding(self.ofs_proj(ofs).type_as(hidden_states))

        # 2. Identity
        if identity_tokens is not None:
            if identity_key_values is not None:
                raise InvalidRequestError("Give identity_tokens or identity_key_values, not both.")
            self._check_injection()
            # In training each block projects them itself: it is sharded, recomputed and compiled by itself, and none of
            # that reaches its weights outside of its `forward`.
            if not torch.is_grad_enabled():
                identity_key_values = self.project_identity(identity_tokens)
        scale = torch.as_tensor(identity_scale, dtype=hidden_states.dtype, device=hidden_states.device)
        scale = scale.expand(batch_size).contiguous()[:, None, None]
        if self.injection_gain is not None:
            scale = scale * self.injection_gain

        # 3. Patch embedding
        p = self.config.patch_size
        p_t = self.config.patch_size_t or 1
        token_grid = ((num_frames + p_t - 1) // p_t, height // p, width // p)
        text_seq_length = encoder_hidden_states.shape[1]
        hidden_states = self.embedding_dropout(self.patch_embed(encoder_hidden_states, hidden_states))
        # Contiguous, as every block returns them, so that one compilation serves the first block too.
        encoder_hidden_states = hidden_states[:, :text_seq_length].contiguous()
        hidden_states = hidden_states[:, text_seq_length:].contiguous()

        # 4. Transformer blocks, each followed by its injection (Eq. 2)
        for layer, block in enumerate(self.transformer_blocks):
            inputs: tuple[Any, ...] = (hidden_states, encoder_hidden_states, emb, image_rotary_emb, attention_kwargs)
            if identity_key_values is not None and block.injection is not None:
                index = layer // self.config.injection_interval
                inputs += (identity_key_values.keys[index], identity_key_values.values[index], scale, token_grid)
            elif identity_tokens is not None and block.injection is not None:
                inputs += (None, None, scale, token_grid, identity_tokens)
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states, encoder_hidden_states = run_checkpointed(self, block, *inputs)
            else:
                hidden_states, encoder_hidden_states = block(*inputs)

        # 5. Output
        hidden_states = self.norm_out(self.norm_final(hidden_states), temb=emb)
        hidden_states = self.proj_out(hidden_states)
        frames, rows, columns = token_grid
        if self.config.patch_size_t is None:
            output = hidden_states.reshape(batch_size, frames, rows, columns, -1, p, p)
            output = output.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)
        else:
            output = hidden_states.reshape(batch_size, frames, rows, columns, -1, p_t, p, p)
            output = output.permute(0, 1, 5, 4, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(1, 2)
        if not return_dict:
            return (output,)
        return Transformer2DModelOutput(sample=output)
