"""One clip to what a video model is trained on, by the code that serves a user's photo and prompt."""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fantasyid.conditioning.identity import IdentityPreparation, prepare_identity
from fantasyid.conditioning.latents import encode_video, reference_latents
from fantasyid.conditioning.text import encode_text
from fantasyid.core.imaging import to_tensor
from fantasyid.core.seeds import seed_of
from fantasyid.models.eva_vision import EvaVisionModel
from fantasyid.models.vision import FaceVisionModel

NOISE_LOG_MEAN, NOISE_LOG_STD = -3.0, 0.5
"""Of the standard deviation of a reference's noise, for pixels in [-1, 1]: as CogVideoX-I2V and ConsisID train."""
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+")


@dataclass(frozen=True, eq=False)
class SeenView:
    """A view of the person as a dataset holds it.

    Attributes:
        jpeg: The picture's bytes, (B,) uint8.
        landmarks: (478,3) pixels of it.
        vertices: (N,3) cm, the neutral head read from it.
    """

    jpeg: Tensor
    landmarks: Tensor
    vertices: Tensor


@dataclass(frozen=True, eq=False)
class Encoders:
    """The networks of a model that training does without, and how they want their inputs; all on one device.

    Attributes:
        vae: Encodes clips and references.
        tokenizer: Of the text encoder.
        text_encoder: Encodes captions.
        face_vision: Makes face tokens.
        preparation: How a photo is cut; its size is the videos'.
        text_length: Tokens of a caption, padded.
        dtype: In which latents and text states are kept; face tokens are kept as float16.
    """

    vae: AutoencoderKLCogVideoX
    tokenizer: PreTrainedTokenizerBase
    text_encoder: PreTrainedModel
    face_vision: FaceVisionModel | EvaVisionModel
    preparation: IdentityPreparation
    text_length: int
    dtype: torch.dtype

    @torch.no_grad()
    def latents(self, frames: Iterable[NDArray[np.uint8]]) -> Tensor:
        """Encode a clip.

        Args:
            frames: RGB (H,W,3) each, of the videos' shape; as many as the VAE allows.

        Returns:
            (T,C,h,w), the distribution's mode, normalised.

        Raises:
            InvalidRequestError: The VAE does not take so many frames.
        """
        size = self.preparation.reference_size
        video = torch.cat([_resized(to_tensor(frame), size) for frame in frames])
        encoded = encode_video(self.vae, rearrange(video, "t c h w -> 1 c t h w").to(self.vae.device))
        return rearrange(encoded, "1 c t h w -> t c h w").to("cpu", self.dtype)

    @torch.no_grad()
    def views(
        self, views: Sequence[SeenView], topology_hash: str, clip_id: str, noised: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode what is seen of a person, each view by itself.

        Args:
            views: At least one.
            topology_hash: Of the mesh of their heads.
            clip_id: Whose they are; seed of the noise.
            noised: K, how many noised references are wanted of each view; at least one.

        Returns:
            Reference latents (V,C,h,w), those of the same pictures with noise (V,K,C,h,w), and face tokens (V,g,g,D).
        """
        references, with_noise, tokens = [], [], []
        for number, view in enumerate(views):
            with Image.open(io.BytesIO(view.jpeg.numpy().tobytes())) as file:
                photo = to_tensor(np.asarray(file))
            landmarks = view.landmarks[None, :, :2]
            inputs = prepare_identity(photo, landmarks, view.vertices[None], topology_hash, self.preparation)
            picture = inputs.reference_image
            references.append(self._reference(picture))
            variants = (self._reference(with_pixel_noise(picture, f"{clip_id}/{number}/{k}")) for k in range(noised))
            with_noise.append(torch.stack(list(variants)))
            tokens.append(self.face_vision(inputs.face_crop.to(self.face_vision.device)).tokens[0].half().cpu())
        return torch.stack(references), torch.stack(with_noise), torch.stack(tokens)

    def _reference(self, picture: Tensor) -> Tensor:
        """The latent (C,h,w) of a picture (1,3,H,W)."""
        return reference_latents(self.vae, picture.to(self.vae.device))[0, :, 0].to("cpu", self.dtype)

    def text(self, caption: str) -> Tensor:
        """Encode a caption that `fitting_caption` let pass: (L,D)."""
        return encode_text(self.tokenizer, self.text_encoder, [caption], self.text_length)[0].to("cpu", self.dtype)

    def fitting_caption(self, caption: str) -> str:
        """The caption without as many of its last sentences as the text encoder cannot take; of one sentence, words."""
        sentences = _SENTENCE.split(caption.strip())
        for parts in (sentences, sentences[0].split()):
            for count in range(len(parts), 0, -1):
                text = " ".join(parts[:count])
                if len(self.tokenizer(text).input_ids) <= self.text_length:
                    return text
        return ""


def with_pixel_noise(picture: Tensor, name: str) -> Tensor:
    """A reference as CogVideoX-I2V is trained on it: with normal noise of a log-normal standard deviation.

    Args:
        picture: (1,3,H,W) in [-1, 1], on the CPU, so that each device gets the same noise.
        name: What the noise is a function of.

    Returns:
        (1,3,H,W), not clamped, as upstream.
    """
    generator = torch.Generator().manual_seed(seed_of(name))
    deviation = (NOISE_LOG_MEAN + NOISE_LOG_STD * torch.randn(1, generator=generator)).exp()
    return picture + deviation * torch.randn(picture.shape, generator=generator)


def person_vertices(views: Sequence[SeenView]) -> Tensor:
    """The head that most views agree on: the median of each coordinate, (N,3) cm."""
    return torch.stack([view.vertices for view in views]).quantile(0.5, dim=0)


def _resized(frame: Tensor, size: tuple[int, int]) -> Tensor:
    if frame.shape[-2:] == size:
        return frame
    return F.interpolate(frame, size, mode="bicubic", antialias=True).clamp(-1, 1)
