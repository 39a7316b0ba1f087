"""Every preset file builds the model it describes, and says nothing that nobody reads."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import nn

from fantasyid.core.clip_format import MINI_CLIPS
from fantasyid.core.errors import InvalidRequestError
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.models.vision import FaceVisionModel
from fantasyid.training import config
from fantasyid.training.config import STAGES, AnyStage
from fantasyid.training.config_files import differences, load_stage
from fantasyid.training.objectives.encoder import EncoderObjective
from fantasyid.training.objectives.reader import ReaderObjective
from fantasyid.training.objectives.vae import VaeObjective
from fantasyid.training.objectives.video import VideoObjective
from fantasyid.training.objectives.vision import VisionObjective

FOLDER = Path(__file__).parents[3] / "configs" / "train"
PRESETS = sorted(FOLDER.glob("*.yaml"))
MODELS: dict[type[config.Strict], type[nn.Module]] = {
    config.VaeConfig: AutoencoderKLCogVideoX,
    config.VisionConfig: FaceVisionModel,
    config.ReaderConfig: FaceReaderModel,
    config.TransformerConfig: FantasyIDTransformer3DModel,
    config.IdentityEncoderConfig: IdentityEncoder,
}
OBJECTIVES: dict[type[config.Strict], type] = {
    config.VaeObjectiveConfig: VaeObjective,
    config.VisionObjectiveConfig: VisionObjective,
    config.ReaderObjectiveConfig: ReaderObjective,
    config.EncoderObjectiveConfig: EncoderObjective,
    config.VideoObjectiveConfig: VideoObjective,
}
STAGE_FIELDS = {"identity_encoder"}
MINIMAL = "optimiser: {steps: 2, batch_size: 1, learning_rate: 1.0e-3}\nmodel: {}\n"


def stage_of(path: Path) -> str:
    return "clips" if path.stem.startswith("paper") else path.stem.split("-")[1]


def preset(stage: str) -> Any:
    return load_stage(FOLDER / f"mini-{stage}.yaml", stage)


def test_there_is_a_preset_for_every_stage() -> None:
    assert {stage_of(path) for path in PRESETS} == set(STAGES)


@pytest.mark.parametrize(("described", "network"), MODELS.items(), ids=lambda value: value.__name__)
def test_a_networks_fields_are_its_own_with_its_own_defaults(
    described: type[config.Strict], network: type[nn.Module]
) -> None:
    known = signature(network.__init__).parameters
    for name, field in described.model_fields.items():
        default = known[name].default
        assert (list(default) if isinstance(default, list | tuple) else default) == (
            list(field.default) if isinstance(field.default, tuple) else field.default
        ), name


@pytest.mark.parametrize(("described", "objective"), OBJECTIVES.items(), ids=lambda value: value.__name__)
def test_an_objectives_fields_are_its_own_with_its_own_defaults(
    described: type[config.Strict], objective: type
) -> None:
    defaults = {field.name: field.default for field in fields(objective) if field.default is not MISSING}
    defaults.pop("reconstruct", None)
    own = {name: field.default for name, field in described.model_fields.items() if name not in STAGE_FIELDS}
    assert own == defaults


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_loads_and_its_model_builds(path: Path) -> None:
    stage: Any = load_stage(path, stage_of(path))
    build: Callable[..., nn.Module] = MODELS.get(type(stage.model), IdentityEncoder)
    with torch.device("meta"):
        if build is IdentityEncoder:
            encoder = stage.objective.identity_encoder.model_dump()
            model = build(token_dim=stage.model.identity_token_dim, **encoder)
        else:
            model = build(**stage.model.model_dump())
    assert 1e5 < sum(parameter.numel() for parameter in model.parameters()) < 1e10


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_opens_with_its_command_and_hardware(path: Path) -> None:
    command, hardware = path.read_text().splitlines()[:2]
    assert f"fantasyid train {stage_of(path)} --config configs/train/{path.name} " in command
    assert command.startswith("# Command:  ")
    assert hardware.startswith("# Hardware: ")


def test_the_video_stages_share_their_network_and_its_encoder() -> None:
    encoder, pairs, clips = preset("encoder"), preset("pairs"), preset("clips")
    assert pairs.model == clips.model
    assert encoder.model.identity_token_dim == pairs.model.identity_token_dim
    encoders = [stage.objective.identity_encoder for stage in (encoder, pairs, clips)]
    assert encoders[0] == encoders[1] == encoders[2]
    assert encoders[0].face_dim == preset("vision").model.width


def test_the_decoder_stage_goes_on_with_the_vae() -> None:
    assert preset("decoder").model == preset("vae").model


def test_networks_are_of_the_size_of_the_clips() -> None:
    vae, clips = preset("vae").model, preset("clips").model
    factor = 2 ** (len(vae.block_out_channels) - 1)
    size = MINI_CLIPS.size // factor
    assert (clips.sample_height, clips.sample_width, clips.sample_frames) == (size, size, MINI_CLIPS.frames)
    assert clips.max_text_seq_length == MINI_CLIPS.text_length
    assert clips.in_channels == 2 * clips.out_channels == 2 * vae.latent_channels
    assert vae.temporal_compression_ratio == clips.temporal_compression_ratio == 1


def read(folder: Path, text: str, stage: str = "vision") -> AnyStage:
    path = folder / "preset.yaml"
    path.write_text(text)
    return load_stage(path, stage)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            MINIMAL + "colour: red\n",
            r"preset.yaml of the stage vision .*no field colour; allowed are optimiser",
        ),
        (MINIMAL.replace("steps: 2", "stepz: 2"), r"optimiser: there is no field stepz; allowed are steps, batch_size"),
        (MINIMAL.replace("steps: 2", "steps: 2, minutes: 3"), "there is no field minutes"),
        (
            MINIMAL.replace("{}", "{colour: red}"),
            r"model: there is no field colour; allowed are image_size",
        ),
        (MINIMAL + "objective: {noise: 0.1}\n", r"objective: there is no field noise; allowed are real_share, temp"),
        (MINIMAL + "objective: {real_share: 1.5}\n", r"objective.real_share: .*less than or equal to 1, not 1.5"),
        (MINIMAL.replace("steps: 2", "steps: 0"), r"optimiser.steps: .*greater than 0, not 0"),
        (MINIMAL.replace("steps: 2, ", ""), r"optimiser.steps: is required and missing"),
        (MINIMAL.replace("1.0e-3", ".nan"), r"optimiser.learning_rate"),
        (MINIMAL.replace("1.0e-3", "1.0e-3, compile: true"), "this stage compiles nothing"),
        (MINIMAL + "stage: vae\n", r"is a config of the stage vae; give one of vision"),
        ("optimiser: {", "is not YAML"),
        ("- 1\n", "holds no fields"),
    ],
)
def test_wrong_presets_are_refused_by_name_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    assert read(tmp_path, MINIMAL).seed == 0
    with pytest.raises(InvalidRequestError, match=message) as refusal:
        read(tmp_path, text)
    assert "\n" not in str(refusal.value)


def test_a_field_of_before_is_answered_with_its_new_name(tmp_path: Path) -> None:
    text = MINIMAL.replace("{}", "{use_layer_aware: false}")
    with pytest.raises(InvalidRequestError, match="use_layer_aware is no field any more; write injection_kind, which"):
        read(tmp_path, text, "clips")


def test_identity_without_a_place_for_it_is_refused(tmp_path: Path) -> None:
    objective = "identity_encoder: {hidden_dim: 64}"
    with pytest.raises(InvalidRequestError, match=r"objective\.\w+ needs model.identity_token_dim"):
        read(tmp_path, MINIMAL + f"objective: {{{objective}}}\n", "clips")
    assert read(tmp_path, MINIMAL.replace("{}", "{identity_token_dim: 8}") + f"objective: {{{objective}}}\n", "clips")


def test_a_missing_preset_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="There is no file"):
        load_stage(tmp_path / "none.yaml", "vae")


def test_old_and_impossible_fields_of_the_video_model_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="freeze_base is no field any more; write the stage's groups"):
        read(tmp_path, MINIMAL + "objective: {freeze_base: true}\n", "clips")
    with pytest.raises(InvalidRequestError, match="drop_reference needs a base that takes a reference"):
        read(tmp_path, MINIMAL + "objective: {drop_reference: 0.1}\n", "clips")
    with pytest.raises(InvalidRequestError, match="noised_reference needs a base that takes a reference"):
        read(tmp_path, MINIMAL + "pools_on: disk\nobjective: {noised_reference: 0.1}\n", "clips")
    takes_one = MINIMAL.replace("model: {}", "model: {in_channels: 32, out_channels: 16}")
    with pytest.raises(InvalidRequestError, match="noised_reference is read from the disk, and pools_on is device"):
        read(tmp_path, takes_one + "objective: {noised_reference: 0.1}\n", "clips")


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("no-fa", "objective.identity_encoder.abstractor", "q-former"),
        ("no-mfc", "objective.views", "first"),
        ("no-fv", "objective.identity_encoder.use_vertices", False),
        ("no-lacsi", "model.injection_kind", "paper_without_layers"),
    ],
)
def test_an_ablation_of_the_table_differs_from_the_paper_in_one_line(name: str, place: str, value: Any) -> None:
    """Table 3; that each is trained is tested on tiny networks."""
    whole, ablation = (FOLDER / f"paper{end}.yaml" for end in ("", f"-{name}"))
    configs = [load_stage(path, "clips").model_dump() for path in (ablation, whole)]
    assert [(where, asked) for where, asked, _ in differences(*configs)] == [(place, value)]
    lines = [path.read_text().splitlines()[3:] for path in (ablation, whole)]
    assert sum(one != other for one, other in zip(*lines, strict=True)) == 1


def test_the_paper_trains_what_is_new_faster_than_the_base() -> None:
    """AdamW at the paper's rate moves a gain that starts at zero by at most the sum of its rates."""
    literal, paper, full = (load_stage(FOLDER / f"paper{end}.yaml", "clips") for end in ("-literal", "", "-full"))
    assert literal.optimiser.learning_rate * literal.optimiser.steps / 2 < 0.14
    rates = {group.weights: group.learning_rate for group in full.groups}
    assert rates.pop("base") == 3e-6
    assert {group.weights: group.learning_rate for group in paper.groups} == rates
    assert min(rates.values()) > 30 * 3e-6
    assert paper.objective.drop_text == 0.1
