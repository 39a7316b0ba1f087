"""What the stages minimise."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor, nn

from fantasyid.core.upstream import FakeTensorMode
from fantasyid.data.precompute import ClipPool, LatentPool
from fantasyid.data.repose.rig import CANVAS, RigSet
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.vision import FaceVisionModel, FaceVisionOutput
from fantasyid.training.clips import SeveralPools
from fantasyid.training.objectives.vae import edge_loss
from fantasyid.training.objectives.video import SCHEDULER, VideoModel, VideoObjective
from fantasyid.training.objectives.vision import VisionObjective, augment
from fantasyid.training.trainer import BatchPart, Losses
from tests.tiny import BASE_CONFIG, noise, open_injection, seeded, tiny_identity_encoder, tiny_transformer

CLIPS, BATCH = 5, 64
NO_DROPS = {"drop_text": 0.0, "drop_reference": 0.0, "drop_identity": 0.0, "drop_all": 0.0}


def objective(pool: LatentPool, head: HeadModel, **changes: Any) -> VideoObjective:
    fields = {"batch_size": BATCH, **changes}
    where = {"seed": 0, "device": torch.device("cpu")}
    return VideoObjective(pool, CogVideoXDDIMScheduler(**SCHEDULER), head, **where, **fields)


def losses(goal: VideoObjective, model: VideoModel, step: int = 0) -> Losses:
    return goal(model, BatchPart(step))


class Recorder(nn.Module):
    """Stands where the transformer does, keeps what it was given, and answers with `answer(noisy, timesteps)`."""

    def __init__(self, answer: Any = None) -> None:
        super().__init__()
        self.config = tiny_transformer().config
        self.answer = answer or (lambda noisy, timesteps: torch.zeros_like(noisy))

    def forward(self, hidden_states: Tensor, text: Tensor, timesteps: Tensor, **others: Any) -> tuple[Tensor]:
        self.noisy, self.conditions = hidden_states.split(BASE_CONFIG["out_channels"], dim=2)
        self.text, self.timesteps, self.others = text, timesteps, others
        return (self.answer(self.noisy, timesteps),)


def record(objective: VideoObjective) -> Recorder:
    recorder = Recorder()
    losses(objective, VideoModel(recorder, tiny_identity_encoder()))
    return recorder


def test_noise_and_velocity_are_the_schedulers(pool: LatentPool, head: HeadModel) -> None:
    """Denoising the noisy latents with the velocity as prediction gives the clean ones: the sampler's own step."""
    goal = objective(pool, head)
    clean, grain = noise(4, 3, 4, 6, 4, seed=8), noise(4, 3, 4, 6, 4, seed=9)
    timesteps = torch.tensor([0, 333, 777, 999])
    noisy, velocity = goal._diffuse(clean, grain, timesteps)
    assert torch.allclose(noisy, goal.scheduler.add_noise(clean, grain, timesteps), atol=1e-6)
    assert torch.allclose(noisy[3], grain[3], atol=1e-6)  # zero terminal signal-to-noise ratio
    goal.scheduler.set_timesteps(1000)
    for k, timestep in enumerate(timesteps):
        step = goal.scheduler.step(velocity[k : k + 1], timestep, noisy[k : k + 1], return_dict=True)
        assert torch.allclose(step.pred_original_sample[0], clean[k], atol=1e-4)


def test_predicting_the_true_velocity_costs_nothing(pool: LatentPool, head: HeadModel) -> None:
    goal = objective(pool.rows(torch.tensor([0])), head)
    clean = pool.clips[:1].float()

    def velocity(noisy: Tensor, timesteps: Tensor) -> Tensor:
        alpha = goal.scheduler.alphas_cumprod[timesteps][:, None, None, None, None]
        return (alpha.sqrt() * noisy - clean) / (1 - alpha).sqrt()

    assert losses(goal, VideoModel(Recorder(velocity), None))["loss"] < 1e-8
    off = VideoModel(Recorder(lambda *given: velocity(*given) + 0.5), None)
    assert losses(goal, off)["loss"] == pytest.approx(0.25, 1e-3)


