"""What the identity encoder is taught before the video model meets it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fantasyid.data.precompute import ClipPool
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.vision import FaceVisionModel
from fantasyid.training.objectives.encoder import Answers, EncoderObjective, TaughtEncoder
from tests.tiny import noise, seeded, tiny_identity_encoder

PEOPLE, BATCH = 8, 6


@pytest.fixture(scope="module")
def pool(head: HeadModel) -> ClipPool:
    """Eight people, each a pattern of its own that all of their pictures show."""
    patterns = nn.functional.interpolate(noise(PEOPLE, 3, 4, 4).sigmoid(), size=(96, 96), mode="bilinear")
    pictures, empty = (patterns * 255).byte().numpy(), np.zeros((PEOPLE, 1))
    return ClipPool(
        clips=empty,
        reference=empty,
        face=pictures,
        frame_face=pictures.copy(),
        neutral_face=pictures[:, :, ::-1].copy(),
        identity=noise(PEOPLE, len(head.identity_basis), seed=1).half().numpy(),
        captions=[str(k) for k in range(PEOPLE)],
    )


def objective(pools: list[ClipPool], head: HeadModel, **changes: Any) -> EncoderObjective:
    return EncoderObjective(pools, head, **{"batch_size": BATCH, "rng": np.random.default_rng(0), **changes})


def taught(**encoder: Any) -> TaughtEncoder:
    """Three tokens a side of 32 pixels, pooled to one."""
    vision = {"image_size": 96, "patch_size": 32, "width": 32, "num_layers": 1, "num_heads": 2, "embedding_dim": 8}
    parts = (
        seeded(FaceVisionModel, **vision),
        tiny_identity_encoder(**{"centre": True, "grid_size": 3, "pool_factor": 3, **encoder}),
    )
    model: TaughtEncoder = seeded(lambda: TaughtEncoder(*parts, width=64, num_layers=1))
    return model.train()


class Knowing(nn.Module):
    """Gives answers that are true, as far as `wrong` lets it."""

    def __init__(self, goal: EncoderObjective, wrong: str = "") -> None:
        super().__init__()
        self.encoder, self.goal, self.wrong = tiny_identity_encoder(), goal, wrong

    @torch.autocast("cpu", enabled=False)
    def forward(self, faces: Tensor, vertices: Tensor) -> Answers:
        rows, mesh = self.goal._rows, self.encoder.vertex_encoder
        assert mesh is not None
        shapes = rows["identity"].float()
        heads = self.goal.head.shape(shapes, torch.zeros(len(shapes), len(self.goal.head.expression_basis)))
        offsets = mesh.coarse_vertices(heads) - mesh.coarse_vertices(self.goal.head.mean[None])
        who = torch.cdist(vertices.flatten(1), heads.flatten(1)).argmin(1)
        told = dict.fromkeys(("paint", "offsets", "code"), who)
        if self.wrong:
            half = len(who) // 2
            told[self.wrong] = torch.cat([who[:half], who[half:].roll(1)])
        return Answers(
            embedding=torch.eye(len(shapes))[who],
            described=noise(len(faces), 5, 4),
            painted=rows["neutral_face"][told["paint"]].float() / 127.5 - 1,
            offsets=offsets[told["offsets"]],
            code=torch.eye(len(shapes))[told["code"]],
        )


def distinct(pool: ClipPool, head: HeadModel) -> EncoderObjective:
    """A batch in which nobody is drawn twice, so that everybody can be told from the others."""
    for seed in range(200):
        if len(np.unique(np.random.default_rng(seed).integers(0, PEOPLE, 3))) == 3:
            return objective([pool], head, batch_size=3, shape_noise=0.0, rng=np.random.default_rng(seed))
    raise AssertionError("no such batch")


def test_right_answers_cost_next_to_nothing(pool: ClipPool, head: HeadModel) -> None:
    goal = distinct(pool, head)
    losses = replace(goal, drift_weight=0.0)(Knowing(goal))  # type: ignore[arg-type]
    assert losses["paint"] < 1e-4
    assert losses["shape_cm"] < 1e-4
    assert losses["rank1"] == losses["rank1_tokens"] == 1
    assert losses["loss"] < 1e-3


@pytest.mark.parametrize(("wrong", "name"), [("paint", "paint"), ("offsets", "shape_cm"), ("code", "rank1_tokens")])
def test_a_wrong_answer_is_seen_by_what_asks_for_it(pool: ClipPool, head: HeadModel, wrong: str, name: str) -> None:
    right, broken = (
        distinct(pool, head)(Knowing(distinct(pool, head), which))  # type: ignore[arg-type]
        for which in ("", wrong)
    )
    assert broken["loss"] > right["loss"] + 0.01
    changed = {key for key in ("paint", "shape_cm", "rank1", "rank1_tokens") if abs(broken[key] - right[key]) > 1e-3}
    assert changed == {name}


def test_views_shapes_and_targets_are_of_the_same_people(pool: ClipPool, head: HeadModel) -> None:
    goal = objective([pool, pool], head, batch_size=40, shape_noise=0.0)
    faces, vertices, identity, target = goal._batch()
    every = torch.from_numpy(pool.identity).float()
    who = torch.cdist(identity, every).argmin(1)
    assert len(who.unique()) == PEOPLE
    wanted = torch.from_numpy(pool.neutral_face).float()[who] / 127.5 - 1
    assert torch.equal(target, wanted)
    heads = head.shape(identity, torch.zeros(40, len(head.expression_basis)))
    torch.testing.assert_close(vertices, heads.repeat(2, 1, 1))
    seen = nn.functional.avg_pool2d(faces, 24).flatten(1)
    known = nn.functional.avg_pool2d(torch.from_numpy(pool.face).float() / 127.5 - 1, 24).flatten(1)
    seen, known = (x - x.mean(1, keepdim=True) for x in (seen, known))
    found = (nn.functional.normalize(seen, dim=1) @ nn.functional.normalize(known, dim=1).T).argmax(1)
    assert (found == who.repeat(2)).float().mean() > 0.9  # pictures are augmented


@pytest.mark.parametrize("encoder", [{}, {"use_vertices": False}, {"centre": False}])
def test_every_trained_parameter_gets_a_gradient(pool: ClipPool, head: HeadModel, encoder: dict[str, Any]) -> None:
    model = taught(**encoder)
    losses = objective([pool], head)(model)
    assert ("shape_cm" in losses) == (encoder != {"use_vertices": False})
    losses["loss"].backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == ([] if encoder != {"use_vertices": False} else ["to_offset.weight", "to_offset.bias"])


def test_the_loss_falls_and_people_are_told_apart(pool: ClipPool, head: HeadModel) -> None:
    model, goal = taught(), objective([pool], head)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    values = []
    for _ in range(40):
        losses = goal(model)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
        values.append(float(losses["loss"].detach()))
    assert np.mean(values[-5:]) < 0.8 * np.mean(values[:5])


def test_the_population_is_measured_over_many_people(pool: ClipPool, head: HeadModel) -> None:
    model, goal = taught(), objective([pool], head)
    population = model.encoder.population
    assert population is not None
    goal.measure_population(model, batches=6)
    with torch.no_grad():
        faces, vertices, _, _ = goal._batch()
        described = model(faces, vertices).described
    assert (described.mean(0) - population.mean).square().mean().sqrt() < 0.5 * population.spread
    plain = taught(centre=False)
    goal.measure_population(plain)  # has none
