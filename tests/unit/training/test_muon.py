"""Muon's steps, which weights it changes, and runs with it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fantasyid.core.errors import InvalidRequestError
from fantasyid.training.config import OptimiserConfig
from fantasyid.training.config_files import load_stage
from fantasyid.training.groups import choose_groups, everything
from fantasyid.training.muon import Muon, orthogonalised
from fantasyid.training.objectives.video import VideoModel
from fantasyid.training.optimisers import make_optimisers
from fantasyid.training.trainer import BatchPart, Losses, Trainer
from tests.tiny import noise, tiny_identity_encoder, tiny_transformer, tiny_transformer_inputs

CONFIG = OptimiserConfig(method="muon", steps=6, batch_size=2, learning_rate=0.01, warmup_steps=0, weight_decay=0.1)
SHAPES = ((6, 4), (4, 6), (6, 4), (5, 5))


def stepped(optimiser: type[torch.optim.Optimizer], **settings: object) -> list[Tensor]:
    """Matrices after three steps on given gradients."""
    weights = [nn.Parameter(noise(*shape, seed=number)) for number, shape in enumerate(SHAPES)]
    made = optimiser([{"params": weights, "lr": 0.1, "weight_decay": 0.2}], **settings)
    for step in range(3):
        for number, weight in enumerate(weights):
            weight.grad = noise(*weight.shape, seed=10 * step + number)
        made.step()
    return [weight.detach() for weight in weights]


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has had its own since 2.9")
def test_matrices_that_are_changed_together_are_changed_as_one_after_the_other() -> None:
    """As PyTorch's own does; products of several matrices may round bfloat16 otherwise."""
    found, wanted = stepped(Muon), stepped(torch.optim.Muon, adjust_lr_fn="match_rms_adamw")
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (16, 16)])
def test_singular_vectors_stay_and_values_come_near_one(shape: tuple[int, int]) -> None:
    matrices = noise(3, *shape, seed=1) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    found = orthogonalised(matrices).float()
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    values = left.mT @ found @ right.mT
    diagonal = values.diagonal(dim1=1, dim2=2)
    assert (values - diagonal.diag_embed()).abs().max() < 0.1
    largest = diagonal[:, :2]
    assert ((largest > 0.5) & (largest < 1.3)).all()


def test_an_update_is_as_large_as_adamws() -> None:
    """Where its gradients are noise, AdamW moves each weight by about a fifth of the rate."""
    weight = nn.Parameter(torch.zeros(64, 256))
    weight.grad = noise(64, 256)
    Muon([{"params": [weight], "lr": 0.1}]).step()
    assert weight.detach().square().mean().sqrt() == pytest.approx(0.2 * 0.1, rel=0.2)


def test_it_changes_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    model = VideoModel(tiny_transformer(), tiny_identity_encoder())
    names = {weight: name for name, weight in model.named_parameters()}
    muon, adamw = make_optimisers(everything(model, CONFIG), CONFIG)
    by_muon, by_adamw = (
        {names[weight] for group in made.param_groups for weight in group["params"]} for made in (muon, adamw)
    )
    assert by_muon | by_adamw == set(names.values())
    assert not by_muon & by_adamw
    ends = {name.partition("transformer_blocks.0.")[2] for name in by_muon if ".0." in name.partition("blocks")[2][:3]}
    attention = {"attn1.to_q.weight", "attn1.to_k.weight", "attn1.to_v.weight", "attn1.to_out.0.weight"}
    injected = {f"injection.attention.{name}.weight" for name in ("to_q", "to_k", "to_v", "to_out")}
    assert ends == {*attention, *injected, "ff.net.0.proj.weight", "ff.net.2.weight"}
    assert len(by_muon) == 3 * len(ends)


def run(folder: Path, steps: int) -> Trainer:
    """Train the tiny transformer for some steps at an even rate."""
    model = VideoModel(tiny_transformer(), None)
    config = CONFIG.model_copy(update={"steps": steps, "cooldown": 0.01})
    trainer = Trainer(model, config, folder, seed=0, groups=choose_groups(model, (), config))

    def losses(part: BatchPart) -> Losses:
        predicted = model.transformer(**tiny_transformer_inputs(), return_dict=False)[0]
        return {"loss": (predicted - noise(*predicted.shape, seed=part.step)).square().mean()}

    trainer.fit(losses)
    return trainer


def test_a_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, half = run(tmp_path / "whole", 6), run(tmp_path / "broken", 3)
    resumed = run(tmp_path / "broken", 6)
    assert half.step == 3
    kept, wanted = resumed._tensors(), whole._tensors()
    assert kept.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in kept.items())
    name = "transformer.transformer_blocks.1.attn1.to_q.weight"
    assert kept[f"momentum/{name}"].abs().max() > 0
    assert f"exp_avg/{name}" not in kept


@pytest.mark.parametrize(
    ("stage", "text", "message"),
    [
        ("vision", "model: {}", "method muon is for a transformer's blocks, and here are none; leave it out"),
        ("clips", "model: {}\nshard_among: 2", "muon needs whole matrices, and shard_among shares them out; set that"),
    ],
)
def test_where_it_cannot_be_it_is_refused(tmp_path: Path, stage: str, text: str, message: str) -> None:
    optimiser = "optimiser: {method: muon, steps: 1, batch_size: 1, learning_rate: 1.0}"
    (tmp_path / "preset.yaml").write_text(f"{optimiser}\n{text}\n")
    with pytest.raises(InvalidRequestError, match=message):
        load_stage(tmp_path / "preset.yaml", stage)
