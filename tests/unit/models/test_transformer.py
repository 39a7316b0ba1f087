"""The transformer: equal to CogVideoX without identity, and what identity does to it."""

import json
from typing import get_args

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers.hooks import FirstBlockCacheConfig
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

from fantasyid.checkpoints.builtin import MINI_FOLDER
from fantasyid.core.errors import CorruptWeightsError, InvalidRequestError
from fantasyid.models.injection import (
    INJECTIONS,
    IdentityAttention,
    IdentityInjection,
    IdentityKeyValues,
    InjectionKind,
    LayerAwareFeature,
)
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from tests.tiny import (
    BASE_CONFIG,
    IDENTITY_CONFIG,
    noise,
    open_injection,
    tiny_base,
    tiny_transformer,
    tiny_transformer_inputs,
)

VARIANTS = [
    {},
    {"injection_kind": "paper_without_layers"},
    {"injection_interval": 2},
    {"injection_dim": None, "injection_heads": None},
    {"injection_kind": "released"},
    {"injection_query_dim": 8},
    {"injection_kind": "released", "injection_query_dim": 8},
]
COGVIDEOX_5B_I2V = {
    "num_attention_heads": 48,
    "attention_head_dim": 64,
    "in_channels": 32,
    "out_channels": 16,
    "text_embed_dim": 4096,
    "num_layers": 42,
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
}


def trained_transformer(**overrides) -> FantasyIDTransformer3DModel:
    model = tiny_transformer(**overrides)
    open_injection(model)
    return model


@pytest.fixture
def inputs():
    return tiny_transformer_inputs()


@pytest.fixture
def identity():
    return noise(2, 7, 24, seed=4)


