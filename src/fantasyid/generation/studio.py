"""A model made ready for any number of videos; `generate` is the short way to the videos of one request."""

import secrets
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fantasyid.core.choices import OutputFormat
from fantasyid.core.credentials import SigningKey, check_signable
from fantasyid.core.errors import FantasyIDWarning
from fantasyid.core.input_files import file_sha256
from fantasyid.core.weights_hash import weights_sha256
from fantasyid.generation.machine import check_gpus, choose_device, device_name
from fantasyid.generation.output import save_generation
from fantasyid.generation.output_paths import GenerationPaths
from fantasyid.generation.person import Person, PersonFiles, read_person
from fantasyid.generation.preview import frames_so_far
from fantasyid.generation.progress import SILENT, Progress
from fantasyid.generation.record import GenerationRecord, SoftwareVersions
from fantasyid.generation.request import GenerationRequest, ModelRequest, as_text
from fantasyid.pipelines.acceleration import accelerate
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from fantasyid.pipelines.memory import apply_plan
from fantasyid.pipelines.parallel import DeviceGroup, ParallelLayout, launch, process_count, process_rank

_WAIT_S = 0.5
RANDOM_SEEDS = 2**32
"""Seeds that are drawn lie below: short enough to be typed again."""


@dataclass(frozen=True, eq=False)
class GeneratedVideo:
    """A video that was made.

    Attributes:
        frames: RGB uint8 (T,H,W,3), without the mark that saving adds.
        record: What made it.
        portrait: RGB uint8 (H,W,3), the face as the model saw it; None without a person.
    """

    frames: NDArray[np.uint8]
    record: GenerationRecord
    portrait: NDArray[np.uint8] | None

    def save(
        self,
        out: str | Path,
        form: OutputFormat | None = None,
        *,
        overwrite: bool = False,
        signing_key: SigningKey | None = None,
    ) -> GenerationPaths:
        """Write the marked video, its record and its contact sheet, all three or none.

        Args:
            out: The video, .mp4, .webm or .gif; see `GenerationPaths.beside`.
            form: How it is written; None is as the name says.
            overwrite: Whether files that are there may be replaced.
            signing_key: Puts credentials signed with it into the video and the sheet; None leaves them out.

        Returns:
            Where they are.

        Raises:
            FantasyIDError: See `save_generation`.
        """
        paths = GenerationPaths.beside(Path(out), form)
        paths.check(overwrite=overwrite)
        save_generation(paths, self.frames, self.portrait, self.record, overwrite=overwrite, signing_key=signing_key)
        return paths


@dataclass
class Clock:
    """Seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    start: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Add the time since the last call to a stage."""
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self.start, 3)
        self.start = now


