"""Work done once before training: clips rendered to a pool on disk, then encoded to what the transformer reads.

Commands:
    python -m fantasyid.data.precompute --pool POOL render --rigs rigs.npz --clips 40000
    python -m fantasyid.data.precompute --pool POOL encode --vae FOLDER --vision FOLDER

A pool is a folder of memory-mapped arrays (see `ClipPool`, `LatentPool`), so that every training stage reads the same
clips and neither renderer, VAE, text encoder nor face nets enter the trainer of the video model.
"""

import argparse
import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from fantasyid.conditioning.latents import encode_video, reference_latents
from fantasyid.conditioning.text import encode_text, load_text_encoder
from fantasyid.data.repose.render import Rendering, render
from fantasyid.data.repose.rig import CANVAS, CANVAS_MARGIN, HeadLayers, RigSet
from fantasyid.data.repose.scenes import Draw, SceneSampler
from fantasyid.face.align import FACE_SIZE, PORTRAIT_SIZE, face_transform, warp
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.vision import FaceVisionModel

FRAMES = 17
TEXT_LENGTH = 48
_CHUNK = 24


@dataclass(frozen=True)
class ClipPool:
    """M clips with their references, as memory maps of uint8 pictures (RGB, channels first).

    Attributes:
        clips: (M, 17, 3, 128, 128).
        reference: (M, 3, 128, 128) another view of the same person, in the portrait frame.
        face: (M, 3, 96, 96) aligned face of the reference.
        frame_face: (M, 3, 96, 96) aligned face of one frame of the clip.
        still: (M, 3, 128, 128) one frame of the clip.
        identity: (M, K) float16 head shape.
        captions: M sentences.
    """

    clips: NDArray[np.uint8]
    reference: NDArray[np.uint8]
    face: NDArray[np.uint8]
    frame_face: NDArray[np.uint8]
    still: NDArray[np.uint8]
    identity: NDArray[np.float16]
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    @classmethod
    def open(cls, folder: Path) -> "ClipPool":
        """Map an existing pool."""
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in (*_SHAPES, "identity")}
        return cls(**arrays, captions=json.loads((folder / "captions.json").read_text()))


_SHAPES: dict[str, tuple[tuple[int, ...], type]] = {
    "clips": ((FRAMES, 3, PORTRAIT_SIZE, PORTRAIT_SIZE), np.uint8),
    "reference": ((3, PORTRAIT_SIZE, PORTRAIT_SIZE), np.uint8),
    "face": ((3, FACE_SIZE, FACE_SIZE), np.uint8),
    "frame_face": ((3, FACE_SIZE, FACE_SIZE), np.uint8),
    "still": ((3, PORTRAIT_SIZE, PORTRAIT_SIZE), np.uint8),
}


@torch.no_grad()
def render_pool(rigs_path: Path, out: Path, clips: int, device: str, seed: int) -> None:
    """Render `clips` clips into the folder `out`; the list of captions is written last and marks a finished pool."""
    layers = HeadLayers.build(HeadModel.load().to(device))
    rigs = RigSet.load(rigs_path, layers)
    sampler = SceneSampler(layers, rigs, seed)
    generator = np.random.default_rng(seed + 1)
    out.mkdir(parents=True, exist_ok=True)
    shapes = _SHAPES | {"identity": ((rigs.identity.shape[1],), np.float16)}
    maps = {
        name: np.lib.format.open_memmap(out / f"{name}.npy", mode="w+", dtype=dtype, shape=(clips, *shape))
        for name, (shape, dtype) in shapes.items()
    }
    captions: list[str] = []
    for start in tqdm(range(0, clips, _CHUNK), desc="rendering", mininterval=5.0):
        stop = min(start + _CHUNK, clips)
        draw = sampler.draw(stop - start, FRAMES)
        target = render(layers, rigs, draw.target)
        reference, face = reference_views(layers, rigs, draw)
        rows = torch.arange(stop - start, device=reference.device)
        pick = torch.from_numpy(generator.integers(0, FRAMES, stop - start)).to(reference.device)
        still = target.frames[rows, pick]
        frame_face = warp(still, face_transform(target.landmarks[rows, pick][..., :2]), FACE_SIZE)
        pictures = {"clips": target.frames, "reference": reference, "face": face}
        pictures |= {"frame_face": frame_face, "still": still}
        for name, picture in pictures.items():
            maps[name][start:stop] = (picture * 255).round().clamp(0, 255).byte().cpu().numpy()
        maps["identity"][start:stop] = draw.identity.half().cpu().numpy()
        captions += draw.captions
    (out / "captions.json").write_text(json.dumps(captions))


