"""What the video model is told of a row is that row's: clip, reference, text, face tokens and head shape."""

from dataclasses import fields, replace
from typing import Any, ClassVar

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor

from fantasyid.data.precompute import LatentPool
from fantasyid.geometry.head_model import HeadModel
from fantasyid.training.clips import Clips, SeveralPools
from fantasyid.training.objectives.video import SCHEDULER, VideoModel, VideoObjective
from fantasyid.training.trainer import BatchPart
from tests.tiny import BASE_CONFIG, noise, tiny_identity_encoder, tiny_transformer

ROWS, BATCH, CHANNELS = 5, 64, BASE_CONFIG["out_channels"]
NO_DROPS = {"drop_text": 0.0, "drop_reference": 0.0, "drop_identity": 0.0, "drop_all": 0.0}


class Told:
    """What the transformer is given, with the rows of the pool that the text is of."""

    shape: ClassVar[dict[str, Any]] = {}

    def __init__(self, pool: Clips, head: HeadModel, **changes: Any) -> None:
        fields = {"batch_size": BATCH, "shape_noise": 0.0, **NO_DROPS, **changes}
        where = {"seed": 0, "device": torch.device("cpu")}
        goal = VideoObjective(pool, CogVideoXDDIMScheduler(**SCHEDULER), head, **where, **fields)
        transformer, encoder = tiny_transformer(**self.shape), tiny_identity_encoder()
        transformer.register_forward_pre_hook(self._keep, with_kwargs=True)
        with torch.no_grad():
            self.loss = goal(VideoModel(transformer, encoder), BatchPart(0))["loss"]
        self.encoder, self.alphas = encoder, goal.scheduler.alphas_cumprod

    def _keep(self, _: Any, positional: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        names = ("hidden_states", "encoder_hidden_states", "timestep")
        self.given = {**dict(zip(names, positional, strict=False)), **named}

    @property
    def noisy(self) -> Tensor:
        """Noisy latents (B, T, C, h, w), without the reference."""
        return self.given["hidden_states"][:, :, :CHANNELS]

    @property
    def reference(self) -> Tensor:
        """What stands beside the first frame (B, C, h, w)."""
        return self.given["hidden_states"][:, 0, CHANNELS:]

    def nearly_clean(self) -> Tensor:
        """Samples with so little noise that one can tell what was noised."""
        return self.alphas[self.given["timestep"]] > 0.5


def nearest(found: Tensor, among: Tensor) -> Tensor:
    return torch.cdist(found.flatten(1).float(), among.flatten(1).float()).argmin(1)


def test_clip_reference_face_and_shape_are_of_the_row_that_the_text_is_of(pool: LatentPool, head: HeadModel) -> None:
    told = Told(pool, head)
    rows = nearest(told.given["encoder_hidden_states"], pool.text)
    assert len(rows.unique()) == ROWS
    assert torch.equal(nearest(told.reference, pool.reference), rows)
    clean = told.nearly_clean()
    assert len(rows[clean].unique()) > 2
    assert torch.equal(nearest(told.noisy[clean], pool.clips), rows[clean])
    neutral = torch.zeros(BATCH, len(head.expression_names))
    vertices = head.shape(pool.identity[rows].float(), neutral)
    with torch.no_grad():
        expected = told.encoder(pool.face_tokens[rows].float(), vertices)
    torch.testing.assert_close(told.given["identity_tokens"].float(), expected, atol=1e-4, rtol=1e-4)


def test_rows_of_several_pools_stay_whole_and_are_drawn_by_their_number(pool: LatentPool, head: HeadModel) -> None:
    told = Told(SeveralPools([pool.rows(torch.arange(4)), pool.rows(torch.tensor([4]))]), head, batch_size=400)
    rows = nearest(told.given["encoder_hidden_states"], pool.text)
    assert torch.equal(nearest(told.reference, pool.reference), rows)
    clean = told.nearly_clean()
    assert torch.equal(nearest(told.noisy[clean], pool.clips), rows[clean])
    assert rows.bincount(minlength=ROWS).tolist() == [400 // ROWS] * ROWS


def test_clips_of_several_pools_come_in_the_order_in_which_they_are_asked_for(pool: LatentPool) -> None:
    pools = SeveralPools([pool.rows(torch.arange(2)), pool.rows(torch.arange(2, ROWS))])
    assert len(pools) == ROWS
    index = torch.tensor([4, 0, 3, 1, 2, 0])
    found, wanted = pools.rows(index), pool.rows(index)
    assert all(torch.equal(getattr(found, field.name), getattr(wanted, field.name)) for field in fields(wanted))


@pytest.mark.parametrize("views", ["any", "first"])
def test_vertices_and_the_view_that_is_shown_are_the_rows(pool: LatentPool, head: HeadModel, views: str) -> None:
    """Reference and face tokens are of one view; a head that was read as vertices is taken as it is."""
    several = {
        "reference": noise(ROWS, 3, CHANNELS, 6, 4, seed=3).half(),
        "face_tokens": noise(ROWS, 3, 4, 4, 32, seed=4).half(),
        "identity": head.mean + noise(ROWS, 60, 3, seed=5),
    }
    collection = replace(pool, **several)
    told = Told(collection, head, views=views)
    rows = nearest(told.given["encoder_hidden_states"], pool.text)
    shown = nearest(told.reference, collection.reference.flatten(0, 1))
    assert torch.equal(shown // 3, rows)
    assert set((shown % 3).tolist()) == ({0, 1, 2} if views == "any" else {0})
    with torch.no_grad():
        expected = told.encoder(collection.face_tokens.flatten(0, 1)[shown].float(), collection.identity[rows])
    torch.testing.assert_close(told.given["identity_tokens"].float(), expected, atol=1e-4, rtol=1e-4)


class ToldInPairs(Told):
    """The transformer joins two frames to one patch."""

    shape: ClassVar[dict[str, Any]] = {"patch_size_t": 2, "patch_size": 2, "sample_frames": 8}


def test_frames_are_padded_in_front_with_the_first(pool: LatentPool, head: HeadModel) -> None:
    """The noise of the two is not the same, and the reference stands beside the padding, as in the pipeline."""
    told = ToldInPairs(pool, head, batch_size=256)
    assert told.noisy.shape[1] == 4
    rows = nearest(told.given["encoder_hidden_states"], pool.text)
    assert torch.equal(nearest(told.reference, pool.reference), rows)
    clean = told.nearly_clean()
    frames = told.noisy[clean].transpose(0, 1)
    for frame, number in zip(frames, (0, 0, 1, 2), strict=True):
        found = nearest(frame, pool.clips.flatten(0, 1))
        assert torch.equal(found, 3 * rows[clean] + number)
    assert (frames[0] - frames[1]).abs().mean() > 0.01


def test_the_time_told_is_that_of_the_noise(pool: LatentPool, head: HeadModel) -> None:
    """Clip and noise are independent of unit variance, so the part of the clip in a sample tells its time."""
    told = Told(pool, head)
    rows = nearest(told.given["encoder_hidden_states"], pool.text)
    clean = pool.clips[rows].float().flatten(1)
    share = (told.noisy.flatten(1) * clean).sum(1) / clean.square().sum(1)
    assert (share - told.alphas[told.given["timestep"]].sqrt()).abs().max() < 0.3


@pytest.mark.parametrize(
    ("field", "share"), [("drop_text", 0.1), ("drop_reference", 0.1), ("drop_identity", 0.1), ("drop_all", 0.05)]
)
def test_what_is_dropped_unless_told_otherwise(pool: LatentPool, head: HeadModel, field: str, share: float) -> None:
    """Paper 4.1 drops a tenth of the texts."""
    (default,) = (item.default for item in VideoObjective.__dataclass_fields__.values() if item.name == field)
    told = Told(pool, head, batch_size=2000, **{field: default})
    dropped = {
        "drop_text": (told.given["encoder_hidden_states"] == pool.null_text.float()).flatten(1).all(1),
        "drop_reference": (told.reference == 0).flatten(1).all(1),
        "drop_identity": told.given["identity_scale"] == 0,
    }
    for name, samples in dropped.items():
        wanted = share if field in (name, "drop_all") else 0.0
        assert samples.float().mean() == pytest.approx(wanted, abs=0.02), name
