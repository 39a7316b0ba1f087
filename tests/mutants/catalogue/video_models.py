"""The transformer and its injection (paper 3.1 and 3.5)."""

from tests.mutants.mutation import Mutation

_TESTS = "tests/unit/models/test_transformer.py::"
_ATTENTION = _TESTS + "test_identity_attention_equals_its_formula"
_BLOCK = _TESTS + "test_every_block_adds_equation_2"
_FEATURE = _TESTS + "test_feature_equals_its_formula"
_GAIN = _TESTS + "test_without_layer_aware_features_one_gain_scales_what_is_attended_to"
_SIZE = _TESTS + "test_cogvideox_5b_size"
_UNTRAINED = _TESTS + "test_untrained_injection_equals_cogvideox_bitwise"
_TRANSFORMER, _INJECTION = "models/transformer.py", "models/injection.py"

VIDEO_MODELS = (
    # The base
    Mutation(
        "the base is CogVideoX's to the last layer",
        _TRANSFORMER,
        "self.norm_out(self.norm_final(hidden_states), temb=emb)",
        "self.norm_out(hidden_states, temb=emb)",
        _UNTRAINED,
    ),
    Mutation(
        "text reaches the blocks",
        _TRANSFORMER,
        "encoder_hidden_states = hidden_states[:, :text_seq_length].contiguous()",
        "encoder_hidden_states = 0 * hidden_states[:, :text_seq_length].contiguous()",
        _UNTRAINED,
    ),
    Mutation(
        "rows and columns of patches are put back",
        _TRANSFORMER,
        "output.permute(0, 1, 4, 2, 5, 3, 6)",
        "output.permute(0, 1, 4, 2, 6, 3, 5)",
        _UNTRAINED,
    ),
    Mutation(
        "the base's weights are copied",
        _TRANSFORMER,
        "model.load_state_dict(base.state_dict(), strict=False)",
        "model.load_state_dict(model.state_dict(), strict=False)",
        _UNTRAINED,
    ),
    Mutation(
        "the base has all its layers",
        _TRANSFORMER,
        "for layer in range(num_layers)",
        "for layer in range(num_layers - 1)",
        _SIZE,
    ),
    Mutation(
        "keys of the identity have no bias",
        _INJECTION,
        "self.to_k = nn.Linear(identity_dim, query_dim, bias=False)",
        "self.to_k = nn.Linear(identity_dim, query_dim)",
        _SIZE,
    ),
    # Eq. 2
    Mutation(
        "the identity is added to the video tokens",
        _TRANSFORMER,
        "hidden_states = hidden_states + identity_scale * injected",
        "hidden_states = identity_scale * injected",
        _BLOCK,
    ),
    Mutation(
        "the identity is added with its sign",
        _TRANSFORMER,
        "hidden_states + identity_scale * injected",
        "hidden_states - identity_scale * injected",
        _BLOCK,
    ),
    Mutation(
        "the identity's strength counts",
        _TRANSFORMER,
        "hidden_states + identity_scale * injected",
        "hidden_states + injected",
        _BLOCK,
    ),
    Mutation(
        "queries come from what the block gives",
        _TRANSFORMER,
        """        hidden_states, encoder_hidden_states = super().forward(
            hidden_states, encoder_hidden_states, temb, image_rotary_emb, attention_kwargs
        )
""",
        """        given = hidden_states
        hidden_states, encoder_hidden_states = super().forward(
            hidden_states, encoder_hidden_states, temb, image_rotary_emb, attention_kwargs
        )
        hidden_states, given = given, hidden_states
""",
        _BLOCK,
    ),
    Mutation(
        "text is left alone by the injection",
        _TRANSFORMER,
        "            hidden_states = hidden_states + identity_scale * injected\n",
        "            hidden_states = hidden_states + identity_scale * injected\n"
        "            encoder_hidden_states = encoder_hidden_states + injected.mean(1, keepdim=True)\n",
        _TESTS + "test_identity_reaches_text_only_through_video",
    ),
    Mutation(
        "every block has keys of its own",
        _TRANSFORMER,
        "index = layer // self.config.injection_interval",
        "index = 0",
        _BLOCK,
    ),
    Mutation(
        "keys are not taken for values",
        _TRANSFORMER,
        "identity_key_values.keys[index], identity_key_values.values[index], scale",
        "identity_key_values.keys[index], identity_key_values.keys[index], scale",
        _BLOCK,
    ),
    Mutation(
        "the token grid counts rows before columns",
        _TRANSFORMER,
        "(num_frames + p_t - 1) // p_t, height // p, width // p)",
        "(num_frames + p_t - 1) // p_t, width // p, height // p)",
        _BLOCK,
    ),
    Mutation(
        "the identity's strength is per sample",
        _TRANSFORMER,
        "scale.expand(batch_size).contiguous()[:, None, None]",
        "scale.expand(batch_size).contiguous().flip(0)[:, None, None]",
        _TESTS + "test_scale_per_sample",
    ),
    # Attention to the identity
    Mutation(
        "queries are normalised per head",
        _INJECTION,
        'query = self.norm_q(rearrange(self.to_q(hidden_states), "b s (h d) -> b s h d", h=self.num_heads))',
        'query = rearrange(self.to_q(hidden_states), "b s (h d) -> b s h d", h=self.num_heads)',
        _ATTENTION,
    ),
    Mutation(
        "keys are normalised per head",
        _INJECTION,
        'key = self.norm_k(rearrange(self.to_k(identity_tokens), "b n (h d) -> b h n d", h=self.num_heads))',
        'key = rearrange(self.to_k(identity_tokens), "b n (h d) -> b h n d", h=self.num_heads)',
        _ATTENTION,
    ),
    Mutation(
        "heads are consecutive channels",
        _INJECTION,
        'self.to_v(identity_tokens), "b n (h d) -> b h n d"',
        'self.to_v(identity_tokens), "b n (d h) -> b h n d"',
        _ATTENTION,
    ),
    # F_l
    Mutation(
        "F_l ends with a norm",
        _INJECTION,
        'out: Tensor = self.norm(rearrange(self.conv(grid), "(b t) c h w -> b (t h w) c", t=frames))',
        'out: Tensor = rearrange(self.conv(grid), "(b t) c h w -> b (t h w) c", t=frames)',
        _FEATURE,
    ),
    Mutation("F_l convolves", _INJECTION, "self.conv(grid)", "grid", _FEATURE),
    Mutation(
        "F_l convolves every channel alone",
        _INJECTION,
        "nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)",
        "nn.Conv2d(dim, dim, 3, padding=1, groups=dim // 2, bias=False)",
        _SIZE,
    ),
    Mutation(
        "F_l reads frames, rows and columns in their order",
        _INJECTION,
        'features, "b (t h w) c -> (b t) c h w"',
        'features, "b (h w t) c -> (b t) c h w"',
        _FEATURE,
    ),
    Mutation(
        "F_l starts silent",
        _INJECTION,
        "nn.init.zeros_(self.norm.weight)",
        "nn.init.ones_(self.norm.weight)",
        _UNTRAINED,
    ),
    # Without F_l
    Mutation(
        "without F_l the layers share a gain",
        _TRANSFORMER,
        "scale = scale * self.injection_gain",
        "scale = scale * 1.0",
        _GAIN,
    ),
    Mutation(
        "the shared gain starts at zero",
        _TRANSFORMER,
        "nn.Parameter(torch.zeros(1)) if has_gain",
        "nn.Parameter(torch.ones(1)) if has_gain",
        _GAIN,
    ),
    Mutation(
        "without F_l there is none",
        _INJECTION,
        "LayerAwareFeature(dim) if self.has_feature else None",
        "LayerAwareFeature(dim)",
        _GAIN,
    ),
    Mutation(
        "configs of before the three kinds keep their ablation",
        _INJECTION,
        '{"injection_kind": "paper_without_layers", "_use',
        '{"injection_kind": "paper", "_use',
        _TESTS + "test_configs_of_before_the_three_kinds_mean_the_same",
    ),
    Mutation(
        "values are projected once per video",
        _INJECTION,
        "return self.to_k, self.norm_k, self.to_v",
        "return self.to_k, self.norm_k",
        _TESTS + "test_an_injection_names_the_layers_that_work_once_per_video",
    ),
    Mutation(
        "the released injection rounds latents",
        _INJECTION,
        "    rounds_latents = True\n",
        "    rounds_latents = False\n",
        _TESTS + "test_an_injection_says_what_else_it_needs",
    ),
    Mutation(
        "without F_l what is attended to is added as it is",
        _INJECTION,
        "            return attended\n",
        "            return attended * 2\n",
        _GAIN,
    ),
    Mutation(
        "a frame VAE pads as CogVideoX does before it shrinks",
        "models/frame_vae.py",
        "F.pad(hidden, (0, 1, 0, 1))",
        "F.pad(hidden, (1, 0, 1, 0))",
        "tests/unit/models/test_frame_vae.py::test_single_frames_are_those_of_cogvideox",
    ),
    Mutation(
        "a frame VAE scales its norms by the latents",
        "models/frame_vae.py",
        "_group_norm(norm.norm_layer, hidden) * scale + shift",
        "_group_norm(norm.norm_layer, hidden) + shift",
        "tests/unit/models/test_frame_vae.py::test_single_frames_are_those_of_cogvideox",
    ),
    Mutation(
        "a VAE that compresses time is no frame VAE",
        "models/frame_vae.py",
        "if vae.config.temporal_compression_ratio != 1:\n        return False",
        "if False:\n        return False",
        "tests/unit/models/test_frame_vae.py::test_a_vae_that_compresses_time_is_none_even_without_older_weights",
    ),
    Mutation(
        "every older weight counts",
        "models/frame_vae.py",
        "conv.weight[:, :, :-1] for conv",
        "conv.weight[:, :, :1] for conv",
        "tests/unit/models/test_frame_vae.py::test_a_frame_vae_has_no_weight_for_an_older_frame",
    ),
    Mutation(
        "clips of a frame VAE are put together in order",
        "conditioning/latents.py",
        '"(b t) c h w -> b c t h w", b=len(video)',
        '"(t b) c h w -> b c t h w", b=len(video)',
        "tests/unit/conditioning/test_latents.py::test_clips_of_a_frame_vae_are_coded_frame_by_frame",
    ),
    Mutation(
        "statistics of latents are taken by channel",
        "conditioning/latents.py",
        "(latents - mean) / std",
        "latents - mean",
        "tests/unit/conditioning/test_latents.py::test_latents_of_a_vae_with_statistics_are_normalised_by_channel",
    ),
    Mutation(
        "latents are restored before they are decoded",
        "conditioning/latents.py",
        "latents * std + mean",
        "latents * std",
        "tests/unit/conditioning/test_latents.py::test_clips_of_a_frame_vae_are_coded_frame_by_frame",
    ),
)
