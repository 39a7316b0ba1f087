"""Looking at a run: its loss on clips held out, and videos of photos and prompts, by the averaged weights.

Nothing of the judge is used. How alike a video is to its photo is told by the face vision network that training itself
sees with: good for comparing steps of one run, and no measure of identity.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.conditioning.identity import IdentityInputs, read_identity
from fantasyid.core.errors import FantasyIDError
from fantasyid.core.imaging import read_photo
from fantasyid.core.output_files import make_folder, write_together
from fantasyid.core.video import write_video
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from fantasyid.training.assemble import load_face_vision, parts_of_base
from fantasyid.training.clips import Clips, open_clips
from fantasyid.training.config import VideoStage
from fantasyid.training.objectives.video import VideoModel, VideoObjective
from fantasyid.training.stages import StageInputs, begin_video, looked_at, set_up

_TIMES = 8
_MOST_CLIPS = 32
_FRAMES_LOOKED_AT = 5


@dataclass(frozen=True)
class Samples:
    """Which videos are made.

    Attributes:
        photos: Of people who are not trained on.
        prompts: Each is made of each photo.
        base: The CogVideoX, for VAE, text encoder and noise levels.
        face_vision: What the clips were encoded with: a folder, or EVA02-CLIP's file.
        steps: Denoising steps.
    """

    photos: Sequence[Path]
    prompts: Sequence[str]
    base: Path
    face_vision: Path
    steps: int


def validate(config: VideoStage, inputs: StageInputs, samples: Samples | None, out: Path) -> dict[str, Any]:
    """Look at the last checkpoint of a run, in one process; the run is left as it is.

    Args:
        config: The run's.
        inputs: What the run read, and its folder.
        samples: What to make; None makes no video.
        out: Folder for the videos.

    Returns:
        The step, the loss on held-out clips at each of some times, their number, and of each video its likeness.

    Raises:
        FantasyIDError: An input is missing or does not fit.
    """
    set_up(config)
    run = begin_video(looked_at(config), inputs)
    clips = open_clips(inputs.pools, config, run.model.identity_encoder, inputs.device, split="val")
    run.model.eval()
    with run.trainer.averaged() as averaged, torch.no_grad():
        found = {"step": run.trainer.step, **held_out_loss(run.objective, averaged, clips)}
        if samples is not None:
            make_folder(out)
            found["samples"] = list(_sampled(averaged, config, samples, inputs.device, out, run.trainer.step))
    return found


def held_out_loss(objective: VideoObjective, model: VideoModel, clips: Clips) -> dict[str, Any]:
    """Losses with everything given and the same noise each time, sample by sample.

    Args:
        objective: The run's.
        model: The run's.
        clips: Held out; of many, the first few are looked at.
    """
    count = min(len(clips), _MOST_CLIPS)
    first = torch.arange(count, device=clips.device)
    view = torch.zeros(count, device=clips.device)
    rows = clips.shown(first, view, view - 1).to(objective.device)
    goal = replace(objective, clips=clips, batch_size=count, shape_noise=0.0)
    drawn = goal.draw(model.transformer, 0)
    given = torch.ones_like(drawn.keep_any)
    kept = dict.fromkeys(("keep_text", "keep_reference", "keep_identity", "keep_any"), given)
    drawn = replace(drawn, **kept)
    losses = {}
    for time in torch.linspace(0, goal.scheduler.config.num_train_timesteps - 1, _TIMES + 2)[1:-1].long().tolist():
        at_time = replace(drawn, timesteps=torch.full_like(drawn.timesteps, time))
        one_by_one = (goal.errors(model, rows.rows(_one(k, rows)), at_time.rows(slice(k, k + 1))) for k in range(count))
        losses[time] = float(torch.cat([error for error, _ in one_by_one]).mean())
    return {"clips": count, "loss": sum(losses.values()) / len(losses), "loss_at_time": losses}


def _one(number: int, rows: Any) -> Tensor:
    return torch.tensor([number], device=rows.device)


def _sampled(
    model: VideoModel, config: VideoStage, samples: Samples, device: str, out: Path, step: int
) -> Iterator[dict[str, Any]]:
    """Make the videos and tell of each how alike it is."""
    pipeline = FantasyIDPipeline(
        **parts_of_base(samples.base),
        transformer=model.transformer,
        identity_encoder=model.identity_encoder,
        face_vision=load_face_vision(samples.face_vision),
        face_reader_model=load_component(MINI_FOLDER, "face_reader_model"),
        guidance_drops_identity=config.objective.drop_all > 0,
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    for which, photo in enumerate(samples.photos):
        person = _read(pipeline, read_photo(photo))
        for number, prompt in enumerate(samples.prompts):
            generator = torch.Generator().manual_seed(config.seed)
            with torch.autocast(device.partition(":")[0], torch.bfloat16, config.objective.precision == "bfloat16"):
                made = pipeline(
                    prompt,
                    identity_inputs=person,
                    generator=generator,
                    num_inference_steps=samples.steps,
                    output_type="np",
                ).frames[0]
            frames = (made * 255).round().astype(np.uint8)
            name = f"step-{step:08d}-photo-{which}-prompt-{number}.mp4"
            with write_together([out / name], overwrite=True) as (file,):
                write_video(file, frames, pipeline.config.fps)
            yield {"photo": str(photo), "prompt": prompt, "video": name, **_likeness(pipeline, person, frames)}


def _read(pipeline: FantasyIDPipeline, picture: NDArray[np.uint8]) -> IdentityInputs:
    return read_identity(picture, pipeline.face_reader, preparation=pipeline.identity_preparation())[0]


def _likeness(pipeline: FantasyIDPipeline, person: IdentityInputs, frames: NDArray[np.uint8]) -> dict[str, Any]:
    """Mean cosine of what the face vision network sees in some frames and in the photo, and in how many a face is."""
    wanted = _seen(pipeline, person)
    cosines = []
    for frame in frames[np.linspace(0, len(frames) - 1, _FRAMES_LOOKED_AT).round().astype(int)]:
        try:
            cosines.append(float(torch.cosine_similarity(_seen(pipeline, _read(pipeline, frame)), wanted, dim=0)))
        except FantasyIDError:  # no face, which is counted
            continue
    likeness = sum(cosines) / len(cosines) if cosines else None
    return {"likeness": likeness, "faces_found": len(cosines) / _FRAMES_LOOKED_AT}


def _seen(pipeline: FantasyIDPipeline, person: IdentityInputs) -> Tensor:
    tokens: Tensor = pipeline.face_vision(person.face_crop.to(pipeline.face_vision.device)).tokens
    return tokens.float().flatten()