def test_without_drops_everything_is_given(pool: LatentPool, head: HeadModel) -> None:
    seen = record(objective(pool, head, **NO_DROPS))
    texts = {tuple(text[0].tolist()): k for k, text in enumerate(pool.text.float())}
    rows = torch.tensor([texts[tuple(text[0].tolist())] for text in seen.text])
    assert torch.equal(seen.text, pool.text[rows].float())
    assert torch.equal(seen.conditions[:, :1], pool.reference[rows].float())
    assert seen.conditions[:, 1:].abs().max() == 0
    assert torch.equal(seen.others["identity_scale"], torch.ones(BATCH))
    assert seen.others["identity_tokens"].shape == (BATCH, 7, 24)
    assert len(rows.unique()) == CLIPS
    assert seen.timesteps.min() < 100
    assert seen.timesteps.max() > 900


@pytest.mark.parametrize(
    ("drops", "gone"),
    [
        ({"drop_text": 1.0}, {"text"}),
        ({"drop_reference": 1.0}, {"reference"}),
        ({"drop_identity": 1.0}, {"identity"}),
        ({"drop_all": 1.0}, {"text", "reference", "identity"}),
    ],
)
def test_drops_take_away_what_they_name(
    pool: LatentPool, head: HeadModel, drops: dict[str, float], gone: set[str]
) -> None:
    seen = record(objective(pool, head, **{**NO_DROPS, **drops}))
    empty = (seen.text == pool.null_text.float()).flatten(1).all(1)
    blank = (seen.conditions == 0).flatten(1).all(1)
    dropped = seen.others["identity_scale"] == 0
    for name, samples in (("text", empty), ("reference", blank), ("identity", dropped)):
        assert samples.all() if name in gone else not samples.any(), name


def test_drops_are_shares_and_independent(pool: LatentPool, head: HeadModel) -> None:
    seen = record(objective(pool, head, batch_size=512, drop_text=0.5, drop_reference=0.2, drop_identity=0.3))
    empty = (seen.text == pool.null_text.float()).flatten(1).all(1)
    blank = (seen.conditions == 0).flatten(1).all(1)
    dropped = seen.others["identity_scale"] == 0
    for samples, share in ((empty, 0.5), (blank, 0.2), (dropped, 0.3)):
        assert abs(samples.float().mean() - (1 - 0.95 * (1 - share))) < 0.07
    assert (empty & ~blank).any()
    assert (blank & ~empty).any()
    assert (empty & blank & dropped).float().mean() > 0.05


def test_short_clips_have_fewer_positions(pool: LatentPool, head: HeadModel) -> None:
    seen = record(objective(replace(pool, clips=pool.clips[:, :1]), head))
    assert seen.noisy.shape == (BATCH, 1, 4, 6, 4)
    assert seen.others["image_rotary_emb"][0].shape == (6 * 4, 16)
    assert record(objective(pool, head)).others["image_rotary_emb"][0].shape == (3 * 6 * 4, 16)


def test_the_known_shape_is_blurred_as_asked(pool: LatentPool, head: HeadModel) -> None:
    goal, rows = objective(pool, head, shape_noise=0.0, **NO_DROPS), pool.rows(torch.zeros(BATCH, dtype=torch.int64))
    encoder = tiny_identity_encoder()
    grain = noise(BATCH, pool.identity.shape[1], seed=8)
    exact = goal.described(encoder, rows, grain)
    neutral = torch.zeros(1, len(head.expression_names))
    wanted = encoder(pool.face_tokens[:1].float(), head.shape(pool.identity[:1].float(), neutral))
    assert torch.allclose(exact, wanted.expand_as(exact), atol=1e-5)
    blurred = replace(goal, shape_noise=0.2).described(encoder, rows, grain)
    assert blurred.std(0).mean() > 100 * exact.std(0).mean()


