"""Train one stage of the built-in model.

Command: `python -m fantasyid.training STAGE --config configs/train/mini-STAGE.yaml --pool POOL --out FOLDER`

Stages in order: `reader`, `vision`, `vae`, then `stills`, `clips` and `identity` of the video model, each starting
from the result of the one before (`--init`). `decoder` goes on with the VAE's decoder alone: the latents stay what they
were, so the video model stays trained. An interrupted stage continues from its checkpoint. The result is saved in
diffusers' form in FOLDER/result.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.face_views import FaceViews
from fantasyid.data.precompute import ClipPool, LatentPool
from fantasyid.data.repose.rig import HeadLayers, RigSet
from fantasyid.geometry.decimate import MeshHierarchy
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.models.vision import FaceVisionModel
from fantasyid.training.config import StageConfig, load_stage
from fantasyid.training.face import VisionObjective
from fantasyid.training.reader import ReaderObjective, mean_landmarks
from fantasyid.training.trainer import Trainer
from fantasyid.training.vae import VaeObjective
from fantasyid.training.video import SCHEDULER, VideoModel, VideoObjective


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=[*_FACE_STAGES, *_VIDEO_STAGES])
    parser.add_argument("--config", type=Path, required=True, help="preset file")
    parser.add_argument(
        "--pool", type=Path, required=True, help="folder of data.precompute; of data.face_views for reader"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and result")
    parser.add_argument("--rigs", type=Path, help="file of repose.prepare, for reader and vision")
    parser.add_argument("--init", type=Path, help="result to start from, of this stage or the one before")
    parser.add_argument("--vision", type=Path, help="result of the vision stage, for vae and decoder")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(arguments)
    config = load_stage(options.config)
    torch.manual_seed(config.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    if options.stage in _FACE_STAGES:
        _FACE_STAGES[options.stage](config, options)
    else:
        _train_video(config, options)


def _finish(trainer: Trainer, losses: Callable[[], Any], folder: Path) -> None:
    trainer.fit(losses)
    result: Any = trainer.averaged
    result.save_pretrained(folder / "result")


def _train_vae(config: StageConfig, options: argparse.Namespace) -> None:
    if options.vision is None:
        raise InvalidRequestError("The VAE is judged by the face vision model too; give its result with --vision.")
    decoder_only = options.stage == "decoder"
    if decoder_only and options.init is None:
        raise InvalidRequestError("The stage decoder goes on with a trained VAE; give its folder with --init.")
    fresh = AutoencoderKLCogVideoX(**config.model) if options.init is None else None
    vae = (fresh or AutoencoderKLCogVideoX.from_pretrained(options.init)).to(options.device)
    vae.encoder.requires_grad_(not decoder_only)
    vision = FaceVisionModel.from_pretrained(options.vision).to(options.device).requires_grad_(False)
    for weight in (p for p in vae.parameters() if p.ndim == 5):  # the layout tensor cores want
        weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
    rng = np.random.default_rng(config.seed)
    trainer = Trainer(vae, config.optimiser, options.out, rng)
    pool = ClipPool.open(options.pool)
    objective = VaeObjective(pool, vision, config.optimiser.batch_size, rng, **config.objective)
    trainer.fit(lambda: objective(vae))
    result: Any = trainer.averaged
    if not decoder_only:
        with torch.no_grad():
            latents = result.encode(objective.batch(vae.device)).latent_dist.mode()
        result.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    result.save_pretrained(options.out / "result")


def _rigs(options: argparse.Namespace) -> RigSet:
    if options.rigs is None:
        raise InvalidRequestError("This stage reads photos too; give the file of repose.prepare with --rigs.")
    return RigSet.load(options.rigs, HeadLayers.build(HeadModel.load().to(options.device)))


def _train_vision(config: StageConfig, options: argparse.Namespace) -> None:
    model = FaceVisionModel(**config.model).to(options.device)
    rng = np.random.default_rng(config.seed)
    trainer = Trainer(model, config.optimiser, options.out, rng)
    pool, rigs = ClipPool.open(options.pool), _rigs(options)
    objective = VisionObjective(pool, rigs, config.optimiser.batch_size, rng, **config.objective)
    _finish(trainer, lambda: objective(model), options.out)


def _train_reader(config: StageConfig, options: argparse.Namespace) -> None:
    rigs, head = _rigs(options), HeadModel.load().to(options.device)
    if options.init is None:
        model = FaceReaderModel(**config.model)
        model.mean_landmarks.copy_(mean_landmarks(rigs))
    else:
        model = FaceReaderModel.from_pretrained(options.init)
    model.to(options.device).train()
    rng = np.random.default_rng(config.seed)
    trainer = Trainer(model, config.optimiser, options.out, rng)
    views = FaceViews.open(options.pool, options.device)
    objective = ReaderObjective(views, rigs, head, config.optimiser.batch_size, rng, **config.objective)
    _finish(trainer, lambda: objective(model), options.out)


def _train_video(config: StageConfig, options: argparse.Namespace) -> None:
    head = HeadModel.load().to(options.device)
    transformer = _transformer(config, options).to(options.device)
    encoder = _identity_encoder(config, options, head).to(options.device) if options.stage == "identity" else None
    if encoder is not None and config.objective.get("freeze_base", False):
        for name, parameter in transformer.named_parameters():
            parameter.requires_grad_("injection" in name)
    model = VideoModel(transformer, encoder)
    generator = torch.Generator(options.device).manual_seed(config.seed)
    trainer = Trainer(model, config.optimiser, options.out, generator)
    if config.optimiser.compile:
        transformer.compile_repeated_blocks(fullgraph=True)
    fields = {key: value for key, value in config.objective.items() if key not in ("freeze_base", "identity_encoder")}
    objective = VideoObjective(
        pool=LatentPool.open(options.pool, options.device),
        scheduler=CogVideoXDDIMScheduler(**SCHEDULER),
        head=head,
        batch_size=config.optimiser.batch_size,
        generator=generator,
        kind="stills" if options.stage == "stills" else "clips",
        **fields,
    )
    trainer.fit(lambda: objective(model))
    averaged: Any = trainer.averaged
    averaged.transformer.save_pretrained(options.out / "result" / "transformer")
    if encoder is not None:
        averaged.identity_encoder.save_pretrained(options.out / "result" / "identity_encoder")


def _transformer(config: StageConfig, options: argparse.Namespace) -> FantasyIDTransformer3DModel:
    """A new transformer, or the last stage's with an untrained injection added where the preset asks for one."""
    transformer: FantasyIDTransformer3DModel
    if options.init is None:
        transformer = FantasyIDTransformer3DModel(**config.model)
        return transformer
    transformer = FantasyIDTransformer3DModel.from_pretrained(options.init / "transformer")
    if config.model.get("identity_token_dim") and transformer.config.identity_token_dim is None:
        of_base = signature(CogVideoXTransformer3DModel.__init__).parameters
        identity = {key: value for key, value in config.model.items() if key not in of_base}
        transformer = FantasyIDTransformer3DModel.from_base(transformer, **identity)
    _check_same(config.model, transformer.config, options.init / "transformer")
    return transformer


