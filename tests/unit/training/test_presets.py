"""Every preset file builds the model it describes."""

from dataclasses import fields
from pathlib import Path

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
from fantasyid.training.config import load_stage
from fantasyid.training.encoder import EncoderObjective
from fantasyid.training.face import VisionObjective
from fantasyid.training.reader import ReaderObjective
from fantasyid.training.vae import VaeObjective
from fantasyid.training.video import VideoObjective

FOLDER = Path(__file__).parents[3] / "configs" / "train"
PRESETS = sorted(FOLDER.glob("*.yaml"))
MODELS: dict[str, type[nn.Module]] = {
    "vae": AutoencoderKLCogVideoX,
    "vision": FaceVisionModel,
    "decoder": AutoencoderKLCogVideoX,
    "reader": FaceReaderModel,
    "encoder": IdentityEncoder,
    "pairs": FantasyIDTransformer3DModel,
    "clips": FantasyIDTransformer3DModel,
}
OBJECTIVES: dict[str, type] = {
    "vae": VaeObjective,
    "vision": VisionObjective,
    "decoder": VaeObjective,
    "reader": ReaderObjective,
    "encoder": EncoderObjective,
    "pairs": VideoObjective,
    "clips": VideoObjective,
}
WITH_IDENTITY = ("encoder", "pairs", "clips")
MINIMAL = "optimiser: {steps: 2, minutes: 1, batch_size: 1, learning_rate: 1.0e-3}\nmodel: {}\n"


def stage_of(path: Path) -> str:
    return path.stem.split("-")[1]


def test_there_is_a_preset_for_every_stage() -> None:
    assert {stage_of(path) for path in PRESETS} == set(MODELS)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_loads_and_its_model_builds(path: Path) -> None:
    stage = load_stage(path)
    build = MODELS[stage_of(path)]
    known = build.__init__.__wrapped__.__annotations__ if hasattr(build.__init__, "__wrapped__") else {}
    assert not known or build is IdentityEncoder or set(stage.model) <= set(known), (
        "diffusers would ignore a field it does not know"
    )
    fields = stage.model
    if build is IdentityEncoder:
        assert set(fields) == {"identity_token_dim"}
        fields = {"token_dim": fields["identity_token_dim"], **stage.objective["identity_encoder"]}
    assert not known or set(fields) <= set(known), "diffusers would ignore a field it does not know"
    with torch.device("meta"):
        model = build(**fields)
    assert 1e5 < sum(parameter.numel() for parameter in model.parameters()) < 1e8


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_sets_only_fields_of_its_objective(path: Path) -> None:
    stage = load_stage(path)
    extra = {"freeze_base", "identity_encoder"} if stage_of(path) in WITH_IDENTITY else set()
    assert set(stage.objective) - extra <= {field.name for field in fields(OBJECTIVES[stage_of(path)])}
    if extra:
        encoder_fields = stage.objective.get("identity_encoder", {})
        with torch.device("meta"):
            encoder = IdentityEncoder(token_dim=stage.model["identity_token_dim"], **encoder_fields)
        assert set(encoder_fields) <= set(encoder.config)
        assert encoder.config.face_dim == load_stage(FOLDER / "mini-vision.yaml").model["width"]


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_opens_with_its_command_and_hardware(path: Path) -> None:
    command, hardware = path.read_text().splitlines()[:2]
    assert command.startswith(f"# Command:  python -m fantasyid.training {stage_of(path)} --config configs/train/")
    assert path.name in command
    assert hardware.startswith("# Hardware: ")


def test_the_video_stages_share_their_network_and_its_encoder() -> None:
    encoder, pairs, clips = (load_stage(FOLDER / f"mini-{name}.yaml") for name in WITH_IDENTITY)
    assert pairs.model == clips.model
    assert encoder.model.items() <= pairs.model.items()
    encoders = [stage.objective["identity_encoder"] for stage in (encoder, pairs, clips)]
    assert encoders[0] == encoders[1] == encoders[2]


def test_the_decoder_stage_goes_on_with_the_vae() -> None:
    vae, decoder = (load_stage(FOLDER / f"mini-{name}.yaml").model for name in ("vae", "decoder"))
    assert decoder == vae


def test_networks_are_of_the_size_of_the_clips() -> None:
    vae, clips = (load_stage(FOLDER / f"mini-{name}.yaml").model for name in ("vae", "clips"))
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    size = MINI_CLIPS.size // factor
    assert (clips["sample_height"], clips["sample_width"], clips["sample_frames"]) == (size, size, MINI_CLIPS.frames)
    assert clips["max_text_seq_length"] == MINI_CLIPS.text_length
    assert clips["in_channels"] == 2 * clips["out_channels"] == 2 * vae["latent_channels"]
    assert vae["temporal_compression_ratio"] == clips["temporal_compression_ratio"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "colour: red\n", "colour"),
        (MINIMAL.replace("steps: 2", "steps: 0"), "steps"),
        (MINIMAL.replace("steps: 2, ", ""), "steps"),
        (MINIMAL.replace("steps: 2", "stepz: 2"), "stepz"),
        ("optimiser: {", "not valid"),
    ],
)
def test_wrong_presets_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "preset.yaml"
    path.write_text(MINIMAL)
    assert load_stage(path).seed == 0
    path.write_text(text)
    with pytest.raises(InvalidRequestError, match=message):
        load_stage(path)


def test_a_missing_preset_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="does not exist"):
        load_stage(tmp_path / "none.yaml")
