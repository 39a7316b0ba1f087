"""What a preset is said to cost is what it costs."""

import re
from pathlib import Path

import pytest
import torch

from fantasyid.core.errors import InvalidRequestError
from fantasyid.training.config import VideoStage
from fantasyid.training.config_files import load_stage
from fantasyid.training.plan import Cost, Gpus, make_plan, measure_cost, smallest_change
from tests.tiny import BASE_CONFIG, IDENTITY_CONFIG, tiny_transformer, tiny_transformer_inputs

FOLDER = Path(__file__).parents[3] / "configs" / "train"
COST = Cost(10, 1000 * 2**20, 100 * 2**20, 50 * 2**20, 10**12, 2 * 10**12, 4 * 10**11, num_layers=10)


def stage(**changes: object) -> VideoStage:
    fields = {
        "optimiser": {"steps": 10, "batch_size": 16, "learning_rate": 1.0},
        "model": {**BASE_CONFIG, **IDENTITY_CONFIG},
        **changes,
    }
    return VideoStage(stage="clips", **fields)


def test_what_is_computed_again_is_kept_less_and_done_twice() -> None:
    assert COST.activation_bytes("nothing") == 10 + 10 * 1000 * 2**20
    assert COST.activation_bytes("blocks") == 10 + (10 * 100 + 1000) * 2**20
    assert COST.activation_bytes("all_but_attention") == 10 + (10 * 150 + 1000) * 2**20
    tera = [COST.flop(what) / 1e12 for what in ("nothing", "blocks", "all_but_attention")]
    assert tera == pytest.approx([3, 4, 3.6])


def test_weights_samples_and_seconds_are_shared_out() -> None:
    config = stage(shard_among=4, groups=[{"weights": "injection"}], recompute="blocks")
    alone, four = (
        make_plan(stage(recompute="blocks"), Gpus(1, 80, 100), COST),
        make_plan(config, Gpus(4, 80, 100), COST),
    )
    transformer = tiny_transformer()
    injected = sum(p.numel() for name, p in transformer.named_parameters() if "injection" in name)
    base = sum(p.numel() for p in transformer.parameters()) - injected
    gib = four.memory_gib
    assert gib["trained weights, gradients, optimiser, average"] * 2**30 == pytest.approx(20 * injected / 4)
    encoder = four.frozen_weights - base
    assert encoder > 0
    assert gib["frozen weights"] * 2**30 == pytest.approx(4 * base / 4 + 4 * encoder)
    assert (alone.samples, four.samples) == (16, 4)
    assert (alone.step_seconds, four.step_seconds) == pytest.approx((4 * 16 / 100, 4 * 16 / 400))
    with pytest.raises(InvalidRequestError, match="2 processes cannot be grouped by 4; set shard_among"):
        make_plan(config, Gpus(2, 80, 100), COST)
    with pytest.raises(InvalidRequestError, match="A batch of 16 cannot be shared out among 32 processes"):
        make_plan(stage(), Gpus(32, 80, 100), COST)


def test_as_few_fields_as_possible_are_changed() -> None:
    config = stage()
    assert smallest_change(config, Gpus(1, 80, 100), COST) == "optimiser.accumulation: 4"
    assert smallest_change(config, Gpus(1, 35, 100), COST) == "optimiser.accumulation: 8"
    assert smallest_change(config, Gpus(1, 5, 100), COST) == "recompute: all_but_attention, optimiser.accumulation: 16"
    assert smallest_change(config, Gpus(1, 3, 100), COST) is None


def test_operations_are_those_of_the_layers_and_activations_those_that_are_kept() -> None:
    """By hand for the tiny transformer: of its weights' products forwards, and of what its own run keeps."""
    cost = measure_cost(stage())
    model, inputs = tiny_transformer(sample_frames=9), tiny_transformer_inputs(batch_size=1)
    video, text = 3 * 6 * 4, 6
    dim = BASE_CONFIG["num_attention_heads"] * BASE_CONFIG["attention_head_dim"]
    block = model.transformer_blocks[0]
    linear = sum(p.numel() for part in (block.attn1, block.ff) for p in part.parameters() if p.ndim == 2)
    by_layers = 3 * 2 * linear * (video + text)
    injected = video * 314 * IDENTITY_CONFIG["injection_dim"]
    assert cost.attention_flop == 3 * 4 * ((video + text) ** 2 * dim + injected)
    assert by_layers + cost.attention_flop < cost.forward_flop < 1.5 * (by_layers + cost.attention_flop)
    assert 2 * (cost.forward_flop - cost.attention_flop) < cost.backward_flop < 3 * cost.forward_flop
    saved: dict[int, torch.Tensor] = {}
    own = {weight.data_ptr() for weight in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.randn(1, 314, 24, requires_grad=True)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        model(**inputs, identity_tokens=tokens)
    kept = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    assert cost.activation_bytes("nothing") == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize(("name", "gpus"), [("paper", 1), ("paper-lora", 1), ("paper-full", 8)])
def test_a_preset_of_full_size_fits_and_states_its_memory(name: str, gpus: int) -> None:
    """At CogVideoX-5B's true size; layer by layer, a sample is about 1,345 x 10^12 operations for all weights."""
    if name == "paper-lora":
        pytest.importorskip("peft")
    path = FOLDER / f"{name}.yaml"
    config = load_stage(path, "clips")
    assert isinstance(config, VideoStage)
    plan = make_plan(config, Gpus(gpus, 78, 450))
    stated = re.search(r"([\d.]+) of 78 GiB", path.read_text())
    assert stated is not None
    assert plan.total_gib == pytest.approx(float(stated[1]), abs=0.1)
    assert plan.total_gib < 78
    assert 1200 < plan.teraflop < 1600
    assert plan.frozen_weights == (0 if name == "paper-full" else 5_570_283_072)