def test_a_step_is_drawn_again_as_it_was(pool: LatentPool, head: HeadModel) -> None:
    model, goal = VideoModel(tiny_transformer(), tiny_identity_encoder()), objective(pool, head, batch_size=4)
    first, second, again = (losses(goal, model, step)["loss"] for step in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(losses(replace(goal, seed=1), model)["loss"], first)


def test_the_parts_of_a_batch_are_those_of_the_whole(pool: LatentPool, head: HeadModel) -> None:
    """The same clips with the same noise, shared out: their mean losses' mean is the whole's."""
    two = [pool.rows(torch.arange(2)), pool.rows(torch.arange(2, CLIPS))]
    goal = replace(objective(pool, head, batch_size=6), clips=SeveralPools(two))
    model = VideoModel(tiny_transformer(), None)
    whole, parts = goal(model, BatchPart(3)), [goal(model, BatchPart(3, part, 3)) for part in range(3)]
    torch.testing.assert_close(torch.stack([part["loss"] for part in parts]).mean(), whole["loss"])
    assert len({float(part["loss"].detach()) for part in parts}) == 3


def test_losses_with_and_without_reference_are_over_the_samples_of_their_kind(
    pool: LatentPool, head: HeadModel
) -> None:
    """Sums and counts of all parts of a batch, some of which have none of a kind, are those of its samples."""
    goal = objective(pool, head, batch_size=6, drop_reference=0.3, drop_all=0.3, drop_text=0.0, drop_identity=0.0)
    model = VideoModel(tiny_transformer(), None)
    parts = [goal(model, BatchPart(3, part, 6)) for part in range(6)]
    told = [sample for part in range(6) for sample in goal.samples(model, BatchPart(3, part, 6))]
    kinds = {
        "with_reference": [sample["loss"] for sample in told if sample["keep_reference"]],
        "without_reference": [
            sample["loss"] for sample in told if sample["keep_text"] and not sample["keep_reference"]
        ],
    }
    for name, wanted in kinds.items():
        assert 0 < len(wanted) < 5
        total, count = torch.stack([part[name] for part in parts]).sum(0).tolist()
        assert (total, count) == (pytest.approx(sum(wanted), rel=1e-4), len(wanted)), name


def test_a_step_reads_no_number_back_and_computes_positions_once(pool: LatentPool, head: HeadModel) -> None:
    """On a GPU either would let it wait; a tensor without content refuses to tell its numbers."""
    goal, recorder = objective(pool, head, batch_size=4), Recorder()
    codes = []
    for step in range(2):
        losses(goal, VideoModel(recorder, None), step)
        codes.append(recorder.others["image_rotary_emb"])
    assert codes[0] is codes[1]
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = VideoModel(tiny_transformer(), tiny_identity_encoder())
        for step in range(2):
            losses(goal, model, step)["loss"].backward()


@pytest.mark.parametrize("freeze_base", [False, True])
def test_every_trained_parameter_gets_a_gradient(pool: LatentPool, head: HeadModel, freeze_base: bool) -> None:
    transformer = tiny_transformer()
    open_injection(transformer)
    if freeze_base:
        for name, parameter in transformer.named_parameters():
            parameter.requires_grad_("injection" in name)
    model = VideoModel(transformer, tiny_identity_encoder())
    loss = losses(objective(pool, head, batch_size=4, **NO_DROPS), model)["loss"]
    assert loss.dtype == torch.float32
    loss.backward()
    silent = [
        name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or p.grad.abs().max() == 0)
    ]
    assert silent == []
    assert freeze_base == any(p.grad is None for p in model.parameters())


def test_without_an_identity_encoder_no_tokens_are_given(pool: LatentPool, head: HeadModel) -> None:
    recorder = Recorder()
    losses(objective(pool, head), VideoModel(recorder, None))
    assert recorder.others["identity_tokens"] is None


def test_edges_cost_nothing_only_where_pictures_differ_by_a_constant() -> None:
    picture = noise(2, 3, 16, 16)
    assert edge_loss(picture, picture) == 0
    assert edge_loss(picture + 0.3, picture) < 1e-6
    flipped, spot = picture.flip(-1), picture.clone()
    spot[0, 0, 8, 8] += 0.5
    assert edge_loss(flipped, picture) > 0.5
    assert edge_loss(spot, picture) > 1e-5
    assert edge_loss(picture, flipped) == edge_loss(flipped, picture)


def test_edges_are_compared_at_several_scales() -> None:
    checks = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 1.0
    fine, flat = checks.expand(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.5)
    assert edge_loss(fine, flat, scales=1) == 2
    assert edge_loss(fine, flat, scales=2) == 1


def faces(head: HeadModel) -> Tensor:
    """Landmarks of a frontal face in canvas pixels (1, 478, 3)."""
    points = HeadModel.load().mean[HeadModel.load().landmarks478]
    return (
        points * torch.tensor([7.0, -7.0, -7.0]) * CANVAS / 256 + torch.tensor([CANVAS / 2, CANVAS * 15 / 32, 0.0])
    )[None]


