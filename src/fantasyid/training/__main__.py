"""Train one stage of the built-in model.

Command: `python -m fantasyid.training STAGE --config configs/train/mini-STAGE.yaml --pool POOL --out FOLDER`, or with
`torchrun --nproc-per-node 2 -m fantasyid.training` on several GPUs.

Stages in order: `reader`, `vision`, `vae`, `encoder`, then `pairs` and `clips` of the video model, each starting from
the result of the one before (`--init`). `decoder` goes on with the VAE's decoder alone: the latents stay what they
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
from fantasyid.models.frame_vae import forget_older_frames, is_frame_vae
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.models.vision import FaceVisionModel
from fantasyid.training.config import StageConfig, load_stage
from fantasyid.training.encoder import EncoderObjective, TaughtEncoder
from fantasyid.training.face import VisionObjective
from fantasyid.training.parallel import rank, start_processes
from fantasyid.training.reader import ReaderObjective, mean_landmarks
from fantasyid.training.trainer import Trainer
from fantasyid.training.vae import VaeObjective, latent_statistics, reconstruct, training_pictures
from fantasyid.training.video import SCHEDULER, VideoModel, VideoObjective


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=[*_FACE_STAGES, *_VIDEO_STAGES])
    parser.add_argument("--config", type=Path, required=True, help="preset file")
    parser.add_argument(
        "--pool",
        type=Path,
        required=True,
        nargs="+",
        help="folders of data.precompute; one folder of data.face_views for reader",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and result")
    parser.add_argument("--rigs", type=Path, help="file of repose.prepare, for reader and vision")
    parser.add_argument("--init", type=Path, help="result to start from, of this stage or the one before")
    parser.add_argument("--vision", type=Path, help="result of the vision stage, for vae, decoder and encoder")
    parser.add_argument("--encoder", type=Path, help="result of the stage encoder, for pairs and clips")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(arguments)
    config = load_stage(options.config)
    options.device = start_processes(options.device)
    torch.manual_seed(config.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    if options.stage in _FACE_STAGES:
        _FACE_STAGES[options.stage](config, options)
    else:
        _train_video(config, options)


def _finish(trainer: Trainer, losses: Callable[[], Any], folder: Path) -> None:
    trainer.fit(losses)
    if rank() == 0:
        result: Any = trainer.averaged
        result.save_pretrained(folder / "result")


def _generator(config: StageConfig, options: argparse.Namespace) -> torch.Generator:
    """Each process draws its own samples."""
    return torch.Generator(options.device).manual_seed(config.seed + rank())


def _rng(config: StageConfig) -> np.random.Generator:
    """As `_generator`, for stages that draw with numpy."""
    return np.random.default_rng(config.seed + rank())


def _pools(options: argparse.Namespace) -> list[ClipPool]:
    return [ClipPool.open(folder) for folder in options.pool]


def _only_pool(options: argparse.Namespace) -> Path:
    if len(options.pool) > 1:
        raise InvalidRequestError(f"The stage {options.stage} takes one folder with --pool, not {len(options.pool)}.")
    folder: Path = options.pool[0]
    return folder


def _vision_model(options: argparse.Namespace) -> FaceVisionModel:
    if options.vision is None:
        raise InvalidRequestError("This stage needs the face vision model; give its result with --vision.")
    return FaceVisionModel.from_pretrained(options.vision).to(options.device)  # type: ignore[no-any-return]


def _train_vae(config: StageConfig, options: argparse.Namespace) -> None:
    decoder_only = options.stage == "decoder"
    if decoder_only and options.init is None:
        raise InvalidRequestError("The stage decoder goes on with a trained VAE; give its folder with --init.")
    vision = _vision_model(options).requires_grad_(False)
    fresh = options.init is None
    vae = AutoencoderKLCogVideoX(**config.model) if fresh else AutoencoderKLCogVideoX.from_pretrained(options.init)
    if fresh:
        forget_older_frames(vae)
    elif not is_frame_vae(vae):
        raise InvalidRequestError(
            f"The VAE {options.init} mixes neighbouring frames; only those that do not are trained."
        )
    vae.to(options.device).encoder.requires_grad_(not decoder_only)
    generator = _generator(config, options)
    trainer = Trainer(vae, config.optimiser, options.out, generator)
    objective = VaeObjective(
        pictures=torch.cat([training_pictures(pool, options.device) for pool in _pools(options)]),
        vision=vision,
        batch_size=config.optimiser.batch_size,
        generator=generator,
        reconstruct=torch.compile(reconstruct, dynamic=False) if config.optimiser.compile else reconstruct,
        **config.objective,
    )
    trainer.fit(lambda: objective(vae))
    if rank() == 0:
        result: Any = trainer.averaged
        if not decoder_only:
            mean, std = latent_statistics(result, objective.pictures)
            result.register_to_config(latents_mean=mean, latents_std=std)
        result.save_pretrained(options.out / "result")


def _train_encoder(config: StageConfig, options: argparse.Namespace) -> None:
    head = HeadModel.load().to(options.device)
    encoder = _identity_encoder(config, options, head).to(options.device)
    model = TaughtEncoder(_vision_model(options), encoder).to(options.device).train()
    rng = _rng(config)
    trainer = Trainer(model, config.optimiser, options.out, rng)
    objective = EncoderObjective(
        pools=_pools(options),
        head=head,
        batch_size=config.optimiser.batch_size,
        rng=rng,
        **_objective_fields(config),
    )
    trainer.fit(lambda: objective(model))
    if rank() == 0:
        averaged: Any = trainer.averaged
        objective.measure_population(averaged)
        averaged.vision.save_pretrained(options.out / "result" / "face_vision")
        averaged.encoder.save_pretrained(options.out / "result" / "identity_encoder")


def _objective_fields(config: StageConfig) -> dict[str, Any]:
    return {key: value for key, value in config.objective.items() if key not in ("freeze_base", "identity_encoder")}


def _rigs(options: argparse.Namespace) -> RigSet:
    if options.rigs is None:
        raise InvalidRequestError("This stage reads photos too; give the file of repose.prepare with --rigs.")
    return RigSet.load(options.rigs, HeadLayers.build(HeadModel.load().to(options.device)))


def _train_vision(config: StageConfig, options: argparse.Namespace) -> None:
    model = FaceVisionModel(**config.model).to(options.device)
    rng = _rng(config)
    trainer = Trainer(model, config.optimiser, options.out, rng)
    pool, rigs = ClipPool.open(_only_pool(options)), _rigs(options)
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
    rng = _rng(config)
    trainer = Trainer(model, config.optimiser, options.out, rng)
    views = FaceViews.open(_only_pool(options), options.device)
    objective = ReaderObjective(views, rigs, head, config.optimiser.batch_size, rng, **config.objective)
    _finish(trainer, lambda: objective(model), options.out)


def _train_video(config: StageConfig, options: argparse.Namespace) -> None:
    head = HeadModel.load().to(options.device)
    transformer = _transformer(config, options).to(options.device)
    with_identity = transformer.config.identity_token_dim is not None
    encoder = _identity_encoder(config, options, head).to(options.device).train() if with_identity else None
    if config.objective.get("freeze_base", False):
        for name, parameter in transformer.named_parameters():
            parameter.requires_grad_("injection" in name)
    model = VideoModel(transformer, encoder)
    generator = _generator(config, options)
    trainer = Trainer(model, config.optimiser, options.out, generator)
    if config.optimiser.compile:
        transformer.compile_repeated_blocks(fullgraph=True)
    objective = VideoObjective(
        pools=[LatentPool.open(folder, options.device) for folder in options.pool],
        scheduler=CogVideoXDDIMScheduler(**SCHEDULER),
        head=head,
        batch_size=config.optimiser.batch_size,
        generator=generator,
        **_objective_fields(config),
    )
    trainer.fit(lambda: objective(model))
    if rank() == 0:
        averaged: Any = trainer.averaged
        averaged.transformer.save_pretrained(options.out / "result" / "transformer")
        if encoder is not None:
            objective.measure_population(averaged.identity_encoder)
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
    """The encoder of `--encoder` or `--init` where they have one, else a new one on the built-in mesh."""
    hierarchy = MeshHierarchy.load()
    fields = {"token_dim": config.model["identity_token_dim"], **config.objective.get("identity_encoder", {})}
    folders = [folder / "identity_encoder" for folder in (options.encoder, options.init) if folder is not None]
    trained = next((folder for folder in folders if folder.is_dir()), None)
    encoder: IdentityEncoder
    if trained is not None:
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
    "encoder": _train_encoder,
    "reader": _train_reader,
}
_VIDEO_STAGES = ("pairs", "clips")


if __name__ == "__main__":
    main()
