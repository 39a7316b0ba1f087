"""The stages of training the built-in model, each from its inputs to what it leaves in the run's folder.

Stages in order: `reader`, `vision`, `vae`, `encoder`, then `pairs` and `clips` of the video model, each starting from
the result of the one before. `decoder` goes on with the VAE's decoder alone: the latents stay what they were, so the
video model stays trained. The result is saved in diffusers' form in the folder `result`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import CogVideoXDDIMScheduler

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.output_files import make_folder
from fantasyid.data.face_views import FaceViews
from fantasyid.data.precompute import ClipPool
from fantasyid.data.repose.rig import HeadLayers, RigSet
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.vision import FaceVisionModel
from fantasyid.training import networks
from fantasyid.training.checkpoint import hash_of_frozen
from fantasyid.training.clips import open_clips
from fantasyid.training.config import (
    AnyStage,
    EncoderStage,
    ReaderStage,
    VaeStage,
    VideoStage,
    VisionStage,
)
from fantasyid.training.config_files import keep_config
from fantasyid.training.groups import choose_groups, keep_frozen_in
from fantasyid.training.logs import as_json
from fantasyid.training.lora import add_lora, put_together, save_lora
from fantasyid.training.objectives.encoder import EncoderObjective, TaughtEncoder
from fantasyid.training.objectives.reader import ReaderObjective, mean_landmarks
from fantasyid.training.objectives.vae import VaeObjective, latent_statistics, reconstruct, training_pictures
from fantasyid.training.objectives.video import SCHEDULER, VideoModel, VideoObjective
from fantasyid.training.objectives.vision import VisionObjective
from fantasyid.training.parallel import equalise, own_share, rank, share_out, start_processes
from fantasyid.training.recompute import recompute
from fantasyid.training.trainer import BatchPart, Trainer

_NOT_OF_THE_OBJECTIVE = {"identity_encoder"}


@dataclass(frozen=True)
class StageInputs:
    """What a stage reads and where it writes.

    Attributes:
        pools: Folders of clips, or one of face views for the stage reader; one for the stage vision.
        out: Folder of checkpoints, config, log and result; a run begun there is continued.
        device: Such as `"cuda"`.
        rigs: File of rigs, for reader and vision.
        init: Result to start from; of this stage for reader, vae and decoder, of the one before for pairs and clips.
        vision: Result of the stage vision, for vae, decoder and encoder.
        encoder: Result of the stage encoder, for pairs and clips.
        flame: The user's FLAME, for pairs and clips whose heads have its mesh; None is the built-in head.
    """

    pools: tuple[Path, ...]
    out: Path
    device: str
    rigs: Path | None = None
    init: Path | None = None
    vision: Path | None = None
    encoder: Path | None = None
    flame: Path | None = None

    def only_pool(self, stage: str) -> Path:
        """The folder of a stage that takes one."""
        if len(self.pools) > 1:
            raise InvalidRequestError(f"The stage {stage} takes one folder with --pool, not {len(self.pools)}.")
        return self.pools[0]


def train(config: AnyStage, inputs: StageInputs) -> bool:
    """Train a stage, or go on with it, and save its result.

    Args:
        config: Of the stage.
        inputs: What it reads and where it writes.

    Returns:
        Whether it is finished; a signal may have stopped it, and it can go on.

    Raises:
        FantasyIDError: An input is missing or does not fit, or the run in the folder was begun with another config.
    """
    inputs = replace(inputs, device=start_processes(inputs.device))
    make_folder(inputs.out)
    keep_config(config, inputs.out, writes=rank() == 0)
    set_up(config)
    if isinstance(config, ReaderStage):
        return _train_reader(config, inputs)
    if isinstance(config, VisionStage):
        return _train_vision(config, inputs)
    if isinstance(config, VaeStage):
        return _train_vae(config, inputs)
    if isinstance(config, EncoderStage):
        return _train_encoder(config, inputs)
    return _train_video(config, inputs)


def replay(config: VideoStage, inputs: StageInputs, step: int) -> dict[str, Any]:
    """Compute a step of a run again, from its last checkpoint before it; the run is left as it is.

    Args:
        config: The run's.
        inputs: What the run read, and its folder.
        step: Counted from 1, as in the run's log.

    Returns:
        What the step logs, and each of its samples.

    Raises:
        FantasyIDError: An input is missing or is not the run's.
    """
    set_up(config)
    run = begin_video(looked_at(config), inputs, up_to=step - 1)
    logged = run.trainer.replay(step - 1, lambda part: run.objective(run.model, part))
    parts = config.optimiser.accumulation
    found = [run.objective.samples(run.model, BatchPart(step - 1, part, parts)) for part in range(parts)]
    samples = [{**sample, "loss": as_json(sample["loss"])} for part in found for sample in part]
    return {"step": step, **{name: as_json(number) for name, number in logged.items()}, "samples": samples}


def looked_at(config: VideoStage) -> VideoStage:
    """A run's config for one process that keeps nothing of what it does."""
    return config.model_copy(update={"shard_among": 1, "tensorboard": False})


