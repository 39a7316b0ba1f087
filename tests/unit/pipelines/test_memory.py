"""Memory plans: streaming changes no frame, estimates are ordered, and running out says what would fit."""

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import nn
from transformers import T5Config, T5EncoderModel

from fantasyid.core.errors import InvalidRequestError, OutOfMemoryError
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.pipelines.memory import apply_plan, needed_gib, stream_weights
from tests.tiny_pipeline import tiny_person, tiny_pipeline, tiny_pipeline_transformer

CPU = torch.device("cpu")


def video(pipeline) -> torch.Tensor:
    return pipeline(
        "a person smiles",
        identity_inputs=tiny_person(),
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
        num_inference_steps=2,
    ).frames


@pytest.mark.parametrize("kind", ["paper", "released"])
def test_streamed_weights_make_the_same_video(kind) -> None:
    def transformer():
        return tiny_pipeline_transformer(injection_kind=kind, use_layer_aware=kind == "paper", injection_dim=32)

    plain = video(tiny_pipeline(transformer=transformer()))
    pipeline = tiny_pipeline(transformer=transformer())
    stream_weights(pipeline, CPU)
    assert torch.equal(video(pipeline), plain)


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
