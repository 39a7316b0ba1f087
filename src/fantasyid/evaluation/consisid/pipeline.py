"""diffusers' ConsisID, to be compared with: a photo and a prompt to a video."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, ConsisIDPipeline, ConsisIDTransformer3DModel
from numpy.typing import NDArray
from transformers import T5EncoderModel, T5Tokenizer

from fantasyid.checkpoints.folders import CLASSES, INDEX, check_vocabulary, load_component_folder
from fantasyid.core.code_fingerprint import code_fingerprint
from fantasyid.core.component_files import check_files
from fantasyid.core.errors import CorruptWeightsError, InvalidRequestError, MissingWeightsError, OutOfMemoryError
from fantasyid.core.input_files import file_sha256
from fantasyid.core.json_files import read_json
from fantasyid.core.output_files import write_together
from fantasyid.core.provenance import add_mark, add_xmp, container_metadata
from fantasyid.core.video import write_video
from fantasyid.evaluation.consisid.person import FaceUtilsReader, ReadPeople
from fantasyid.evaluation.consisid.request import ConsisIDRequest
from fantasyid.pipelines.sampling import check_finite

FPS = 8
"""Frames per second of ConsisID's videos."""
_REMEDY = "download all of ConsisID's weights for diffusers"


@dataclass(eq=False)
class ConsisID:
    """Makes videos with ConsisID's published weights, which are loaded when the first one is made.

    Args:
        request: How.
        folder: Where the weights lie.
        device: Where to compute.
        dtype: Precision of the networks.
        read_people: Makes what reads people.

    Raises:
        MissingWeightsError: The folder holds no pipeline, or lacks a file.
        CorruptWeightsError: It is another pipeline's, or a file is damaged.
        MissingBackendError: What reads people needs a package that is not installed.
    """

    request: ConsisIDRequest
    folder: Path
    device: torch.device
    dtype: torch.dtype
    read_people: ReadPeople = FaceUtilsReader

    def __post_init__(self) -> None:
        self._classes = _classes(self.folder)
        for name in self._classes:
            check_files(self.folder / name, _REMEDY)
        self._reader = self.read_people(self.folder, self.device, self.dtype)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights, of how they are used and of the code."""
        digest = hashlib.sha256()
        for name in self._classes:
            for file in sorted(file for file in (self.folder / name).iterdir() if file.is_file()):
                digest.update(f"{name} {file.name} {file_sha256(file)} ".encode())
        used = self.request.model_dump(exclude={"folder"})
        digest.update(f"{self._reader.fingerprint} {used} {self.device.type} {self.dtype}".encode())
        digest.update(code_fingerprint(__name__).encode())
        return digest.hexdigest()

    def save(self, path: Path, photo: Path, prompt: str, seed: int) -> None:
        """Make a video and write it with the provenance mark and the words that this package's own videos have.

        Args:
            path: An .mp4 file; one that is there is replaced.
            photo: Of the person.
            prompt: What to show.
            seed: Of the noise.

        Raises:
            FantasyIDError: The photo or the prompt cannot be used, the memory does not suffice, or the file not be
                written.
        """
        frames = add_mark(self.frames(photo, prompt, seed))
        tags = {name: f"{words}, by ConsisID" for name, words in container_metadata().items()}
        with write_together([path], overwrite=True) as (made,):
            write_video(made, frames, FPS, tags)
            add_xmp(made)

    def frames(self, photo: Path, prompt: str, seed: int) -> NDArray[np.uint8]:
        """Make a video; arguments and errors as of `save`.

        Returns:
            RGB (T,H,W,3), unmarked.
        """
        asked = self.request
        try:
            frames = self._call(photo, prompt, seed)
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"The GPU's memory does not suffice for ConsisID with {asked.num_frames} frames of "
                f"{asked.width}x{asked.height}; use a larger GPU, or ask for less."
            ) from error
        check_finite(torch.from_numpy(frames), "ConsisID")
        pixels: NDArray[np.uint8] = (frames * 255).round().astype(np.uint8)
        return pixels

    def _call(self, photo: Path, prompt: str, seed: int) -> NDArray[np.float32]:
        pipeline, asked = self._pipeline, self.request
        most = pipeline.transformer.config.max_text_seq_length
        if (count := len(pipeline.tokenizer(prompt).input_ids)) > most:
            raise InvalidRequestError(
                f"The prompt {prompt!r} has {count} tokens and ConsisID reads {most}; shorten it."
            )
        person = self._reader.person(photo)
        frames: NDArray[np.float32] = pipeline(
            image=person.face,
            prompt=prompt,
            height=asked.height,
            width=asked.width,
            num_frames=asked.num_frames,
            num_inference_steps=asked.num_inference_steps,
            guidance_scale=asked.guidance_scale,
            generator=torch.Generator().manual_seed(seed),
            id_cond=person.id_cond,
            id_vit_hidden=list(person.id_vit_hidden),
            kps_cond=person.keypoints,
            max_sequence_length=most,
            output_type="np",
        ).frames[0]
        return frames

    @cached_property
    def _pipeline(self) -> ConsisIDPipeline:
        parts = {
            name: load_component_folder(self.folder / name, cls, self.dtype) for name, cls in self._classes.items()
        }
        check_vocabulary(self.folder, parts["tokenizer"], parts["text_encoder"])
        pipeline = ConsisIDPipeline(**parts)
        self._check_size(pipeline)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self.device)

    def _check_size(self, pipeline: ConsisIDPipeline) -> None:
        """Refuse a size for which there are no learned positions; without them any size can be made."""
        config, scale, asked = pipeline.transformer.config, pipeline.vae_scale_factor_spatial, self.request
        own = (config.sample_height * scale, config.sample_width * scale)
        is_own = (asked.height, asked.width) == own and asked.num_frames <= config.sample_frames
        if config.use_learned_positional_embeddings and not is_own:
            raise InvalidRequestError(
                f"The ConsisID in {self.folder} makes videos of {own[1]}x{own[0]} with at most {config.sample_frames} "
                f"frames, not {asked.num_frames} of {asked.width}x{asked.height}; change the system's size."
            )


def _classes(folder: Path) -> dict[str, type]:
    """Class by component, after checking that the folder says that it holds ConsisID."""
    path = folder / INDEX
    if not path.is_file():
        raise MissingWeightsError(f"There is no ConsisID in {folder}: it has no {INDEX}; {_REMEDY}.")
    index = read_json(path, _REMEDY)
    if index.get("_class_name") != "ConsisIDPipeline":
        raise CorruptWeightsError(f"{path} is of a {index.get('_class_name')}, not of a ConsisIDPipeline; {_REMEDY}.")
    known = {name: cls for (_, name), cls in CLASSES["scheduler"].items()}
    named = [name for name in known if index.get("scheduler") == ["diffusers", name]]
    if not named:
        raise CorruptWeightsError(
            f"{path} says {index.get('scheduler')} of the scheduler, and it can be {' or '.join(known)}; {_REMEDY}."
        )
    return {
        "tokenizer": T5Tokenizer,
        "text_encoder": T5EncoderModel,
        "vae": AutoencoderKLCogVideoX,
        "transformer": ConsisIDTransformer3DModel,
        "scheduler": known[named[0]],
    }