def set_up(config: AnyStage) -> None:
    """What holds for the whole process: the seed of new weights, and how matrices are multiplied."""
    torch.manual_seed(config.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True


def _train_reader(config: ReaderStage, inputs: StageInputs) -> bool:
    rigs, head = _rigs(inputs), HeadModel.load().to(inputs.device)
    model = networks.face_reader(config.model, inputs.init, lambda: mean_landmarks(rigs))
    model.to(inputs.device).train()
    views = FaceViews.open(inputs.only_pool(config.stage), inputs.device)
    batch_size = own_share(config.optimiser.batch_size)
    _check_enough(batch_size // 2, {"people in the views": len(views), "photos in the rigs": len(rigs)})
    rng = np.random.default_rng()
    trainer = Trainer(model, config.optimiser, inputs.out, config.seed, rng, tensorboard=config.tensorboard)
    objective = ReaderObjective(views, rigs, head, batch_size, rng, **config.objective.model_dump())
    return _finish(trainer, lambda _: objective(model), inputs.out)


def _train_vision(config: VisionStage, inputs: StageInputs) -> bool:
    model = networks.build(FaceVisionModel, config.model.model_dump()).to(inputs.device)
    pool, rigs = ClipPool.open(inputs.only_pool(config.stage)), _rigs(inputs)
    batch_size = own_share(config.optimiser.batch_size)
    _check_enough(batch_size, {"clips in the pool": len(pool)})
    rng = np.random.default_rng()
    trainer = Trainer(model, config.optimiser, inputs.out, config.seed, rng, tensorboard=config.tensorboard)
    objective = VisionObjective(pool, rigs, batch_size, rng, **config.objective.model_dump())
    return _finish(trainer, lambda _: objective(model), inputs.out)


def _train_vae(config: VaeStage, inputs: StageInputs) -> bool:
    decoder_only = config.stage == "decoder"
    if decoder_only and inputs.init is None:
        raise InvalidRequestError("The stage decoder goes on with a trained VAE; give its folder with --init.")
    vision = networks.vision_network(inputs.vision).to(inputs.device).requires_grad_(False)
    vae = networks.frame_vae(config.model, inputs.init)
    vae.to(inputs.device).encoder.requires_grad_(not decoder_only)
    pictures = torch.cat([training_pictures(pool, inputs.device) for pool in _clip_pools(inputs)])
    generator = torch.Generator(inputs.device)
    trainer = Trainer(vae, config.optimiser, inputs.out, config.seed, generator, tensorboard=config.tensorboard)
    objective = VaeObjective(
        pictures=pictures,
        vision=vision,
        batch_size=own_share(config.optimiser.batch_size),
        generator=generator,
        reconstruct=torch.compile(reconstruct, dynamic=False) if config.optimiser.compile else reconstruct,
        **config.objective.model_dump(),
    )
    if not trainer.fit(lambda _: objective(vae)):
        return False
    with trainer.averaged() as result:
        if rank() == 0:
            if not decoder_only:
                mean, std = latent_statistics(result, objective.pictures)
                result.register_to_config(latents_mean=mean, latents_std=std)
            result.save_pretrained(inputs.out / "result")
    return True


def _train_encoder(config: EncoderStage, inputs: StageInputs) -> bool:
    head = HeadModel.load().to(inputs.device)
    token_dim, described = config.model.identity_token_dim, config.objective.identity_encoder
    encoder = networks.identity_encoder(described, token_dim, None, inputs.init).to(inputs.device)
    batch_size = own_share(config.optimiser.batch_size)
    _check_mean(encoder, batch_size)
    vision = networks.vision_network(inputs.vision).to(inputs.device)
    model = TaughtEncoder(vision, encoder).to(inputs.device).train()
    rng = np.random.default_rng()
    trainer = Trainer(model, config.optimiser, inputs.out, config.seed, rng, tensorboard=config.tensorboard)
    objective = EncoderObjective(
        pools=_clip_pools(inputs),
        head=head,
        batch_size=batch_size,
        rng=rng,
        **config.objective.model_dump(exclude=_NOT_OF_THE_OBJECTIVE),
    )
    if not trainer.fit(lambda _: objective(model)):
        return False
    with trainer.averaged() as averaged:
        if rank() == 0:
            objective.measure_population(averaged)
            averaged.vision.save_pretrained(inputs.out / "result" / "face_vision")
            averaged.encoder.save_pretrained(inputs.out / "result" / "identity_encoder")
    return True


@dataclass(frozen=True)
class VideoRun:
    """A run of the video model.

    Attributes:
        model: What is trained.
        objective: What it is asked for.
        trainer: Stands where the run's checkpoint does.
    """

    model: VideoModel
    objective: VideoObjective
    trainer: Trainer


def begin_video(config: VideoStage, inputs: StageInputs, up_to: int | None = None) -> VideoRun:
    """Make a run, or find it where a checkpoint of at most so many steps left it."""
    own_share(config.optimiser.batch_size, config.optimiser.accumulation)
    transformer = networks.transformer(config.model, inputs.init).to(inputs.device)
    token_dim, encoder = config.model.identity_token_dim, None
    if token_dim is not None:
        described = config.objective.identity_encoder
        encoder = networks.identity_encoder(described, token_dim, inputs.encoder, inputs.init, inputs.flame)
        encoder.to(inputs.device).train()
    elif inputs.encoder is not None:
        raise InvalidRequestError("The preset has no identity_token_dim, so it takes no encoder; leave --encoder out.")
    return begin_with(VideoModel(transformer, encoder), config, inputs, up_to)


def begin_with(model: VideoModel, config: VideoStage, inputs: StageInputs, up_to: int | None = None) -> VideoRun:
    """The same with networks that are on their device already, as the preset describes them; they are changed."""
    transformer, encoder = model.transformer, model.identity_encoder
    if encoder is not None:
        _check_mean(encoder, own_share(config.optimiser.batch_size, config.optimiser.accumulation))
    if config.lora is not None:
        add_lora(transformer, config.lora)
    choose_groups(model, config.groups, config.optimiser)
    keep_frozen_in(getattr(torch, config.frozen_dtype), model)
    clips = open_clips(inputs.pools, config, encoder, inputs.device)
    equalise(model)
    frozen = hash_of_frozen(model)
    recompute(transformer, config.recompute)
    if config.optimiser.compile:
        transformer.compile_repeated_blocks(fullgraph=True)
    share_out(transformer, config.shard_among)
    groups = choose_groups(model, config.groups, config.optimiser)  # again: sharing out makes other parameters
    trainer = Trainer(
        model,
        config.optimiser,
        inputs.out,
        config.seed,
        groups=groups,
        frozen=frozen,
        up_to=up_to,
        tensorboard=config.tensorboard,
    )
    scheduler = CogVideoXDDIMScheduler(**{**SCHEDULER, "snr_shift_scale": config.snr_shift_scale})
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(inputs.device)
    objective = VideoObjective(
        clips=clips,
        scheduler=scheduler,
        head=HeadModel.load().to(inputs.device),
        batch_size=config.optimiser.batch_size,
        seed=config.seed,
        device=torch.device(inputs.device),
        **config.objective.model_dump(exclude=_NOT_OF_THE_OBJECTIVE),
    )
    return VideoRun(model, objective, trainer)


def _train_video(config: VideoStage, inputs: StageInputs) -> bool:
    run = begin_video(config, inputs)
    if not run.trainer.fit(lambda part: run.objective(run.model, part), run.objective.explain):
        return False
    with run.trainer.averaged() as averaged:
        result = put_together(averaged.transformer)
        if config.lora is not None:
            save_lora(averaged.transformer, inputs.out / "result")
        if rank() == 0:
            result.save_pretrained(inputs.out / "result" / "transformer")
            if averaged.identity_encoder is not None:
                run.objective.measure_population(averaged, config.optimiser.steps)
                averaged.identity_encoder.save_pretrained(inputs.out / "result" / "identity_encoder")
    return True


def _finish(trainer: Trainer, losses: Callable[[BatchPart], Any], folder: Path) -> bool:
    if not trainer.fit(losses):
        return False
    with trainer.averaged() as result:
        if rank() == 0:
            result.save_pretrained(folder / "result")
    return True


def _clip_pools(inputs: StageInputs) -> list[ClipPool]:
    return [ClipPool.open(folder) for folder in inputs.pools]


def _rigs(inputs: StageInputs) -> RigSet:
    if inputs.rigs is None:
        raise InvalidRequestError("This stage reads photos too; give the file of `fantasyid data rigs` with --rigs.")
    return RigSet.load(inputs.rigs, HeadLayers.build(HeadModel.load().to(inputs.device)))


def _check_mean(encoder: IdentityEncoder, samples: int) -> None:
    """Refuse a mean of one, which is what an encoder takes from each that is computed at once."""
    if encoder.population is not None and samples < 2:
        raise InvalidRequestError(
            "With identity_encoder.centre a person is what differs from the mean of those computed at once, and the "
            "preset leaves one at a time; raise batch_size, or lower accumulation or the number of processes."
        )


def _check_enough(needed: int, there: dict[str, int]) -> None:
    """Refuse a batch that is larger than what each of its rows is drawn from once."""
    for what, count in there.items():
        if count < needed:
            raise InvalidRequestError(
                f"A batch needs {needed} {what}, and there are {count}; make more, or lower batch_size."
            )