@pytest.fixture(scope="module")
def clips(head: HeadModel) -> ClipPool:
    """Eight people, each a pattern of its own; only what the face objectives read is filled in."""
    patterns = nn.functional.interpolate(noise(8, 3, 4, 4).sigmoid(), size=(96, 96), mode="bilinear")
    pictures = (patterns * 255).byte().numpy()
    empty = np.zeros((8, 1))
    return ClipPool(
        clips=empty,
        reference=empty,
        face=pictures,
        frame_face=pictures.copy(),
        neutral_face=empty,
        identity=empty,
        captions=[str(k) for k in range(8)],
    )


@pytest.fixture(scope="module")
def rigs(head: HeadModel) -> RigSet:
    """Six photos of four people, the first two with two photos each."""
    person = torch.tensor([0, 0, 1, 1, 2, 3])
    patterns = nn.functional.interpolate(noise(4, 3, 6, 6, seed=9).sigmoid(), size=(CANVAS, CANVAS), mode="bilinear")
    names = ("alpha", "backdrop", "identity", "expression", "scale", "rotation", "translation", "sex", "decade")
    names += ("weight", "residual", "grid_depth", "grid_normal", "grid_triangle", "grid_weights")
    return RigSet(
        image=(patterns[person] * 255).byte(),
        person=person,
        other=torch.tensor([1, 0, 3, 2, 4, 5]),
        landmarks=faces(head).repeat(6, 1, 1),
        **{name: torch.zeros(6, 1) for name in names},
    )


class PatternReader(nn.Module):
    """Embeds a picture by its coarse pattern, or by noise."""

    device = torch.device("cpu")

    def __init__(self, blind: bool = False) -> None:
        super().__init__()
        self.blind = blind

    def forward(self, pictures: Tensor) -> FaceVisionOutput:
        coarse = nn.functional.avg_pool2d(pictures, 12).flatten(1)
        pattern = torch.randn_like(coarse) if self.blind else coarse - coarse.mean(1, keepdim=True)
        return FaceVisionOutput(tokens=coarse, embedding=nn.functional.normalize(pattern, dim=-1))


def test_infonce_is_low_for_good_embeddings_and_chance_for_blind_ones(clips: ClipPool, rigs: RigSet) -> None:
    torch.manual_seed(0)
    goal = VisionObjective(clips, rigs, 10, np.random.default_rng(0), real_share=0.2)
    good = goal(PatternReader())
    assert good["loss"] < 0.2
    assert good["rank1"] == 1
    blind = goal(PatternReader(blind=True))
    assert blind["loss"] > 1.5
    assert blind["rank1"] < 0.6


def test_real_pairs_are_two_photos_of_one_person(clips: ClipPool, rigs: RigSet) -> None:
    marked = replace(
        rigs, image=(rigs.person * 40 + torch.arange(6) * 5)[:, None, None, None].expand(-1, 3, CANVAS, CANVAS)
    )
    goal = VisionObjective(clips, marked, 10, np.random.default_rng(0))
    first, second = (view.mean((1, 2, 3)) * 255 for view in goal._real_pairs(2))
    pairs = sorted(tuple(sorted((round(float(a)), round(float(b))))) for a, b in zip(first, second, strict=True))
    assert pairs == [(0, 5), (50, 55)]
    assert [len(view) for view in goal._real_pairs(9)] == [2, 2]  # nobody else has two photos


def test_the_vision_model_learns_from_its_objective(clips: ClipPool, rigs: RigSet) -> None:
    model = seeded(FaceVisionModel, image_size=96, patch_size=32, width=32, num_layers=1, num_heads=2, embedding_dim=8)
    VisionObjective(clips, rigs, 8, np.random.default_rng(0))(model)["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_augmented_pictures_stay_pictures() -> None:
    torch.manual_seed(0)
    pictures = noise(32, 3, 24, 24).sigmoid()
    out = augment(pictures, np.random.default_rng(0))
    assert out.shape == pictures.shape
    assert out.min() >= 0
    assert out.max() <= 1
    assert 0.02 < (out - pictures).abs().mean() < 0.2
    grey = (out[:, 0] - out[:, 1]).abs().mean((1, 2)) < 0.05
    assert grey.any()
    assert not grey.all()