def _identity_encoder(config: StageConfig, options: argparse.Namespace, head: HeadModel) -> IdentityEncoder:
    """The encoder of `--init` where it has one, else a new one on the built-in mesh."""
    hierarchy = MeshHierarchy.load()
    fields = {"token_dim": config.model["identity_token_dim"], **config.objective.get("identity_encoder", {})}
    trained = None if options.init is None else options.init / "identity_encoder"
    encoder: IdentityEncoder
    if trained is not None and trained.is_dir():
        encoder = IdentityEncoder.from_pretrained(trained)
        _check_same(fields, encoder.config, trained)
        return encoder
    encoder = IdentityEncoder(levels=hierarchy.num_vertices, spiral_length=hierarchy.spirals[0].shape[1], **fields)
    if encoder.config.use_vertices:
        spirals = [torch.from_numpy(spiral) for spiral in hierarchy.spirals]
        pairs = zip(hierarchy.down_index, hierarchy.down_weight, strict=True)
        down = [(torch.from_numpy(index), torch.from_numpy(weight)) for index, weight in pairs]
        encoder.set_hierarchy(spirals, down, head.mean.cpu(), hierarchy.topology_hash)
    return encoder


def _check_same(asked: Mapping[str, Any], got: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a network that is not the one the preset describes."""
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in got.items()}
    other = {name: value for name, value in asked.items() if name not in lists or lists[name] != value}
    if other:
        words = [f"{name}: {value} ({lists.get(name, 'unknown')} there)" for name, value in other.items()]
        raise InvalidRequestError(
            f"The preset asks for {', '.join(words)}, which {folder} does not have; start from another result, or "
            "change the preset."
        )


_FACE_STAGES: dict[str, Callable[[StageConfig, argparse.Namespace], None]] = {
    "vae": _train_vae,
    "decoder": _train_vae,
    "vision": _train_vision,
    "reader": _train_reader,
}
_VIDEO_STAGES = ("stills", "clips", "identity")


if __name__ == "__main__":
    main()
