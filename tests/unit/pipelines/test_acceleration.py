"""Acceleration: off it changes nothing, on it changes what it says."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.activations import GELU

from fantasyid.core.errors import InvalidRequestError
from fantasyid.models.kernels.attention_kernels import available_attention, use_attention
from fantasyid.models.kernels.fp8 import Fp8Linear, multiplies_fp8, quantize_rows
from fantasyid.models.kernels.linear_gelu import LinearGelu
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.pipelines.acceleration import accelerate, compile_blocks, quantize_linears
from fantasyid.pipelines.options import Acceleration
from tests.tiny import noise, open_injection, seeded, tiny_base, tiny_transformer, tiny_transformer_inputs
from tests.tiny_pipeline import tiny_person, tiny_pipeline

CPU = torch.device("cpu")

NEEDS_FP8 = pytest.mark.skipif(not multiplies_fp8(torch.device("cpu")), reason="this PyTorch has no float8 on CPUs")


def relative_error(x: torch.Tensor, reference: torch.Tensor) -> float:
    return ((x - reference).norm() / reference.norm()).item()


def opened(**overrides) -> FantasyIDTransformer3DModel:
    model = tiny_transformer(**overrides)
    open_injection(model)
    return model.eval()


@torch.no_grad()
def predict(model: FantasyIDTransformer3DModel) -> torch.Tensor:
    return model(**tiny_transformer_inputs(), identity_tokens=noise(2, 5, 24, seed=4)).sample


def video(options: Acceleration | None = None, **call) -> torch.Tensor:
    pipeline = tiny_pipeline()
    if options is not None:
        accelerate(pipeline.transformer, options)
    return pipeline(
        "a person smiles",
        identity_inputs=tiny_person(),
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        **call,
    ).frames


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_off_equals_the_plain_path_bitwise(dtype) -> None:
    plain = tiny_base().eval().to(dtype)
    model = FantasyIDTransformer3DModel.from_base(plain).eval()
    options = Acceleration()
    assert accelerate(model, options) == options
    inputs = {
        name: x.to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x
        for name, x in tiny_transformer_inputs().items()
    }
    with torch.no_grad():
        assert torch.equal(model(**inputs).sample, plain(**inputs).sample)
    assert torch.equal(video(options), video())


def test_kernels_agree_and_are_reported() -> None:
    model = opened()
    plain = predict(model)
    assert available_attention(CPU) == ("native", "math")
    chosen = accelerate(model, Acceleration(attention="math")).attention
    assert chosen == "math"
    assert 0 < relative_error(predict(model), plain) < 1e-6
    assert use_attention(model, "native") == "native"
    assert torch.equal(predict(model), plain)


@pytest.mark.parametrize("kernel", ["flash3", "cudnn", "flash2", "efficient"])
def test_kernels_for_gpus_are_refused_on_the_cpu(kernel) -> None:
    with pytest.raises(InvalidRequestError, match=f"'{kernel}' needs a CUDA device.*use 'native'"):
        accelerate(opened(), Acceleration(attention=kernel))


@pytest.mark.parametrize(
    ("kernel", "query_dim", "expected"),
    [("flash2", 8, "native"), ("cudnn", 8, "_native_cudnn"), ("flash2", 16, "_native_flash")],
)
def test_flash_attention_is_not_asked_for_values_wider_than_queries(monkeypatch, kernel, query_dim, expected) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    model = opened(injection_query_dim=query_dim)
    use_attention(model, kernel, torch.device("cuda"))
    block = model.transformer_blocks[0]
    assert block.injection.attention.attention_backend.value == expected
    assert block.attn1.processor.attention_backend.value == {"flash2": "_native_flash"}.get(kernel, expected)


def test_tuning_needs_compiled_blocks() -> None:
    with pytest.raises(InvalidRequestError, match="compile is off; switch it on too"):
        Acceleration(tune=True)
    torch.compiler.reset()
    options: list[dict[str, bool]] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor], **more) -> torch.fx.GraphModule:
        options.append(more)
        return graph

    for tune in (True, False):
        model = opened(num_layers=1)
        compile_blocks(model, tune=tune, backend=backend)
        predict(model)
    searches = {"coordinate_descent_tuning": True, "max_autotune_pointwise": True}
    assert options == [{"options": searches}, {}]
    assert set(searches) <= set(torch._inductor.list_options())


@NEEDS_FP8
@pytest.mark.parametrize("injection_kind", ["paper", "released"])
def test_fp8_replaces_what_sees_all_tokens_and_stays_close(injection_kind) -> None:
    model = opened(injection_kind=injection_kind, injection_dim=32)
    plain = predict(model)
    accelerate(model, Acceleration(fp8=True))
    replaced = {name for name, module in model.transformer_blocks[0].named_modules() if isinstance(module, Fp8Linear)}
    expected = {f"attn1.to_{name}" for name in ("q", "k", "v", "out.0")}
    expected |= {"ff.net.0", "ff.net.2", "injection.attention.to_q"}
    assert replaced == expected | ({"injection.attention.to_out"} if injection_kind == "released" else set())
    assert 1e-3 < relative_error(predict(model), plain) < 0.06


@pytest.mark.skipif(multiplies_fp8(torch.device("cpu")), reason="is about an older PyTorch")
def test_fp8_is_refused_where_pytorch_lacks_it() -> None:
    with pytest.raises(InvalidRequestError, match="fp8 needs a newer PyTorch"):
        accelerate(opened(), Acceleration(fp8=True))


@NEEDS_FP8
def test_fp8_rows_keep_their_scale() -> None:
    rows = noise(5, 64) * torch.tensor([1e-6, 1e-2, 1.0, 1e3, 0.0])[:, None]
    rounded, scale = quantize_rows(rows)
    restored = rounded.float() * scale
    assert torch.equal(rounded.float().abs().amax(dim=1), torch.tensor([448.0] * 4 + [0.0]))
    # e4m3 has three bits after the leading one: at most 1/16 off, save near zero.
    assert ((restored - rows).abs() <= rows.abs() / 16 + scale * 2**-9).all()
    linear = seeded(torch.nn.Linear, in_features=64, out_features=48)
    out = Fp8Linear(linear)(rows[:4].reshape(2, 2, 64))
    assert out.shape == (2, 2, 48)
    assert relative_error(out.reshape(4, 48).detach(), linear(rows[:4]).detach()) < 0.05


@NEEDS_FP8
def test_fp8_takes_the_gelu_into_the_layer_after_it() -> None:
    """Bit for bit what float8 layers around diffusers' GELU compute."""
    x = noise(2, 5, 32)
    for activation, width in (("gelu-approximate", 1), ("gelu", 1), ("geglu", 2)):
        model = opened(activation_fn=activation)
        feed_forward = model.transformer_blocks[0].ff
        up, down = feed_forward.net[0].proj, feed_forward.net[2]
        hidden = Fp8Linear(up)(x)
        approximate = "tanh" if activation == "gelu-approximate" else "none"
        value, gate = hidden.chunk(2, dim=-1) if width == 2 else (1, hidden)
        expected = Fp8Linear(down)(value * F.gelu(gate, approximate=approximate))
        quantize_linears(model)
        assert torch.equal(feed_forward(x), expected), activation


