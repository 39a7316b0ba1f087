"""A LoRA that is trained beside the identity modules, and what is left of it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError
from fantasyid.models.transformer import FantasyIDTransformer3DModel, is_injected
from fantasyid.training.checkpoint import Checkpoints
from fantasyid.training.config import GroupConfig, LoraConfig, OptimiserConfig
from fantasyid.training.config_files import load_stage
from fantasyid.training.groups import choose_groups
from fantasyid.training.lora import add_lora, is_adapter, put_together, save_lora
from fantasyid.training.objectives.video import VideoModel
from fantasyid.training.optimisers import is_by_muon
from tests.tiny import noise, tiny_transformer, tiny_transformer_inputs
from tests.tiny_pipeline import tiny_pipeline
from tests.unit.training.test_video_stages import ENCODER, Train, train

__all__ = ["train"]  # a fixture
pytest.importorskip("peft")
GROUPS = ("identity_encoder", "injection", "base_lora")
FILE = "pytorch_lora_weights.safetensors"


def with_lora(rank: int = 4, alpha: float = 8.0) -> FantasyIDTransformer3DModel:
    transformer = tiny_transformer(sample_width=4, sample_height=4, max_text_seq_length=12)
    add_lora(transformer, LoraConfig(rank=rank, alpha=alpha))
    return transformer


def predict(transformer: FantasyIDTransformer3DModel) -> Tensor:
    with torch.no_grad():
        found: Tensor = transformer(**tiny_transformer_inputs(), identity_tokens=noise(2, 7, 24), return_dict=False)[0]
    return found


def test_it_stands_beside_the_attention_of_every_block_and_changes_nothing_at_first() -> None:
    transformer = with_lora()
    layers = {name.partition(".lora_")[0] for name, _ in transformer.named_parameters() if is_adapter(name)}
    attention = ("to_q", "to_k", "to_v", "to_out.0")
    assert layers == {f"transformer_blocks.{block}.attn1.{layer}" for block in range(3) for layer in attention}
    assert torch.equal(predict(transformer), predict(put_together(transformer)))
    model = VideoModel(transformer, None)
    assert not [name for name, weight in model.named_parameters() if is_adapter(name) and is_by_muon(name, weight)]


def test_what_is_saved_is_what_was_trained(tmp_path: Path) -> None:
    """The base alone and, merged by the pipeline, the LoRA with its own alpha."""
    transformer = with_lora()
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            if ".lora_B" in name:
                weight.copy_(0.2 * noise(*weight.shape))
    save_lora(transformer, tmp_path)
    base = put_together(transformer)
    wanted = tiny_transformer(sample_width=4, sample_height=4, max_text_seq_length=12).state_dict()
    assert base.state_dict().keys() == wanted.keys()
    assert all(torch.equal(weight, wanted[name]) for name, weight in base.state_dict().items())
    trained = predict(transformer)
    assert (predict(base) - trained).abs().max() > 1e-2
    pipeline = tiny_pipeline(transformer=base)
    pipeline.merge_lora(tmp_path / FILE)
    torch.testing.assert_close(predict(pipeline.transformer), trained, atol=1e-5, rtol=1e-4)


def test_a_stage_trains_it_and_leaves_the_base(train: Train, tmp_path: Path) -> None:
    result = train("clips", 3, groups=GROUPS, lora={"rank": 2, "alpha": 2.0}, identity_encoder=ENCODER)
    trained = FantasyIDTransformer3DModel.from_pretrained(result / "transformer")
    base = tiny_transformer(identity_token_dim=None).state_dict()
    assert all(
        torch.equal(weight, base[name]) for name, weight in trained.state_dict().items() if not is_injected(name)
    )
    gains = [weight for name, weight in trained.state_dict().items() if name.endswith("feature.norm.weight")]
    assert all(gain.abs().max() > 0 for gain in gains)
    before = {name: weight.clone() for name, weight in trained.state_dict().items()}
    pipeline = tiny_pipeline(transformer=trained)
    pipeline.merge_lora(result / FILE)
    moved = {name for name, weight in pipeline.transformer.state_dict().items() if (weight != before[name]).any()}
    attention = ("to_q", "to_k", "to_v", "to_out.0")
    assert moved == {f"transformer_blocks.{block}.attn1.{layer}.weight" for block in range(3) for layer in attention}
    _, tensors = Checkpoints(result.parent).load() or (None, ())
    kept = {name.partition("/")[2] for name, _ in tensors if not name.startswith("buffer/")}
    assert any(is_adapter(name) for name in kept)
    assert not any(".base_layer." in name for name in kept)


def test_its_group_is_its_factors_alone() -> None:
    model = VideoModel(with_lora(), None)
    config = OptimiserConfig(steps=1, batch_size=1, learning_rate=1.0)
    (group,) = choose_groups(model, (GroupConfig(weights="base_lora", learning_rate=0.5),), config)
    assert group.learning_rate == 0.5
    assert set(group.weights) == {name for name, _ in model.named_parameters() if is_adapter(name)}
    assert len(group.weights) == 3 * 4 * 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("lora: {rank: 4, alpha: 4}", "lora and a group base_lora belong together"),
        ("groups: [{weights: base_lora}]", "lora and a group base_lora belong together"),
        (
            "lora: {rank: 4, alpha: 4}\ngroups: [{weights: base_lora}, {weights: base}]",
            "a LoRA stands for training the base",
        ),
        ("lora: {rank: 0, alpha: 4}\ngroups: [{weights: base_lora}]", "lora.rank: .*greater than 0"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, fields: str, message: str) -> None:
    optimiser = "optimiser: {steps: 1, batch_size: 1, learning_rate: 1.0}\nmodel: {}\n"
    (tmp_path / "preset.yaml").write_text(optimiser + fields)
    with pytest.raises(InvalidRequestError, match=message):
        load_stage(tmp_path / "preset.yaml", "clips")
