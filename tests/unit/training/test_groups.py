"""What is trained at which rate."""

import pytest
import torch

from fantasyid.core.errors import InvalidRequestError
from fantasyid.training.config import GroupConfig, OptimiserConfig
from fantasyid.training.groups import choose_groups, keep_frozen_in, optimiser_groups
from fantasyid.training.objectives.video import VideoModel
from tests.tiny import tiny_identity_encoder, tiny_transformer

CONFIG = OptimiserConfig(steps=1, batch_size=1, learning_rate=3e-6, weight_decay=1e-4)
PAPER = (
    GroupConfig(weights="identity_encoder", learning_rate=1e-4),
    GroupConfig(weights="injection_gain", learning_rate=1e-3, weight_decay=0.0),
    GroupConfig(weights="injection", learning_rate=1e-4),
)


def model(**changes: object) -> VideoModel:
    return VideoModel(tiny_transformer(**changes), tiny_identity_encoder())


@pytest.mark.parametrize("kind", ["paper", "paper_without_layers"])
def test_every_weight_is_in_the_first_group_that_names_it_and_the_rest_is_frozen(kind: str) -> None:
    video = model(injection_kind=kind)
    encoder, gain, injection = choose_groups(video, PAPER, CONFIG)
    assert all(name.startswith("identity_encoder.") for name in encoder.weights)
    ends = {name.removeprefix("transformer.").partition("injection")[2] for name in gain.weights}
    assert ends == ({".feature.norm.weight", ".feature.norm.bias"} if kind == "paper" else {"_gain"})
    assert all(".injection." in name for name in injection.weights)
    trained = {*encoder.weights, *gain.weights, *injection.weights}
    assert {name for name, weight in video.named_parameters() if weight.requires_grad} == trained
    assert len(trained) == len(encoder.weights) + len(gain.weights) + len(injection.weights)
    left = {name for name, _ in video.named_parameters()} - trained
    assert left == {
        name for name, _ in video.named_parameters() if name.startswith("transformer.") and "inj" not in name
    }


def test_groups_have_their_rates_and_only_matrices_decay() -> None:
    parts = optimiser_groups(choose_groups(model(), (*PAPER, GroupConfig(weights="base")), CONFIG), lambda *_: True)
    found = {(part["peak"], part["weight_decay"], part["params"][0].ndim >= 2) for part in parts}
    rates = {(1e-4, 1e-4, True), (1e-4, 0.0, False), (1e-3, 0.0, False), (3e-6, 1e-4, True), (3e-6, 0.0, False)}
    assert found == rates
    assert sum(len(part["params"]) for part in parts) == len(list(model().parameters()))


def test_without_groups_everything_is_trained() -> None:
    (group,) = choose_groups(model(), (), CONFIG)
    assert set(group.weights) == {name for name, _ in model().named_parameters()}
    assert group.learning_rate == 3e-6


def test_a_group_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="The group injection_gain has no weights"):
        choose_groups(model(), (PAPER[2], PAPER[1]), CONFIG)


def test_frozen_weights_are_narrow_only_where_nothing_is_lost() -> None:
    video = model()
    choose_groups(video, PAPER, CONFIG)
    with pytest.raises(InvalidRequestError, match=r"transformer\.[\w.]+ would be rounded; set frozen_dtype to float32"):
        keep_frozen_in(torch.bfloat16, video)
    with torch.no_grad():
        for weight in video.parameters():
            weight.copy_(weight.bfloat16())
    keep_frozen_in(torch.bfloat16, video)
    for weight in video.parameters():
        is_narrow = not weight.requires_grad and weight.ndim > 1
        assert weight.dtype == (torch.bfloat16 if is_narrow else torch.float32)