def test_gpu_kernels_keep_the_weights_and_their_names() -> None:
    model = opened()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for block in model.transformer_blocks:
        block.ff.net[0] = LinearGelu(block.ff.net[0])
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    # An exact GELU on CPUs, so it is refused there.
    with pytest.raises(NotImplementedError, match="linear_gelu"):
        predict(model)


def test_the_gelu_in_the_product_heeds_what_takes_the_layers_place() -> None:
    class Adapted(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1

    gelu = seeded(GELU, dim_in=4, dim_out=6, approximate="tanh")
    layer = LinearGelu(gelu)
    layer.proj = gelu.proj = seeded(Adapted, in_features=4, out_features=6)
    x = noise(3, 4)
    assert torch.equal(layer(x), gelu(x))


def compile_counted(model: FantasyIDTransformer3DModel) -> list[int]:
    """Compile the blocks without speeding them up; the list gets the size of each graph, when it is compiled."""
    seen: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        seen.append(len(graph.graph.nodes))
        return graph

    compile_blocks(model, backend=backend)
    return seen


def test_one_compilation_serves_all_blocks() -> None:
    torch.compiler.reset()
    model = opened(num_layers=4)
    plain = predict(model)
    seen = compile_counted(model)
    assert torch.equal(predict(model), plain)
    assert len(seen) == 1
    with pytest.raises(InvalidRequestError, match="compile them first"):
        compile_blocks(model)


@NEEDS_FP8
def test_fp8_blocks_compile_once() -> None:
    torch.compiler.reset()
    model = opened(num_layers=3)
    quantize_linears(model)
    plain = predict(model)
    seen = compile_counted(model)
    assert torch.equal(predict(model), plain)
    assert len(seen) == 1


def blocks_run(options: Acceleration, steps: int, **call) -> tuple[int, torch.Tensor]:
    """How many times the last block of a tiny pipeline was computed, and what came out."""
    pipeline = tiny_pipeline()
    count = 0

    def tally(*_) -> None:
        nonlocal count
        count += 1

    # Within the block, so that it is not called where a cache skips the block.
    pipeline.transformer.transformer_blocks[-1].ff.register_forward_hook(tally)
    accelerate(pipeline.transformer, options)
    outcomes = [
        pipeline(
            "a person smiles",
            identity_inputs=tiny_person(),
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            num_inference_steps=steps,
            **call,
        ).frames
        for _ in range(2)
    ]
    assert torch.equal(*outcomes), "the cache of one video reached the next"
    return count // 2, outcomes[0]


def test_caches_skip_steps_and_stay_near() -> None:
    steps = 12
    full, plain = blocks_run(Acceleration(), steps)
    first, repeated = blocks_run(Acceleration(cache="first-block", cache_threshold=0.1), steps)
    taylor, extrapolated = blocks_run(Acceleration(cache="taylor", cache_interval=3), steps)
    assert full == steps
    assert first < steps
    assert taylor == 6  # three to begin with, then steps 4, 7 and 10
    assert 0 < relative_error(repeated, plain) < 0.5
    assert 0 < relative_error(extrapolated, plain) < 0.5


def test_caches_start_anew_where_guidance_starts_or_ends() -> None:
    computed, _ = blocks_run(Acceleration(cache="taylor", cache_interval=3), 12, guidance_interval=(0.25, 0.5))
    assert computed == 3 + 3 + 4  # three steps, three steps, then the fifth of six besides the first three


def test_a_call_that_was_cut_off_leaves_nothing_in_the_cache() -> None:
    pipeline = tiny_pipeline()
    accelerate(pipeline.transformer, Acceleration(cache="taylor"))

    def run(**more) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return pipeline(
            "a person smiles",
            identity_inputs=tiny_person(),
            generator=generator,
            output_type="latent",
            num_inference_steps=5,
            **more,
        ).frames

    def cut_off(*_) -> None:
        raise KeyboardInterrupt

    plain = run()
    with pytest.raises(KeyboardInterrupt):
        run(callback_on_step_end=cut_off)
    assert torch.equal(run(), plain)


def test_caches_work_around_compiled_blocks() -> None:
    torch.compiler.reset()
    model = opened()
    compile_blocks(model, backend="eager")
    accelerate(model, Acceleration(cache="first-block", cache_threshold=1e9))
    with model.cache_context("cond"):
        first, second = predict(model), predict(model)
    assert torch.equal(first, predict_plain := predict(opened()))
    assert relative_error(second, predict_plain) < 1e-6


def test_guidance_only_in_its_interval() -> None:
    always = video(guidance_scale=4.0, num_inference_steps=4)
    assert torch.equal(video(guidance_scale=4.0, guidance_interval=(0.0, 1.0), num_inference_steps=4), always)
    never = video(guidance_scale=1.0, num_inference_steps=4)
    none = video(guidance_scale=4.0, guidance_interval=(0.5, 0.5), num_inference_steps=4)
    assert relative_error(none, never) < 1e-5
    half = video(guidance_scale=4.0, guidance_interval=(0.0, 0.5), num_inference_steps=4)
    assert 1e-3 < relative_error(half, always) < relative_error(never, always)


@pytest.mark.parametrize("interval", [(-0.1, 1.0), (0.6, 0.5), (0.0, 1.1)])
def test_intervals_outside_the_steps_are_refused(interval) -> None:
    with pytest.raises(InvalidRequestError, match="guidance_interval"):
        video(guidance_interval=interval)


def test_unguided_steps_compute_one_branch() -> None:
    pipeline = tiny_pipeline()
    sizes: list[int] = []
    pipeline.transformer.register_forward_pre_hook(
        lambda _, __, inputs: sizes.append(inputs["hidden_states"].shape[0]), with_kwargs=True
    )
    pipeline(
        "a person smiles",
        identity_inputs=tiny_person(),
        output_type="latent",
        num_inference_steps=4,
        guidance_interval=(0.25, 0.75),
    )
    assert sizes == [1, 2, 2, 1]
