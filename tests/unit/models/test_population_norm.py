"""Identity tokens less what all people have in common."""

import pytest
import torch

from fantasyid.models.population_norm import PopulationNorm, drift, token_spread
from tests.tiny import noise, tiny_identity_encoder

PEOPLE, TOKENS, DIM = 6, 5, 8


def people(seed: int = 0, common: float = 3.0, spread: float = 0.2) -> torch.Tensor:
    return common * noise(1, TOKENS, DIM, seed=100) + spread * noise(PEOPLE, TOKENS, DIM, seed=seed)


def test_in_training_the_batchs_mean_is_taken_out_and_the_rest_is_of_unit_size() -> None:
    out = PopulationNorm(TOKENS, DIM).train()(people())
    assert out.mean(0).abs().max() < 1e-5
    assert float(out.square().mean().sqrt()) == pytest.approx(1, abs=1e-4)
    expected = people() - people().mean(0)
    torch.testing.assert_close(out, expected / expected.square().mean().sqrt())


def test_a_part_common_to_all_gets_no_gradient() -> None:
    common = torch.zeros(1, TOKENS, DIM, requires_grad=True)
    persons = people().requires_grad_()
    weight = noise(PEOPLE, TOKENS, DIM, seed=3)
    (PopulationNorm(TOKENS, DIM).train()(persons + common) * weight).sum().backward()
    assert common.grad is not None
    assert persons.grad is not None
    assert common.grad.abs().max() < 1e-4 * persons.grad.abs().max()


def test_afterwards_what_was_measured_counts_and_one_person_is_enough() -> None:
    norm = PopulationNorm(TOKENS, DIM).eval()
    assert torch.equal(norm(people()), people())
    norm.measure(people(1))
    mean = people(1).mean(0)
    spread = (people(1) - mean).square().mean().sqrt()
    alone = people(2)[:1]
    torch.testing.assert_close(norm(alone), (alone - mean) / spread, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(norm(people(2))[:1], norm(alone))
    again = PopulationNorm(TOKENS, DIM).eval()
    again.load_state_dict(norm.state_dict())
    assert torch.equal(again(alone), norm(alone))


def test_training_does_not_change_what_was_measured() -> None:
    norm = PopulationNorm(TOKENS, DIM)
    norm.measure(people(1))
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    norm.train()(people(2))
    assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())
    assert not list(norm.parameters())


def test_one_person_has_no_mean_of_others() -> None:
    norm = PopulationNorm(TOKENS, DIM).train()
    for call in (norm, norm.measure, drift, token_spread):
        with pytest.raises(AssertionError, match="take more"):
            call(people()[:1])


def test_drift_is_none_for_tokens_as_they_should_be_and_grows_both_ways() -> None:
    right = PopulationNorm(TOKENS, DIM).train()(people())
    assert float(drift(right)) == pytest.approx(0, abs=1e-6)
    assert float(drift(right + 2)) == pytest.approx(4, rel=1e-3)
    for factor in (0.1, 10.0):
        assert float(drift(right * factor)) == pytest.approx(5.302, rel=1e-2)


def test_token_spread_is_the_share_that_tells_people_apart() -> None:
    assert float(token_spread(people(common=0.0))) == pytest.approx((1 - 1 / PEOPLE) ** 0.5, abs=0.05)
    assert float(token_spread(people(common=10.0, spread=0.1))) < 0.02
    same = people()[:1].expand(PEOPLE, -1, -1)
    assert float(token_spread(same)) < 1e-5


def test_an_encoder_that_centres_describes_and_then_takes_the_population_out() -> None:
    plain, centred = tiny_identity_encoder(), tiny_identity_encoder(centre=True)
    assert plain.population is None
    assert centred.population is not None
    assert {name for name in centred.state_dict() if name not in plain.state_dict()} == {
        "population.mean",
        "population.spread",
    }
    centred.load_state_dict(plain.state_dict(), strict=False)
    faces, vertices = noise(3, 4, 4, 32), noise(3, 60, 3, seed=1)
    described = centred.describe(faces, vertices)
    assert torch.equal(plain(faces, vertices), plain.describe(faces, vertices))
    assert torch.equal(plain(faces, vertices), described)
    centred.population.measure(described)
    expected = (described - described.mean(0)) / centred.population.spread
    torch.testing.assert_close(centred(faces, vertices), expected, atol=1e-4, rtol=1e-4)
    centred.train()
    torch.testing.assert_close(centred(faces, vertices).mean(0), torch.zeros(7, 24), atol=1e-5, rtol=0)


def test_an_encoder_without_vertices_centres_its_own_tokens() -> None:
    encoder = tiny_identity_encoder(centre=True, use_vertices=False).train()
    tokens = encoder(noise(3, 4, 4, 32), torch.zeros(3, 1, 3))
    assert tokens.shape == (3, 4, 24)
    assert tokens.mean(0).abs().max() < 1e-5