class Studio:
    """A model on its device.

    Args:
        request: Which model, where, and how it is made faster.
        progress: Told of loading.

    Raises:
        FantasyIDError: The model or the device cannot be had.
    """

    def __init__(self, request: ModelRequest, progress: Progress = SILENT) -> None:
        clock = Clock()
        self._busy = threading.RLock()
        self._device, dtype = choose_device(request.device, request.dtype)
        with progress.stage("Loading the model"):
            self.pipeline: FantasyIDPipeline = FantasyIDPipeline.from_pretrained(request.name, torch_dtype=dtype)
            for lora in request.loras:
                self.pipeline.merge_lora(lora.file, lora.scale)
            self._lora_sha256 = tuple(file_sha256(lora.file) for lora in request.loras)
            acceleration = accelerate(self.pipeline.transformer, request.acceleration, self._device)
            plan = apply_plan(self.pipeline, request.memory_plan, self._device)
            self.pipeline.set_progress_bar_config(disable=True)
        chosen = {
            "name": as_text(request.name),
            "device": self._device.type,
            "dtype": str(dtype).removeprefix("torch."),
            "memory_plan": plan,
            "acceleration": acceleration,
        }
        self.request = request.model_copy(update=chosen)
        """As asked, with what was left open as it was chosen."""
        clock.lap("load_model")
        self._loading = clock.seconds

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of all networks' weights as they are used."""
        return weights_sha256(self.pipeline.components)

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        """Fill in what a request leaves open, with this model's own values.

        Args:
            request: For this model.

        Returns:
            The same request; completed again it stays as it is.
        """
        pipeline = self.pipeline
        height, width = pipeline.identity_preparation(request.height, request.width).reference_size
        own: dict[str, Any] = {
            "num_inference_steps": pipeline.config.default_num_inference_steps,
            "guidance_scale": pipeline.config.default_guidance_scale,
            "num_frames": pipeline.transformer.config.sample_frames,
            "fps": pipeline.config.fps,
            "seed": secrets.randbelow(RANDOM_SEEDS),
        }
        chosen = {name: value for name, value in own.items() if getattr(request, name) is None}
        if request.person is None:
            chosen |= {"use_reference": False, "use_identity_tokens": False}
        sizes = {"height": height, "width": width, "model": self.request}
        return request.model_copy(update={**chosen, **sizes})

    def read(self, request: GenerationRequest, files: PersonFiles, progress: Progress = SILENT) -> Person:
        """Read the person of a request once, for any number of videos of its size.

        Args:
            request: With a person.
            files: Of that person.
            progress: Told which of several faces is used.

        Raises:
            FantasyIDError: See `read_person`.
        """
        assert request.person is not None, "nobody to read"
        preparation = self.pipeline.identity_preparation(request.height, request.width)
        with progress.stage("Reading the photo" if len(files.photos) == 1 else "Reading the photos"):
            person = read_person(files, request.person, self.pipeline, preparation)
        for reading in person.readings:
            if reading.num_faces > 1:
                progress.several_faces(reading)
        if (request.person.edits or files.head is not None) and self.pipeline.config.follows_vertices is not True:
            measured = self.pipeline.config.follows_vertices is not None
            follows = "does not follow" if measured else "was never measured to follow"
            progress.note(f"Warning: this model's video {follows} the head's vertices; see docs/editing.md.")
        return person

    def videos(
        self,
        request: GenerationRequest,
        files: PersonFiles | None = None,
        progress: Progress = SILENT,
        command: tuple[str, ...] = (),
        person: Person | None = None,
    ) -> Iterator[GeneratedVideo]:
        """Make the videos of a request, one after the other.

        Args:
            request: What to make; its `model` is this one.
            files: Of its person; read now if not given.
            progress: Told of every stage.
            command: The arguments as typed, for the record.
            person: What `read` gave for a request like this one; read now if not given.

        Yields:
            Each video as soon as it is there.

        Raises:
            FantasyIDError: The request cannot be met.
        """
        first, clock = self.complete(request), Clock(dict(self._loading))
        assert first.seed is not None, "a seed was drawn"
        if request.person is not None and person is None:
            person = self.read(first, files or PersonFiles.read(request.person), progress)
            clock.lap("read_photo")
        reading = None if person is None else person.readings[0]
        seconds = clock.seconds
        if process_count() > 1:
            layout = ParallelLayout.for_devices(process_count(), (first.guidance_scale or 0) > 1)
            self.pipeline.enable_parallelism(DeviceGroup(layout, self._device))
        for number in range(request.num_videos):
            one = first.model_copy(update={"seed": first.seed + number, "num_videos": 1})
            what = "Generating" if request.num_videos == 1 else f"Generating video {number + 1} of {request.num_videos}"
            with self._turn(progress), progress.steps(what, one.num_inference_steps or 1) as tell:
                clock = Clock(dict(seconds))
                frames = self._frames(one, person, _Watcher(progress, tell, clock, one.num_frames or 1))
                clock.lap("decode")
            record = GenerationRecord(
                request=one,
                command=command,
                versions=SoftwareVersions.installed(),
                weights_sha256=self.weights_sha256,
                lora_sha256=self._lora_sha256,
                photo_sha256=() if person is None else person.files.photo_sha256,
                head_file_sha256=None if person is None else person.files.head_file_sha256,
                face_index=None if reading is None else reading.face_index,
                face_box=None if reading is None else reading.face.box,
                device=device_name(self._device),
                timings_s=clock.seconds,
            )
            yield GeneratedVideo(frames, record, None if person is None else person.portrait)

    @contextmanager
    def _turn(self, progress: Progress) -> Iterator[None]:
        """One video at a time, whichever thread asks: where there is memory for one, there may be none for two."""
        while not self._busy.acquire(timeout=_WAIT_S):
            with progress.stage("Waiting for another video"):  # where one who is cancelled ends
                pass
        try:
            yield
        finally:
            self._busy.release()

    def _frames(self, request: GenerationRequest, person: Person | None, watcher: "_Watcher") -> NDArray[np.uint8]:
        assert request.seed is not None, "the request is complete"
        frames = self.pipeline(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt or None,
            identity_inputs=None if person is None else person.inputs,
            generator=torch.Generator().manual_seed(request.seed),
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            guidance_interval=request.guidance_interval,
            identity_scale=request.identity_scale,
            use_reference=request.use_reference,
            use_identity_tokens=request.use_identity_tokens,
            num_frames=request.num_frames,
            height=request.height,
            width=request.width,
            output_type="np",
            callback_on_step_end=watcher.after_step,
            callback_on_step_end_tensor_inputs=["pred_original_sample"],
        ).frames[0]
        pixels: NDArray[np.uint8] = (frames * 255).round().astype(np.uint8)
        return pixels

    def warn_of_differences(self, record: GenerationRecord) -> None:
        """Warn of what makes a video come out otherwise than the one of a record, although all is asked alike.

        Args:
            record: Of a video that is made again.
        """
        now, then = SoftwareVersions.installed(), record.versions
        pairs = {f"{name} {getattr(then, name)}": f"{getattr(now, name)}" for name in SoftwareVersions.model_fields}
        pairs = {before: after for before, after in pairs.items() if not before.endswith(f" {after}")}
        differences = [f"{before} then and {after} now" for before, after in pairs.items()]
        if record.device != device_name(self._device):
            differences.append(f"{record.device} then and {device_name(self._device)} now")
        if record.weights_sha256 != self.weights_sha256:
            differences.append("other weights")
        if differences:
            said = f"The video may come out otherwise: {', '.join(differences)}."
            warnings.warn(said, FantasyIDWarning, stacklevel=2)


