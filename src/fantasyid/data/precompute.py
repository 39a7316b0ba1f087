"""Work done once before training: clips rendered to a pool on disk, then encoded to what the transformer reads.

A pool is a folder of memory-mapped arrays (see `ClipPool`, `LatentPool`), so that every training stage reads the same
clips and neither renderer, VAE, text encoder nor face nets enter the trainer of the video model. A pool of pairs holds
two neighbouring frames of each clip: far more people for the same time and space.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from fantasyid.conditioning.latents import normalise_latents
from fantasyid.conditioning.text import encode_text, load_text_encoder
from fantasyid.core.clip_format import MINI_CLIPS
from fantasyid.core.errors import InvalidRequestError, short_reason
from fantasyid.core.old_commands import tell_new_command
from fantasyid.core.output_files import make_folder, write_file
from fantasyid.data.array_files import open_array, write_array
from fantasyid.data.repose.render import Rendering, Scene, render
from fantasyid.data.repose.rig import CANVAS, CANVAS_MARGIN, HeadLayers, RigSet
from fantasyid.data.repose.scenes import Draw, SceneSampler
from fantasyid.face.align import FACE_SIZE, PORTRAIT_SIZE, face_transform, warp
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.projection import euler_degrees
from fantasyid.models.frame_vae import frame_latents
from fantasyid.models.vision import FaceVisionModel

FRAMES, TEXT_LENGTH = MINI_CLIPS.frames, MINI_CLIPS.text_length
_FRAMES_AT_ONCE = 300
_TIGHT_SHARE = 0.25  # of references that end within the frame, as tightly cropped photos do


@dataclass(frozen=True)
class ClipPool:
    """M clips with their references, as memory maps of uint8 pictures (RGB, channels first).

    Attributes:
        clips: (M, T, 3, S, S), frames of `MINI_CLIPS`; T is 2 for pairs.
        reference: (M, 3, S, S) another view of the same person, in the portrait frame.
        face: (M, 3, 96, 96) aligned face of the reference.
        frame_face: (M, 3, 96, 96) aligned face of one frame of the clip.
        neutral_face: (M, 3, 96, 96) aligned face of the person seen from the front, without expression.
        identity: (M, K) float16 head shape.
        captions: M sentences.
    """

    clips: NDArray[np.uint8]
    reference: NDArray[np.uint8]
    face: NDArray[np.uint8]
    frame_face: NDArray[np.uint8]
    neutral_face: NDArray[np.uint8]
    identity: NDArray[np.float16]
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    @classmethod
    def open(cls, folder: Path) -> "ClipPool":
        """Map an existing pool.

        Raises:
            InvalidRequestError: It is missing, damaged, or not finished.
        """
        names = [field.name for field in fields(cls) if field.name != "captions"]
        arrays = {name: open_array(folder / f"{name}.npy", "fantasyid data render", mapped=True) for name in names}
        return cls(**arrays, captions=_read_captions(folder / "captions.json"))


def _read_captions(path: Path) -> list[str]:
    try:
        captions: list[str] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidRequestError(
            f"There is no {path}, so the pool is not finished; make it again with `fantasyid data render`."
        ) from error
    except (OSError, ValueError) as error:
        raise InvalidRequestError(
            f"{path} cannot be read ({short_reason(error)}); make its folder again with `fantasyid data render`."
        ) from error
    return captions


@torch.no_grad()
def render_pool(rigs_path: Path, out: Path, clips: int, device: str, seed: int, frames: int = FRAMES) -> None:
    """Render `clips` clips into the folder `out`; the list of captions is written last and marks a finished pool.

    Args:
        rigs_path: File of `repose.prepare`.
        out: Folder, made if absent.
        clips: How many.
        device: Where to render.
        seed: Of everything drawn.
        frames: Neighbouring frames kept of every clip; all by default.
    """
    layers = HeadLayers.build(HeadModel.load().to(device))
    rigs = RigSet.load(rigs_path, layers)
    sampler = SceneSampler(layers, rigs, seed)
    generator = np.random.default_rng(seed + 1)
    make_folder(out)
    # Until all is made anew, this is no finished pool; and what was encoded of it is of other clips.
    for last in ("captions.json", "latent_null_text.npy"):
        (out / last).unlink(missing_ok=True)
    large, small = (3, PORTRAIT_SIZE, PORTRAIT_SIZE), (3, FACE_SIZE, FACE_SIZE)
    shapes = {"clips": (frames, *large), "reference": large, "face": small, "frame_face": small, "neutral_face": small}
    maps = {
        name: np.lib.format.open_memmap(out / f"{name}.npy", mode="w+", dtype=np.uint8, shape=(clips, *shape))
        for name, shape in shapes.items()
    }
    identity_path, identity_shape = out / "identity.npy", (clips, rigs.identity.shape[1])
    identity = np.lib.format.open_memmap(identity_path, mode="w+", dtype=np.float16, shape=identity_shape)
    captions: list[str] = []
    chunk = min(_FRAMES_AT_ONCE // frames, 96)
    for start in tqdm(range(0, clips, chunk), desc="rendering", mininterval=5.0):
        stop = min(start + chunk, clips)
        draw = sampler.draw(stop - start, FRAMES)
        first = generator.integers(0, FRAMES - frames + 1, stop - start)
        target = render(layers, rigs, _cut(draw.target, first, frames))
        reference, face = reference_views(layers, rigs, draw)
        rows = torch.arange(stop - start, device=reference.device)
        pick = torch.from_numpy(generator.integers(0, frames, stop - start)).to(reference.device)
        frame_face = warp(target.frames[rows, pick], face_transform(target.landmarks[rows, pick][..., :2]), FACE_SIZE)
        pictures = {"clips": target.frames, "reference": tighten(reference, generator), "face": face}
        pictures |= {"frame_face": frame_face, "neutral_face": _neutral_face(layers, rigs, draw.target)}
        for name, picture in pictures.items():
            maps[name][start:stop] = (picture * 255).round().clamp(0, 255).byte().cpu().numpy()
        identity[start:stop] = draw.identity.half().cpu().numpy()
        captions += draw.captions
    write_file(out / "captions.json", json.dumps(captions).encode())


def _cut(scene: Scene, first: NDArray[np.int64], frames: int) -> Scene:
    """`frames` frames of every clip from its own first one."""
    batch = len(first)
    times = torch.from_numpy(first[:, None] + np.arange(frames)).to(scene.zoom.device)
    rows = torch.arange(batch, device=times.device)[:, None]
    moving = {name: getattr(scene, name)[rows, times] for name in ("expression", "angles_deg", "zoom", "shift")}
    return replace(scene, **moving)


def _neutral_face(layers: HeadLayers, rigs: RigSet, scene: Scene) -> Tensor:
    """Aligned faces (B, 3, 96, 96) from the front, without expression, in even light on grey."""
    still = torch.zeros_like(scene.zoom[:, :1])
    angles = torch.stack(euler_degrees(rigs.rotation[scene.rig].mT), -1)[:, None]
    front = replace(
        scene,
        expression=torch.zeros_like(scene.expression[:, :1]),
        angles_deg=angles,
        zoom=still + 1,
        shift=torch.stack([still, still], -1),
        light=torch.zeros_like(scene.light),
        gain=torch.ones_like(scene.gain),
        background=torch.full_like(scene.background, 0.5),
    )
    drawn = render(layers, rigs, front, supersample=1)
    return warp(drawn.frames[:, 0], face_transform(drawn.landmarks[:, 0, :, :2]), FACE_SIZE)


def tighten(pictures: Tensor, generator: np.random.Generator) -> Tensor:
    """Let some portraits end where tightly cropped photos do: at the hair, the cheeks or the chin, grey beyond.

    Args:
        pictures: (B, 3, H, W) in [0, 1], in the portrait frame.
        generator: Of which, and where.
    """
    batch, _, height, width = pictures.shape
    inset = generator.uniform(0, [[0.26, 0.22, 0.18, 0.22]], (batch, 4)) * (generator.uniform(size=(batch, 4)) < 0.6)
    inset *= generator.uniform(size=(batch, 1)) < _TIGHT_SHARE
    top, left, bottom, right = torch.from_numpy(inset.astype(np.float32)).to(pictures.device).T[..., None, None]
    v = ((torch.arange(height, device=pictures.device) + 0.5) / height)[:, None]
    u = ((torch.arange(width, device=pictures.device) + 0.5) / width)[None]
    inside = (v >= top) & (v <= 1 - bottom) & (u >= left) & (u <= 1 - right)
    return torch.where(inside[:, None], pictures, 0.5)


def reference_views(layers: HeadLayers, rigs: RigSet, draw: Draw) -> tuple[Tensor, Tensor]:
    """References in the portrait frame (B, 3, S, S) and their aligned faces (B, 3, 96, 96), in [0, 1].

    Drawn at twice the size first, since a user's photo is usually sharper than a frame of a clip.
    """
    double = 2 * PORTRAIT_SIZE
    drawn = render(layers, rigs, draw.reference, size=double, supersample=1)
    photo = _untouched(rigs, draw, double)
    choose = draw.photo[:, None, None, None]
    large = torch.where(choose, photo.frames[:, 0], drawn.frames[:, 0])
    landmarks = torch.where(draw.photo[:, None, None], photo.landmarks[:, 0], drawn.landmarks[:, 0])
    face = warp(large, face_transform(landmarks[..., :2]), FACE_SIZE)
    return torch.nn.functional.avg_pool2d(large, 2), face


def _untouched(rigs: RigSet, draw: Draw, size: int) -> Rendering:
    """The reference photo itself, cut from its canvas, with its detected landmarks."""
    scene = draw.reference
    side = CANVAS / CANVAS_MARGIN / scene.zoom[:, 0]
    corner = CANVAS / 2 - side[:, None] * (0.5 + scene.shift[:, 0])
    zero = torch.zeros_like(side)
    linear = torch.stack([torch.stack([side, zero], -1), torch.stack([zero, side], -1)], -2)
    frame = torch.cat([linear, corner[..., None]], -1)
    crop = warp(scene.texture, frame, size)
    points = rigs.landmarks[scene.rig] + corner.new_tensor([0.5, 0.5, 0.0])
    flat = (points[..., :2] - corner[:, None]) / side[:, None, None] * size
    depth = points[..., 2:] / side[:, None, None] * size
    return Rendering(crop[:, None], torch.cat([flat, depth], -1)[:, None])


@dataclass(frozen=True)
class LatentPool:
    """What the video model trains on, on one device.

    Attributes:
        clips: (M, T, C, h, w) float16 latents, the transformer's order.
        reference: (M, 1, C, h, w) float16 reference latents.
        face_tokens: (M, g, g, D) float16 face vision tokens of the reference.
        identity: (M, K) float16 head shape.
        text: (M, L, D) float16 caption states.
        null_text: (1, L, D) float16 states of the empty prompt.
    """

    clips: Tensor
    reference: Tensor
    face_tokens: Tensor
    identity: Tensor
    text: Tensor
    null_text: Tensor

    def __len__(self) -> int:
        return len(self.clips)

    @classmethod
    def open(cls, folder: Path, device: str) -> "LatentPool":
        """Read an encoded pool to a device."""
        names = [field.name for field in fields(cls)]
        arrays = {name: open_array(folder / f"latent_{name}.npy", "fantasyid data encode-pool") for name in names}
        return cls(**{name: torch.from_numpy(array) for name, array in arrays.items()}).to(device)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.clips.device

    def to(self, device: torch.device | str) -> "LatentPool":
        """The same clips on a device."""
        return LatentPool(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def rows(self, index: Tensor) -> "LatentPool":
        """Some clips."""
        chosen = {field.name: getattr(self, field.name)[index] for field in fields(self) if field.name != "null_text"}
        return LatentPool(**chosen, null_text=self.null_text)

    def shown(self, index: Tensor, view: Tensor, noised: Tensor) -> "LatentPool":
        """Some clips with one view each.

        Args:
            index: (B,) numbers of them.
            view: (B,) in [0, 1), which of a clip's V views is wanted, where the pool has (M, V, ...) of references and
                face tokens.
            noised: (B,) negative: a pool holds no noised references, as an encoding does.
        """
        number = (view * self.reference.shape[1]).long()
        chosen = {name: getattr(self, name)[index] for name in ("clips", "identity", "text")}
        faces = self.face_tokens[index, number] if self.face_tokens.ndim == 5 else self.face_tokens[index]
        reference = self.reference[index, number][:, None]
        return LatentPool(**chosen, reference=reference, face_tokens=faces, null_text=self.null_text)

    @classmethod
    def joined(cls, parts: Sequence["LatentPool"]) -> "LatentPool":
        """Clips of several pools in one."""
        names = [field.name for field in fields(cls) if field.name != "null_text"]
        together = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return cls(**together, null_text=parts[0].null_text)


@torch.no_grad()
def encode_pool(folder: Path, vae: AutoencoderKLCogVideoX, vision: FaceVisionModel, device: str) -> None:
    """Encode a rendered pool; writes `latent_*.npy` beside the clips, that of the empty prompt last."""
    pool = ClipPool.open(folder)
    tokenizer, text_encoder = load_text_encoder()
    vae, vision, text_encoder = vae.to(device), vision.to(device), text_encoder.to(device)
    parts: dict[str, list[Tensor]] = {name: [] for name in ("clips", "reference", "face_tokens", "text")}
    frames = pool.clips.shape[1]
    chunk = min(_FRAMES_AT_ONCE // frames, 96)
    for start in tqdm(range(0, len(pool), chunk), desc="encoding", mininterval=5.0):
        rows = slice(start, min(start + chunk, len(pool)))

        def signed(pictures: NDArray[np.uint8]) -> Tensor:
            return torch.from_numpy(np.array(pictures)).to(device).float() / 127.5 - 1

        video = rearrange(signed(pool.clips[rows]), "b t c h w -> (b t) c h w")
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            tokens = vision(signed(pool.face[rows])).tokens
        encoded = {
            "clips": rearrange(_latents(vae, video), "(b t) c h w -> b t c h w", t=frames),
            "reference": _latents(vae, signed(pool.reference[rows]))[:, None],
            "face_tokens": tokens,
            "text": encode_text(tokenizer, text_encoder, pool.captions[rows], TEXT_LENGTH),
        }
        for name, value in encoded.items():
            parts[name].append(value.half().cpu())
    last = folder / "latent_null_text.npy"
    last.unlink(missing_ok=True)  # until all is made anew, this is no encoded pool
    for name, values in parts.items():
        np.save(folder / f"latent_{name}.npy", torch.cat(values).numpy())
    np.save(folder / "latent_identity.npy", np.asarray(pool.identity))
    null_text = encode_text(tokenizer, text_encoder, [""], TEXT_LENGTH).half().cpu().numpy()
    write_array(last, null_text)


def _latents(vae: AutoencoderKLCogVideoX, pictures: Tensor) -> Tensor:
    return normalise_latents(vae, frame_latents(vae, pictures.bfloat16()).float())


if __name__ == "__main__":
    tell_new_command("fantasyid.data.precompute", "fantasyid data render", "fantasyid data encode-pool")
