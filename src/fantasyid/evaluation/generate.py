"""Make the videos of the fixed evaluation, in three steps that may run on three machines.

`read` needs the face libraries, `make_latents` a fast device, `make_frames` neither. Every step skips what it made
already of the same things, so an interrupted one is run again. The commands are `fantasyid evaluate people`, `latents`
and `frames`.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from einops import rearrange
from tqdm import tqdm

from fantasyid.checkpoints.builtin import builtin_preparation, load_component
from fantasyid.conditioning.identity import IdentityInputs, read_identity
from fantasyid.conditioning.latents import decode_video
from fantasyid.core.code_fingerprint import code_fingerprint
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.old_commands import tell_new_command
from fantasyid.core.weights_hash import weights_sha256
from fantasyid.evaluation.archives import read_arrays
from fantasyid.evaluation.protocol import MODES, Person, evaluation_rows, frames_made_of, save_frames
from fantasyid.pipelines.fantasyid import FantasyIDPipeline

_TENSORS = ("reference_image", "face_crop", "vertices")
_LATENTS_REMEDY = "remove it and make it again with `fantasyid evaluate latents`"


def read(people: tuple[Person, ...], photos: Path, out: Path, model: Path) -> None:
    """Read everybody's photo and keep what the pipeline needs of it.

    Args:
        people: From `read_people`.
        photos: Folder their photos are relative to.
        out: File to write (.npz).
        model: Packed model whose face reader reads the faces.
    """
    from fantasyid.face.reader import FaceReader

    reader = FaceReader(load_component(model, "face_reader_model"))
    preparation = builtin_preparation(model)
    inputs = [
        read_identity(photos / person.photo, reader, preparation=preparation)[0]
        for person in tqdm(people, desc="reading")
    ]
    tensors: dict[str, Any] = {
        name: torch.cat([getattr(item, name) for item in inputs]).half().numpy() for name in _TENSORS
    }
    described = json.dumps([asdict(person) for person in people])
    np.savez(out, people=described, topology_hash=inputs[0].topology_hash, **tensors)


def load_inputs(path: Path) -> tuple[tuple[Person, ...], IdentityInputs]:
    """Read what `read` wrote: the people, and their inputs in the same order.

    Raises:
        InvalidRequestError: The file is missing, damaged, or another one.
    """
    remedy = "make it again with `fantasyid evaluate people`"
    arrays = read_arrays(path, ("people", "topology_hash", *_TENSORS), "people", remedy)
    people = tuple(Person(**fields) for fields in json.loads(str(arrays["people"])))
    tensors = {name: torch.from_numpy(arrays[name]).float() for name in _TENSORS}
    return people, IdentityInputs(**tensors, topology_hash=str(arrays["topology_hash"]))


def make_latents(
    pipeline: FantasyIDPipeline, people: tuple[Person, ...], inputs: IdentityInputs, out: Path, batch_size: int = 40
) -> None:
    """Denoise every row; writes one `MODE.npz` of float16 latents and file names per mode into `out`.

    Args:
        pipeline: The model, on its device.
        people: Who is shown.
        inputs: Of the people, in their order.
        out: Folder to write.
        batch_size: Videos at a time.

    Raises:
        InvalidRequestError: Latents are there that were made of other people or settings, or by another model.
    """
    out.mkdir(parents=True, exist_ok=True)
    made_of = _made_of(pipeline, people, inputs)
    place = {person.name: index for index, person in enumerate(people)}
    for mode in MODES:
        path = out / f"{mode.name}.npz"
        if path.exists():
            _check_same(path, made_of)
            continue
        rows, parts = list(evaluation_rows(people, (mode,))), []
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            index = torch.tensor([place[row.person.name] for row in batch])
            chosen = {name: getattr(inputs, name)[index] for name in _TENSORS}
            result: Any = pipeline(
                prompt=[row.prompt for row in batch],
                identity_inputs=IdentityInputs(**chosen, topology_hash=inputs.topology_hash),
                use_reference=mode.use_reference,
                use_identity_tokens=mode.use_identity_tokens,
                generator=[torch.Generator().manual_seed(row.seed) for row in batch],
                output_type="latent",
            )
            parts.append(result.frames.half().cpu().numpy())
        partial = path.with_suffix(".partial.npz")
        np.savez(
            partial, latents=np.concatenate(parts), files=np.array([str(row.file) for row in rows]), made_of=made_of
        )
        partial.replace(path)


def _made_of(pipeline: FantasyIDPipeline, people: tuple[Person, ...], inputs: IdentityInputs) -> str:
    """Hash of the model as it is used, of its code, and of what it is told of the people."""
    digest = hashlib.sha256(weights_sha256(pipeline.components).encode())
    settings = {name: value for name, value in pipeline.config.items() if name.startswith(("default_", "guidance_"))}
    settings |= {"scheduler": dict(pipeline.scheduler.config), "dtype": pipeline.transformer.dtype}
    digest.update(f"{sorted(settings.items(), key=str)} {people} {code_fingerprint(__name__)}".encode())
    for name in _TENSORS:
        digest.update(getattr(inputs, name).cpu().numpy().tobytes())
    return digest.hexdigest()


def _check_same(path: Path, made_of: str) -> None:
    if str(read_arrays(path, (), "latents", _LATENTS_REMEDY).get("made_of")) == made_of:
        return
    raise InvalidRequestError(
        f"{path} was made of other people or settings, or by another model or version; give another folder, or remove "
        "it to make it again."
    )


def make_frames(vae: AutoencoderKLCogVideoX, out: Path, fps: float) -> None:
    """Decode the latents in `out` to one file of frames per row, beside them, unless they were decoded before.

    Args:
        vae: Whose decoder it is.
        out: Folder of `make_latents`.
        fps: Frames per second.

    Raises:
        InvalidRequestError: A file of latents is damaged.
    """
    decoder = f"{weights_sha256({'vae': vae})} {vae.dtype} {fps} {code_fingerprint(__name__)}".encode()
    for path in sorted(out.glob("*.npz")):
        arrays = read_arrays(path, ("files", "latents"), "latents", _LATENTS_REMEDY)
        rows = list(zip(arrays["files"].tolist(), arrays["latents"], strict=True))
        for file, latents in tqdm(rows, desc=path.stem):
            made_of = hashlib.sha256(decoder + latents.tobytes()).hexdigest()
            if frames_made_of(out / file) == made_of:
                continue
            video = torch.from_numpy(latents)[None].to(vae.dtype)
            with torch.no_grad():
                decoded = decode_video(vae, rearrange(video, "b t c h w -> b c t h w"))[0]
            frames = ((decoded.float().clamp(-1, 1) + 1) * 127.5).round().byte()
            save_frames(out / file, rearrange(frames, "c t h w -> t h w c").numpy(), fps, made_of)


if __name__ == "__main__":
    steps = ("people", "latents", "frames")
    tell_new_command("fantasyid.evaluation.generate", *(f"fantasyid evaluate {step}" for step in steps))
