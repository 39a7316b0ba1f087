"""What is drawn for training clips."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.repose.backdrops import COLOURS
from fantasyid.data.repose.rig import HeadLayers, RigSet
from fantasyid.data.repose.scenes import Draw, SceneSampler
from tests.unit.data.conftest import PEOPLE
from tests.unit.data.sentences import decade_of, light_of, says, sex_of

FRAMES = 9


@pytest.fixture(scope="module")
def draw(layers: HeadLayers, rigs: RigSet) -> Draw:
    return SceneSampler(layers, rigs, seed=3).draw(32, FRAMES)


def test_same_seed_same_clips_and_another_seed_others(layers: HeadLayers, rigs: RigSet) -> None:
    first, second, other = (SceneSampler(layers, rigs, seed).draw(4, FRAMES) for seed in (0, 0, 1))
    assert first.captions == second.captions
    for scene in ("target", "reference"):
        for field in fields(first.target):
            values = [getattr(getattr(drawn, scene), field.name) for drawn in (first, second, other)]
            assert torch.equal(values[0], values[1]), field.name
    assert not torch.equal(first.target.angles_deg, other.target.angles_deg)


def test_shapes_and_ranges(draw: Draw, rigs: RigSet) -> None:
    target, reference = draw.target, draw.reference
    assert target.angles_deg.shape == (32, FRAMES, 3)
    assert reference.angles_deg.shape == (32, 1, 3)
    assert target.expression.shape == (32, FRAMES, rigs.expression.shape[1])
    assert target.expression.min() >= 0
    assert target.expression.max() <= 1
    assert target.zoom.min() >= 0.85
    assert target.light.norm(dim=1).max() <= 0.5
    assert len(draw.captions) == len(draw.photo) == 32


def test_the_reference_is_another_view_of_the_same_person(draw: Draw, rigs: RigSet) -> None:
    target, reference = draw.target, draw.reference
    assert torch.equal(rigs.person[target.rig], rigs.person[reference.rig])
    assert torch.equal(target.identity, reference.identity)
    assert torch.equal(target.identity, draw.identity)
    other_photo = target.rig != reference.rig
    moved = (target.angles_deg[:, 0] - reference.angles_deg[:, 0]).abs().amax(1) > 0.2
    assert (other_photo | moved).all()
    assert other_photo.any()


def test_untouched_photos_are_only_of_people_who_are_not_mixed(draw: Draw, rigs: RigSet) -> None:
    unmixed = (draw.reference.texture == rigs.image[draw.reference.rig].float() / 255).flatten(1).all(1)
    assert draw.photo.any()
    assert unmixed[draw.photo].all()
    assert 0.1 < unmixed.float().mean() < 0.45


def test_people_are_mixed_with_others_of_their_sex(draw: Draw, rigs: RigSet) -> None:
    """Every woman has 0.8 and every man -0.8 as first shape coefficient, which mixing within a sex keeps."""
    assert torch.allclose(draw.identity[:, 0], rigs.identity[draw.target.rig, 0])
    mixed = (draw.identity[:, 1] != rigs.identity[draw.target.rig, 1]).float().mean()
    assert mixed > 0.55


def test_someone_alone_of_their_sex_is_refused(layers: HeadLayers, rigs: RigSet) -> None:
    lonely = replace(rigs, sex=torch.tensor([1, 1, 0, 0, 0, 0]), weight=torch.tensor([1.0, 1, 0, 0, 0, 0]))
    with pytest.raises(InvalidRequestError, match="nobody else of its sex"):
        SceneSampler(layers, lonely, seed=0).draw(4, FRAMES)


def test_women_are_drawn_as_often_as_the_weights_ask(draw: Draw, layers: HeadLayers, rigs: RigSet) -> None:
    """Photos of women weigh 4 times as much as men's; there are three of each."""
    assert torch.allclose(rigs.weight, torch.tensor([10, 10, 10, 2.5, 2.5, 2.5]))
    assert (rigs.sex[draw.target.rig] == 1).sum() > 16
    third = replace(rigs, weight=torch.tensor([0.0, 0, 7, 0, 0, 0]))
    assert SceneSampler(layers, third, seed=2).draw(4, FRAMES).target.rig.tolist() == [2] * 4


def test_captions_name_sex_age_place_and_light_that_are_shown(draw: Draw, rigs: RigSet) -> None:
    for k, sentence in enumerate(draw.captions):
        rig = int(draw.target.rig[k])
        mixed = not torch.equal(draw.target.texture[k], rigs.image[rig].float() / 255)
        decade = int(rigs.decade[rig])
        kinds = {f"{decade}s", *(["young"] if decade <= 30 else []), *(["old"] if decade >= 60 else [])}
        assert decade_of(sentence) in ({""} if mixed or decade == 0 else {"", *kinds}), sentence
        assert sex_of(sentence) == rigs.sex[rig], sentence
        own = torch.equal(draw.target.background[k], rigs.backdrop[rig].float() / 255)
        assert ("background" in sentence) != own
        if not own:
            colour = next(colour for name, colour in COLOURS.items() if f" {name} background" in sentence)
            shown = draw.target.background[k].mean((1, 2)) * 255
            assert (shown - torch.tensor(colour)).abs().max() < 80
        x = float(draw.target.light[k, 0])
        assert light_of(sentence) == ("lit from the left" if x < -0.24 else "lit from the right" if x > 0.24 else "")
    assert any(decade_of(sentence) for sentence in draw.captions)


def test_motions_reach_the_scene(draw: Draw, layers: HeadLayers) -> None:
    names = layers.head.expression_names
    smile, jaw = names.index("mouthSmileLeft"), names.index("jawOpen")
    for k, sentence in enumerate(draw.captions):
        yaw = draw.target.angles_deg[k, :, 0]
        if says(sentence, "turns the head to the left"):
            assert yaw[-1] < yaw[0] - 8
        if says(sentence, "turns the head to the right"):
            assert yaw[-1] > yaw[0] + 8
        if says(sentence, "smiles"):
            assert draw.target.expression[k, -1, smile] >= 0.6
        if says(sentence, "opens the mouth"):
            assert draw.target.expression[k, -1, jaw] >= 0.45
        if says(sentence, "keeps a serious face"):
            assert draw.target.expression[k, :, smile].max() == 0
    assert sum(says(sentence, "smiles") for sentence in draw.captions) > 2


def test_people_face_the_side_that_is_said_whatever_the_photos_pose(
    draw: Draw, layers: HeadLayers, rigs: RigSet
) -> None:
    """The photos' own yaw of -6 to 8 degrees is counted."""
    pose, seen = SceneSampler(layers, rigs, seed=0).pose_deg, 0
    for k, sentence in enumerate(draw.captions):
        yaw = draw.target.angles_deg[k, :, 0] + pose[int(draw.target.rig[k]), 0]
        for action, sign in (("faces left", -1), ("faces right", 1)):
            if says(sentence, action):
                assert (sign * yaw).min() > 10, sentence
                seen += 1
    assert seen > 2


def test_the_pose_of_a_photo_is_its_drawn_one(layers: HeadLayers, rigs: RigSet) -> None:
    expected = [[yaw, 2.0, 0.0] for *_, yaw, _, _ in PEOPLE]
    assert np.abs(SceneSampler(layers, rigs, seed=0).pose_deg - expected).max() < 0.01