@pytest.mark.parametrize(
    "base_config",
    [
        {},
        {"use_rotary_positional_embeddings": False, "patch_size": 2},
        {"ofs_embed_dim": 12, "patch_size": 2, "patch_size_t": 2},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("query_dim", [None, 8])
def test_untrained_injection_equals_cogvideox_bitwise(base_config, dtype, query_dim, identity) -> None:
    base = tiny_base(**base_config).to(dtype)
    model = FantasyIDTransformer3DModel.from_base(base, **IDENTITY_CONFIG, injection_query_dim=query_dim)
    inputs = tiny_transformer_inputs(num_frames=4 if "patch_size_t" in base_config else 3)
    inputs |= {name: inputs[name].to(dtype) for name in ("hidden_states", "encoder_hidden_states")}
    if base.config.patch_size == 2:
        inputs["image_rotary_emb"] = None
    if base.config.ofs_embed_dim:
        inputs["ofs"] = torch.tensor([2.0, 2.0])
    expected = base(**inputs).sample
    assert expected.isfinite().all()
    assert model.dtype == dtype
    assert torch.equal(model(**inputs).sample, expected)
    assert torch.equal(model(**inputs, identity_tokens=identity.to(dtype)).sample, expected)


def test_training_in_base_mode_equals_cogvideox(inputs) -> None:
    base, model = tiny_base(), tiny_transformer(identity_token_dim=None)
    model.load_state_dict(base.state_dict())
    base(**inputs).sample.square().sum().backward()
    model(**inputs).sample.square().sum().backward()
    theirs = dict(base.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_identity_changes_the_output_once_trained(variant, inputs, identity) -> None:
    model = trained_transformer(**variant)
    before = {name: value.clone() for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    tokens = identity.clone()
    plain = model(**inputs).sample
    injected = model(**inputs, identity_tokens=identity).sample
    assert plain.shape == injected.shape == (2, 3, 4, 6, 4)
    assert (plain - injected).abs().max() > 1e-3
    assert torch.equal(identity, tokens)
    for name, value in before.items():
        assert torch.equal(inputs[name], value), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_cached_key_values_equal_tokens_bitwise(variant, inputs, identity) -> None:
    model = trained_transformer(**variant)
    key_values = model.project_identity(identity)
    assert len(key_values.keys) == len(key_values.values) == (2 if "injection_interval" in variant else 3)
    from_tokens = model(**inputs, identity_tokens=identity).sample
    assert torch.equal(model(**inputs, identity_key_values=key_values).sample, from_tokens)


def test_offloaded_weights_come_back_for_the_projection(identity) -> None:
    """CPU offload moves weights in a hook of `forward`; `project_identity` is called first and must trigger it too."""

    class BringBack(ModelHook):
        def pre_forward(self, module, *args, **kwargs):
            module.load_state_dict(state)
            return args, kwargs

    model = tiny_transformer()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model.project_identity(identity)
    add_hook_to_module(model, BringBack())
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    assert all(map(torch.equal, model.project_identity(identity).values, expected.values))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient(variant, inputs, identity) -> None:
    model = trained_transformer(**variant)
    model(**inputs, identity_tokens=identity).sample.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_untrained_injection_can_start_to_learn(inputs, identity) -> None:
    model = tiny_transformer()
    model(**inputs, identity_tokens=identity).sample.square().sum().backward()
    for block in model.transformer_blocks:
        assert block.injection.feature.norm.weight.grad.abs().max() > 0


def test_every_block_adds_equation_2(inputs, identity) -> None:
    """Z + scale * F_l(Attention(Z, K, V)), Z being what CogVideoX's block gives, K and V its own; text stays."""
    model, scale = trained_transformer(), torch.tensor([0.25, 1.5])
    seen = []
    for block in model.transformer_blocks:
        block.register_forward_hook(lambda block, given, output: seen.append((block, given, output)))
    model(**inputs, identity_tokens=identity, identity_scale=scale)
    assert [block for block, _, _ in seen] == list(model.transformer_blocks)
    for block, given, (video, text) in seen:
        theirs = tiny_base().transformer_blocks[0]
        theirs.load_state_dict({name: value for name, value in block.state_dict().items() if "injection" not in name})
        z, expected_text = theirs(*given[:5])
        attended = block.injection.attention(z, *block.injection.attention.project(identity))
        injected = block.injection.feature(attended, (3, 6, 4))
        torch.testing.assert_close(video, z + scale[:, None, None] * injected)
        torch.testing.assert_close(text, expected_text)


def test_without_layer_aware_features_one_gain_scales_what_is_attended_to() -> None:
    model = tiny_transformer(injection_kind="paper_without_layers")
    assert model.injection_gain.item() == 0
    assert all(block.injection.feature is None for block in model.transformer_blocks)
    torch.nn.init.constant_(model.injection_gain, 0.7)
    inputs, identity = tiny_transformer_inputs(), noise(2, 7, 24, seed=4)
    scales, added = [], []
    for block in model.transformer_blocks:
        block.register_forward_pre_hook(lambda module, args: scales.append(args[7]))
        block.injection.register_forward_hook(lambda module, args, output: added.append((module, args, output)))
    model(**inputs, identity_tokens=identity, identity_scale=0.5)
    assert len(scales) == len(added) == 3
    for scale in scales:
        torch.testing.assert_close(scale, torch.full((2, 1, 1), 0.35))
    for module, (video, key, value, _), output in added:
        assert torch.equal(output, module.attention(video, key, value))


def test_identity_reaches_text_only_through_video(inputs, identity) -> None:
    model = trained_transformer(num_layers=1)
    outputs = []
    model.transformer_blocks[0].register_forward_hook(lambda module, args, output: outputs.append(output))
    model(**inputs)
    model(**inputs, identity_tokens=identity)
    assert torch.equal(outputs[0][1], outputs[1][1])
    assert not torch.equal(outputs[0][0], outputs[1][0])


def test_scale_zero_equals_no_identity(inputs, identity) -> None:
    model = trained_transformer()
    without = model(**inputs).sample
    assert torch.equal(model(**inputs, identity_tokens=identity, identity_scale=0.0).sample, without)


def test_scale_per_sample(inputs, identity) -> None:
    model = trained_transformer()
    scaled = model(**inputs, identity_tokens=identity, identity_scale=torch.tensor([0.0, 0.5])).sample
    torch.testing.assert_close(scaled[0], model(**inputs).sample[0])
    torch.testing.assert_close(scaled[1], model(**inputs, identity_tokens=identity, identity_scale=0.5).sample[1])
    assert not torch.allclose(scaled[1], model(**inputs, identity_tokens=identity).sample[1])


def test_dropped_identity_gives_no_gradient_to_the_injection(inputs, identity) -> None:
    model = trained_transformer()
    model(**inputs, identity_tokens=identity, identity_scale=torch.zeros(2)).sample.square().sum().backward()
    assert all(p.grad.abs().max() == 0 for name, p in model.named_parameters() if "injection" in name)


def test_gradient_checkpointing_changes_nothing(inputs, identity) -> None:
    plain, saving = trained_transformer(), trained_transformer()
    saving.enable_gradient_checkpointing()
    for model in (plain, saving):
        model(**inputs, identity_tokens=identity).sample.square().sum().backward()
    theirs = dict(plain.named_parameters())
    for name, parameter in saving.named_parameters():
        assert torch.equal(parameter.grad, theirs[name].grad), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_save_and_load(variant, inputs, identity, tmp_path) -> None:
    model = trained_transformer(**variant)
    model.save_pretrained(tmp_path)
    loaded = FantasyIDTransformer3DModel.from_pretrained(tmp_path)
    assert loaded.config.num_layers == 3
    assert loaded.config.injection_query_dim == variant.get("injection_query_dim")
    expected = model(**inputs, identity_tokens=identity).sample
    assert torch.equal(loaded(**inputs, identity_tokens=identity).sample, expected)


def test_loads_a_cogvideox_folder(inputs, tmp_path) -> None:
    base = tiny_base()
    base.save_pretrained(tmp_path)
    loaded = FantasyIDTransformer3DModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs).sample, base(**inputs).sample)


def test_added_keys_say_injection() -> None:
    added = set(tiny_transformer().state_dict()) - set(tiny_base().state_dict())
    assert added
    assert all("injection" in key for key in added)


def test_from_base_refuses_foreign_weights() -> None:
    base = tiny_base()
    base.foreign = torch.nn.Linear(2, 2)
    with pytest.raises(CorruptWeightsError, match=r"foreign\.weight"):
        FantasyIDTransformer3DModel.from_base(base, **IDENTITY_CONFIG)


@pytest.mark.parametrize(
    ("old", "kind"),
    [
        ({}, "paper"),
        ({"use_layer_aware": True}, "paper"),
        ({"use_layer_aware": True, "injection_kind": "paper"}, "paper"),
        ({"use_layer_aware": False}, "paper_without_layers"),
        ({"use_layer_aware": False, "injection_kind": "paper"}, "paper_without_layers"),
        ({"use_layer_aware": False, "injection_kind": "released"}, "released"),
    ],
)
def test_configs_of_before_the_three_kinds_mean_the_same(old, kind, inputs, identity, tmp_path) -> None:
    model = trained_transformer(injection_kind=kind)
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    fields = json.loads(config.read_text())
    del fields["injection_kind"]
    config.write_text(json.dumps({**fields, **old}))
    loaded = FantasyIDTransformer3DModel.from_pretrained(tmp_path)
    assert loaded.config.injection_kind == kind
    assert "use_layer_aware" not in loaded.config
    expected = model(**inputs, identity_tokens=identity).sample
    assert torch.equal(loaded(**inputs, identity_tokens=identity).sample, expected)


def test_a_kind_that_was_left_at_its_old_default_does_not_win() -> None:
    old = {**BASE_CONFIG, **IDENTITY_CONFIG, "use_layer_aware": False, "injection_kind": "paper"}
    model = FantasyIDTransformer3DModel.from_config({**old, "_use_default_values": ["injection_kind"]})
    assert model.config.injection_kind == "paper_without_layers"
    assert model.injection_gain is not None


def test_the_packed_model_names_its_injection_as_before_the_three_kinds() -> None:
    """Its files stay what they are, byte for byte, and mean the paper's injection."""
    config = json.loads((MINI_FOLDER / "transformer" / "manifest.json").read_text())["config"]
    assert config["use_layer_aware"] is True
    assert "injection_kind" not in config
    with torch.device("meta"):
        model = FantasyIDTransformer3DModel.from_config(config)
    assert all(type(injection) is IdentityInjection for injection in model.injections)
    assert len(model.injections) == model.config.num_layers


@pytest.mark.parametrize("kind", ["released", "paper_without_layers"])
def test_an_old_config_that_contradicts_itself_is_refused(kind) -> None:
    with pytest.raises(ValueError, match="use_layer_aware is True"):
        FantasyIDTransformer3DModel.from_config({**BASE_CONFIG, "injection_kind": kind, "use_layer_aware": True})


@pytest.mark.parametrize("kind", get_args(InjectionKind))
def test_an_injection_names_the_layers_that_work_once_per_video(kind, identity) -> None:
    injection = INJECTIONS[kind](16, 24, 32, 2)
    layers = [module for module in injection.modules() if not list(module.children())]
    called: list[torch.nn.Module] = []
    for layer in layers:
        layer.register_forward_hook(lambda module, *_: called.append(module))
    key, value = injection.project(identity)
    assert called == list(injection.once_per_video)
    called.clear()
    injection(noise(2, 6, 16), key, value, (1, 2, 3))
    assert not set(called) & set(injection.once_per_video)
    assert {layer for layer in layers if list(layer.parameters())} <= {*called, *injection.once_per_video}


def test_an_injection_says_what_else_it_needs() -> None:
    assert set(INJECTIONS) == set(get_args(InjectionKind))
    plans = {kind: set(injection(16, 24, 16, 2).context_parallel_plan) for kind, injection in INJECTIONS.items()}
    assert plans == {"paper": {"attention", "feature"}, "paper_without_layers": set(), "released": set()}
    assert IdentityInjection(16, 24, 16, 2).has_equal_widths
    assert not IdentityInjection(16, 24, 16, 2, query_dim=8).has_equal_widths
    half = {kind: tiny_transformer(injection_kind=kind).to(torch.bfloat16).latents_dtype for kind in INJECTIONS}
    assert half == {"paper": torch.float32, "paper_without_layers": torch.float32, "released": torch.bfloat16}


def test_keys_and_values_are_cut_as_tensors_are() -> None:
    keys, values = ((noise(4, 2, 3, 5, seed=seed), noise(4, 2, 3, 5, seed=seed + 1)) for seed in (0, 2))
    first, second = IdentityKeyValues(keys, values).chunk(2)
    assert torch.equal(first.keys[1], keys[1][:2])
    assert torch.equal(second.values[0], values[0][2:])


def test_refuses_identity_twice_or_without_injection(inputs, identity) -> None:
    model = tiny_transformer()
    with pytest.raises(InvalidRequestError, match="not both"):
        model(**inputs, identity_tokens=identity, identity_key_values=model.project_identity(identity))
    with pytest.raises(InvalidRequestError, match="without identity injection"):
        tiny_transformer(identity_token_dim=None)(**inputs, identity_tokens=identity)


def test_blocks_compile_without_graph_breaks(inputs, identity) -> None:
    model = trained_transformer()
    expected = model(**inputs, identity_tokens=identity).sample
    model.compile_repeated_blocks(fullgraph=True, backend="eager")
    torch.testing.assert_close(model(**inputs, identity_tokens=identity).sample, expected)


def test_first_block_cache_skips_blocks_and_their_injection(inputs, identity) -> None:
    model = trained_transformer().eval()
    expected = model(**inputs, identity_tokens=identity).sample
    calls = []
    for block in model.transformer_blocks:
        block.injection.register_forward_hook(lambda *_: calls.append(1))
    model.enable_cache(FirstBlockCacheConfig(threshold=100.0))
    with torch.no_grad(), model.cache_context("cond"):
        first = model(**inputs, identity_tokens=identity).sample
        assert len(calls) == 3
        second = model(**inputs, identity_tokens=identity).sample
        assert len(calls) == 4
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(second, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("query_dim", [None, 4, 12])
def test_identity_attention_equals_its_formula(query_dim) -> None:
    attention = IdentityAttention(dim=8, identity_dim=6, inner_dim=8, num_heads=2, query_dim=query_dim)
    width = (query_dim or 8) // 2
    video, tokens = noise(1, 5, 8), noise(1, 3, 6)
    key, value = attention.project(tokens)
    assert (key.shape, value.shape) == ((1, 2, 3, width), (1, 2, 3, 4))
    out = attention(video, key, value)
    heads = []
    for head in range(2):
        rows = slice(head * width, (head + 1) * width)
        query = attention.norm_q(video[0] @ attention.to_q.weight[rows].T)
        key = attention.norm_k(tokens[0] @ attention.to_k.weight[rows].T)
        values = tokens[0] @ attention.to_v.weight[4 * head : 4 * head + 4].T
        heads.append((query @ key.T / width**0.5).softmax(dim=-1) @ values)
    torch.testing.assert_close(out[0], torch.cat(heads, dim=-1))


@pytest.mark.parametrize("widths", [{"injection_dim": 15}, {"injection_query_dim": 9}])
def test_heads_must_divide_both_widths(widths) -> None:
    with pytest.raises(ValueError, match="is not a multiple of 2 heads"):
        tiny_transformer(**widths)


def test_fused_projections_of_diffusers_are_refused(inputs) -> None:
    model = tiny_transformer()
    with pytest.raises(InvalidRequestError, match="leave it out"):
        model.fuse_qkv_projections()
    assert torch.equal(model(**inputs).sample, tiny_transformer()(**inputs).sample)


def test_feature_equals_its_formula() -> None:
    """A depthwise 3 x 3 convolution of every frame, then LayerNorm with gain and bias."""
    feature = LayerAwareFeature(4)
    for seed, parameter in enumerate(feature.parameters()):
        parameter.data = noise(*parameter.shape, seed=seed)
    x = noise(2, 2 * 5 * 6, 4, seed=9)
    padded = torch.nn.functional.pad(x.view(2, 2, 5, 6, 4), (0, 0, 1, 1, 1, 1))
    kernel = feature.conv.weight[:, 0]
    convolved = sum(
        kernel[:, row, column] * padded[:, :, row : row + 5, column : column + 6]
        for row in range(3)
        for column in range(3)
    )
    centred = convolved - convolved.mean(dim=-1, keepdim=True)
    normed = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    expected = normed * feature.norm.weight + feature.norm.bias
    torch.testing.assert_close(feature(x, (2, 5, 6)), expected.flatten(1, 3))


def test_feature_convolves_within_each_frame() -> None:
    feature = LayerAwareFeature(4)
    torch.nn.init.ones_(feature.norm.weight)
    torch.nn.init.normal_(feature.conv.weight, generator=torch.Generator().manual_seed(0))
    x = noise(1, 2 * 5 * 6, 4)
    changed = x.clone()
    changed.view(1, 2, 5, 6, 4)[0, 1, 2, 3] += 1.0
    touched = (feature(changed, (2, 5, 6)) != feature(x, (2, 5, 6))).any(dim=-1).view(2, 5, 6)
    expected = torch.zeros(2, 5, 6, dtype=torch.bool)
    expected[1, 1:4, 2:5] = True
    assert torch.equal(touched, expected)


def test_feature_before_training_passes_attention_to_its_norm() -> None:
    feature = LayerAwareFeature(4)
    x = noise(1, 30, 4)
    assert feature(x, (1, 5, 6)).abs().max() == 0
    torch.nn.init.ones_(feature.norm.weight)
    torch.testing.assert_close(feature(x, (1, 5, 6)), torch.nn.functional.layer_norm(x, (4,)))


def multiply_adds_per_token(module: torch.nn.Module) -> int:
    """Multiply-adds of linear and depthwise layers, and two per channel of a LayerNorm."""
    total = 0
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            total += layer.weight.numel()
        elif isinstance(layer, torch.nn.LayerNorm):
            total += 2 * layer.normalized_shape[0]
    return total


@pytest.mark.parametrize("dim", [448, 3072])
def test_feature_costs_under_three_percent_of_a_block(dim) -> None:
    with torch.device("meta"):
        config = {**BASE_CONFIG, "attention_head_dim": 64, "num_attention_heads": dim // 64, "num_layers": 1}
        block = FantasyIDTransformer3DModel(**config, identity_token_dim=dim).transformer_blocks[0]
    # Lower bound of the block: attention between tokens and the modulation are left out.
    base_cost = multiply_adds_per_token(block.attn1) + multiply_adds_per_token(block.ff)
    assert multiply_adds_per_token(block.injection.feature) < 0.03 * base_cost


def test_cogvideox_5b_size() -> None:
    with torch.device("meta"):
        base = CogVideoXTransformer3DModel(**COGVIDEOX_5B_I2V)
        model = FantasyIDTransformer3DModel(**COGVIDEOX_5B_I2V, identity_token_dim=3072, injection_dim=3072)
    base_count = sum(p.numel() for p in base.parameters())
    injected = sum(p.numel() for name, p in model.named_parameters() if "injection" in name)
    # Per layer: W_q, W_k, W_v; two per-head norms (the keys' without bias); depthwise 3x3; the norm of F_l.
    per_layer = 3 * 3072**2 + 3 * 64 + 9 * 3072 + 2 * 3072
    assert injected == 42 * per_layer
    assert sum(p.numel() for p in model.parameters()) == base_count + injected
    assert (base_count, injected) == (5_570_479_680, 1_190_512_512)


def test_mini_size() -> None:
    config = {
        "num_attention_heads": 7,
        "attention_head_dim": 64,
        "in_channels": 32,
        "out_channels": 16,
        "time_embed_dim": 128,
        "text_embed_dim": 384,
        "num_layers": 10,
        "patch_size": 1,
        "use_rotary_positional_embeddings": True,
    }
    with torch.device("meta"):
        model = FantasyIDTransformer3DModel(**config, identity_token_dim=448, injection_dim=192, injection_heads=3)
    injected = sum(p.numel() for name, p in model.named_parameters() if "injection" in name)
    assert (sum(p.numel() for p in model.parameters()) - injected, injected) == (31_466_128, 3_491_840)
