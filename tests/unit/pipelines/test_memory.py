"""Memory plans: streaming changes no frame, estimates are ordered, and running out says what would fit."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffusers import AutoencoderKLCogVideoX
from torch import nn
from transformers import T5Config, T5EncoderModel

from fantasyid.core.errors import InvalidRequestError, OutOfMemoryError
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from fantasyid.pipelines.memory import apply_plan, needed_gib, stream_weights
from tests.tiny_pipeline import tiny_person, tiny_pipeline, tiny_pipeline_transformer

CPU = torch.device("cpu")
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without one")


def video(pipeline) -> torch.Tensor:
    return pipeline(
        "a person smiles",
        identity_inputs=tiny_person(),
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
        num_inference_steps=2,
    ).frames


def kinds_of_transformer(kind: str) -> Any:
    return tiny_pipeline_transformer(injection_kind=kind, injection_dim=32)


@pytest.mark.parametrize("kind", ["paper", "released"])
def test_streamed_weights_make_the_same_video(kind) -> None:
    pipeline = tiny_pipeline(transformer=kinds_of_transformer(kind))
    stream_weights(pipeline, CPU)
    assert torch.equal(video(pipeline), plain_video(kind))


def test_streaming_brings_a_block_in_for_its_keys_and_values() -> None:
    pipeline = tiny_pipeline()
    stream_weights(pipeline, CPU)
    block = pipeline.transformer.transformer_blocks[0]
    group = block._diffusers_hook.get_hook("group_offloading").group
    moves: list[str] = []
    for name in ("onload_", "offload_"):
        move = getattr(group, name)

        def record(move=move, name=name) -> None:
            moves.append(name)
            move()

        setattr(group, name, record)
    video(pipeline)
    assert moves == ["onload_", "offload_"] * 3  # the projection, then two steps


@cache
def plain_video(kind: str) -> torch.Tensor:
    return video(tiny_pipeline(transformer=kinds_of_transformer(kind)))


def group_offload(**options: Any) -> Callable[[FantasyIDPipeline, Path], None]:
    return lambda pipeline, _: pipeline.enable_group_offload("cpu", **options)


def group_offload_to_disk(**options: Any) -> Callable[[FantasyIDPipeline, Path], None]:
    return lambda pipeline, folder: pipeline.enable_group_offload("cpu", offload_to_disk_path=str(folder), **options)


def sequential(pipeline: FantasyIDPipeline, _: Path) -> None:
    """`enable_sequential_cpu_offload` for the CPU, which diffusers calls "cpu:0" and accelerate cannot place on."""
    for name, network in pipeline.components.items():
        if isinstance(network, nn.Module) and name not in pipeline._exclude_from_cpu_offload:
            cpu_offload(network, CPU, offload_buffers=len(network._parameters) > 0)


MEMORY_OPTIONS = {
    "model": lambda pipeline, _: pipeline.enable_model_cpu_offload(device="cpu"),
    "sequential": sequential,
    "blocks": group_offload(offload_type="block_level", num_blocks_per_group=1),
    "pairs of blocks": group_offload(offload_type="block_level", num_blocks_per_group=2),
    "leaves": group_offload(offload_type="leaf_level"),
    # Weights that are not brought in are empty memory then, so that what works outside of `forward` is seen here, too.
    "blocks on disk": group_offload_to_disk(offload_type="block_level", num_blocks_per_group=1),
    "leaves on disk": group_offload_to_disk(offload_type="leaf_level"),
    "all but two": group_offload(offload_type="leaf_level", exclude_modules=["vae", "text_encoder"]),
    "all but one": group_offload(offload_type="leaf_level", exclude_modules="vae"),
    "slices of the VAE": lambda pipeline, _: pipeline.vae.enable_slicing(),
}


@pytest.mark.parametrize(
    ("option", "kind"),
    [*((option, "paper") for option in MEMORY_OPTIONS), ("sequential", "released"), ("blocks on disk", "released")],
)
def test_memory_options_of_diffusers_make_the_same_video(option: str, kind: str, tmp_path: Path) -> None:
    pipeline = tiny_pipeline(transformer=kinds_of_transformer(kind))
    MEMORY_OPTIONS[option](pipeline, tmp_path)
    assert pipeline.face_reader_model.device.type == "cpu"
    torch.testing.assert_close(video(pipeline), plain_video(kind), rtol=0, atol=1e-5)


def test_offloading_can_be_taken_back_and_chosen_anew() -> None:
    pipeline = tiny_pipeline(transformer=kinds_of_transformer("paper"))
    sequential(pipeline, Path())
    pipeline.enable_model_cpu_offload(device="cpu")
    assert torch.equal(video(pipeline), plain_video("paper"))


def test_weights_kept_in_float8_are_rounded_and_nothing_else() -> None:
    kept, rounded = (tiny_pipeline(transformer=kinds_of_transformer("paper")) for _ in range(2))
    kept.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    for weight, small in zip(rounded.transformer.parameters(), kept.transformer.parameters(), strict=True):
        if small.dtype == torch.float8_e4m3fn:
            weight.data = small.data.float()
    made = video(kept)
    torch.testing.assert_close(made, video(rounded), rtol=0, atol=1e-5)
    assert 0 < (made - plain_video("paper")).abs().mean() < 0.02


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipeline: pipeline.enable_attention_slicing(), "would change nothing"),
        (lambda pipeline: pipeline.enable_attention_slicing("max"), "would change nothing"),
        (lambda pipeline: pipeline.enable_xformers_memory_efficient_attention(), "leave the prompt out"),
        (lambda pipeline: pipeline.enable_group_offload("cpu"), "`num_blocks_per_group` must be provided"),
        (lambda pipeline: pipeline.enable_group_offload("cpu", offload_type="leaf_level", use_stream=True), "streams"),
        (lambda pipeline: pipeline.enable_group_offload("cpu", offload_type="leaf_level", other=1), "other"),
        (lambda pipeline: pipeline.enable_group_offload("cpu", offload_type="rows"), "rows"),
        (lambda pipeline: pipeline.enable_group_offload("nowhere"), "nowhere"),
        (lambda pipeline: pipeline.enable_model_cpu_offload(1, "cpu:1"), "Cannot pass both"),
        pytest.param(lambda pipeline: pipeline.enable_model_cpu_offload(), "not found", marks=NO_GPU),
        pytest.param(lambda pipeline: pipeline.enable_sequential_cpu_offload(), "not found", marks=NO_GPU),
    ],
)
def test_memory_options_that_cannot_work_are_refused(call: Callable[[FantasyIDPipeline], None], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        call(tiny_pipeline())


def test_offloading_on_top_of_offloading_is_refused() -> None:
    pipeline = tiny_pipeline()
    pipeline.enable_group_offload("cpu", offload_type="leaf_level")
    for call in (pipeline.enable_model_cpu_offload, pipeline.enable_sequential_cpu_offload):
        with pytest.raises(InvalidRequestError, match="group offload"):
            call(device="cpu")


def test_balanced_and_low_need_a_gpu() -> None:
    for plan in ("balanced", "low"):
        with pytest.raises(InvalidRequestError, match="use 'fast'"):
            apply_plan(tiny_pipeline(), plan, CPU)
    assert apply_plan(tiny_pipeline(), "auto", CPU) == "fast"


def test_plans_at_full_size_fit_the_cards_they_are_for() -> None:
    with torch.device("meta"):
        t5 = T5EncoderModel(
            T5Config(d_model=4096, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
        )
        transformer = FantasyIDTransformer3DModel(
            num_attention_heads=48, in_channels=32, text_embed_dim=4096, num_layers=42, identity_token_dim=3072
        )
        vae = AutoencoderKLCogVideoX(
            block_out_channels=(128, 256, 256, 512),
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            layers_per_block=3,
        )
    networks = {"text_encoder": t5, "transformer": transformer, "vae": vae}
    pipeline = tiny_pipeline(**{name: network.to(torch.bfloat16) for name, network in networks.items()})
    fast, balanced, low = (needed_gib(pipeline, plan) for plan in ("fast", "balanced", "low"))
    assert 32 < fast < 48
    assert 12 < balanced < 22
    assert 4 < low < 9
    pipeline.vae.extra = nn.Linear(1024, 1024, bias=False)
    assert needed_gib(pipeline, "fast") - fast == pytest.approx(4 / 1024)


@pytest.mark.parametrize(
    ("plan", "remedy"), [("fast", "'balanced' .*'low' "), ("balanced", "use plan 'low' "), ("low", "fewer videos")]
)
def test_running_out_of_memory_says_what_would_fit(plan, remedy) -> None:
    pipeline = tiny_pipeline()
    pipeline.memory_plan = plan

    def run_out(*_) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    pipeline.transformer.register_forward_pre_hook(run_out)
    with pytest.raises(OutOfMemoryError, match=f"memory plan '{plan}'.*{remedy}"):
        video(pipeline)