def reference_views(layers: HeadLayers, rigs: RigSet, draw: Draw) -> tuple[Tensor, Tensor]:
    """References in the portrait frame (B, 3, 128, 128) and their aligned faces (B, 3, 96, 96), in [0, 1].

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
        clips: (M, 5, C, 16, 16) float16 latents, the transformer's order.
        stills: (M, 3, C, 16, 16) float16 latents of single frames of the clip, each encoded alone.
        reference: (M, 1, C, 16, 16) float16 reference latents.
        face_tokens: (M, 12, 12, 192) float16 face vision tokens of the reference.
        identity: (M, K) float16 head shape.
        text: (M, L, D) float16 caption states.
        null_text: (1, L, D) float16 states of the empty prompt.
    """

    clips: Tensor
    stills: Tensor
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
        names = (field.name for field in fields(cls))
        return cls(**{name: torch.from_numpy(np.load(folder / f"latent_{name}.npy")).to(device) for name in names})


@torch.no_grad()
def encode_pool(folder: Path, vae: AutoencoderKLCogVideoX, vision: FaceVisionModel, device: str, seed: int) -> None:
    """Encode a rendered pool; writes `latent_*.npy` beside the clips."""
    pool = ClipPool.open(folder)
    tokenizer, text_encoder = load_text_encoder()
    vae, vision, text_encoder = vae.to(device, torch.bfloat16), vision.to(device), text_encoder.to(device)
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Tensor]] = {name: [] for name in ("clips", "stills", "reference", "face_tokens", "text")}
    for start in tqdm(range(0, len(pool), _CHUNK), desc="encoding", mininterval=5.0):
        rows = slice(start, min(start + _CHUNK, len(pool)))

        def signed(pictures: NDArray[np.uint8]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).float() / 127.5 - 1

        video = signed(pool.clips[rows])
        picks = torch.from_numpy(rng.integers(0, FRAMES, (len(video), 3))).to(device)
        stills = video[torch.arange(len(video), device=device)[:, None], picks]
        single = reference_latents(vae, stills.flatten(0, 1))
        latents = {
            "clips": encode_video(vae, video.transpose(1, 2)).transpose(1, 2),
            "stills": rearrange(single, "(b n) c 1 h w -> b n c h w", b=len(video)),
            "reference": reference_latents(vae, signed(pool.reference[rows])).transpose(1, 2),
            "face_tokens": vision(signed(pool.face[rows])).tokens,
            "text": encode_text(tokenizer, text_encoder, pool.captions[rows], TEXT_LENGTH),
        }
        for name, value in latents.items():
            parts[name].append(value.half().cpu())
    encoded = {name: torch.cat(values).numpy() for name, values in parts.items()}
    encoded["identity"] = np.asarray(pool.identity)
    encoded["null_text"] = encode_text(tokenizer, text_encoder, [""], TEXT_LENGTH).half().cpu().numpy()
    for name, array in encoded.items():
        np.save(folder / f"latent_{name}.npy", array)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True, help="folder of the pool")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=0)
    steps = parser.add_subparsers(dest="step", required=True)
    rendering = steps.add_parser("render", help="render clips")
    rendering.add_argument("--rigs", type=Path, required=True, help="file of repose.prepare")
    rendering.add_argument("--clips", type=int, required=True, help="how many")
    encoding = steps.add_parser("encode", help="encode rendered clips")
    encoding.add_argument("--vae", type=Path, required=True, help="folder of a trained VAE")
    encoding.add_argument("--vision", type=Path, required=True, help="folder of a trained face vision model")
    options = parser.parse_args()
    if options.step == "render":
        render_pool(options.rigs, options.pool, options.clips, options.device, options.seed)
    else:
        vae = AutoencoderKLCogVideoX.from_pretrained(options.vae)
        vision = FaceVisionModel.from_pretrained(options.vision)
        encode_pool(options.pool, vae, vision, options.device, options.seed)


if __name__ == "__main__":
    main()