@dataclass(frozen=True)
class _Watcher:
    """Tells of each denoising step, and shows the video so far to who wants to see it.

    Attributes:
        progress: Is shown the video.
        tell: Is told the number of steps done.
        clock: Of this video.
        num_frames: Of this video.
    """

    progress: Progress
    tell: Callable[[int], None]
    clock: Clock
    num_frames: int

    def after_step(self, running: FantasyIDPipeline, step: int, _: torch.Tensor, tensors: dict[str, Any]) -> None:
        """Called by the pipeline."""
        self.tell(step + 1)
        self.clock.lap("denoise")

        def draw() -> NDArray[np.uint8]:
            frames = frames_so_far(running, tensors["pred_original_sample"], self.num_frames)
            self.clock.lap("preview")
            return frames

        # A plan that moves networks would move them all for each look.
        if running.memory_plan == "fast":
            self.progress.preview(draw)


def generate(request: GenerationRequest, progress: Progress = SILENT) -> list[GeneratedVideo]:
    """Make the videos of a request, all of them in memory; for many, `Studio.videos` gives one at a time.

    Args:
        request: What to make.
        progress: Told of every stage.

    Raises:
        FantasyIDError: The request cannot be met; the message says why.
    """
    files = None if request.person is None else PersonFiles.read(request.person)
    return list(Studio(request.model, progress).videos(request, files, progress))


def generate_files(
    request: GenerationRequest,
    paths: tuple[GenerationPaths, ...],
    *,
    overwrite: bool = False,
    progress: Progress = SILENT,
    command: tuple[str, ...] = (),
    like: GenerationRecord | None = None,
    signing_key: SigningKey | None = None,
) -> None:
    """Make the videos of a request and write each as soon as it is there; on several GPUs if it says so.

    Args:
        request: What to make.
        paths: Where each video goes; checked already.
        overwrite: Whether files that are there may be replaced.
        progress: Told of every stage; it is pickled where there are several GPUs.
        command: The arguments as typed, for the records.
        like: Record of a video that is made again: what now differs is warned of.
        signing_key: Signs what is written; None leaves credentials out.

    Raises:
        FantasyIDError: The request cannot be met, or a file not written.
    """
    for place in paths:
        if signing_key is not None:
            check_signable(place.video)
    if request.model.gpus > 1 and process_count() == 1:
        check_gpus(request.model)
        if request.seed is None:
            request = request.model_copy(update={"seed": secrets.randbelow(RANDOM_SEEDS)})
        launch(request.model.gpus, _generate_part, request, paths, overwrite, progress, command, like, signing_key)
        return
    files = None if request.person is None else PersonFiles.read(request.person)
    studio = Studio(request.model, progress)
    request = studio.complete(request)
    if like is not None:
        with progress.stage("Comparing with the record"):
            studio.warn_of_differences(like)
    for place in paths:
        place.check_room(request.num_frames or 1, request.height or 1, request.width or 1)
    for place, video in zip(paths, studio.videos(request, files, progress, command), strict=True):
        if process_rank() == 0:
            save_generation(
                place, video.frames, video.portrait, video.record, overwrite=overwrite, signing_key=signing_key
            )


def _generate_part(
    request: GenerationRequest,
    paths: tuple[GenerationPaths, ...],
    overwrite: bool,
    progress: Progress,
    command: tuple[str, ...],
    like: GenerationRecord | None,
    signing_key: SigningKey | None,
) -> None:
    """Make the same call in one of several processes."""
    progress = progress if process_rank() == 0 else SILENT
    generate_files(
        request,
        paths,
        overwrite=overwrite,
        progress=progress,
        command=command,
        like=like,
        signing_key=signing_key,
    )
    torch.distributed.destroy_process_group()
