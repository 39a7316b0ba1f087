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
from fantasyid.models.eva_vision import EvaVisionModel
from fantasyid.models.vision import FaceVisionModel

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
    def views(self, views: Sequence[SeenView], topology_hash: str) -> tuple[Tensor, Tensor]:
        """Encode what is seen of a person, each view by itself.

        Args:
            views: At least one.
            topology_hash: Of the mesh of their heads.

        Returns:
            Reference latents (V,C,h,w) and face tokens (V,g,g,D).
        """
        references, tokens = [], []
        for view in views:
            with Image.open(io.BytesIO(view.jpeg.numpy().tobytes())) as picture:
                photo = to_tensor(np.asarray(picture))
            landmarks = view.landmarks[None, :, :2]
            inputs = prepare_identity(photo, landmarks, view.vertices[None], topology_hash, self.preparation)
            reference = reference_latents(self.vae, inputs.reference_image.to(self.vae.device))
            references.append(reference[0, :, 0].to("cpu", self.dtype))
            tokens.append(self.face_vision(inputs.face_crop.to(self.face_vision.device)).tokens[0].half().cpu())
        return torch.stack(references), torch.stack(tokens)

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


def person_vertices(views: Sequence[SeenView]) -> Tensor:
    """The head that most views agree on: the median of each coordinate, (N,3) cm."""
    return torch.stack([view.vertices for view in views]).quantile(0.5, dim=0)


def _resized(frame: Tensor, size: tuple[int, int]) -> Tensor:
    if frame.shape[-2:] == size:
        return frame
    return F.interpolate(frame, size, mode="bicubic", antialias=True).clamp(-1, 1)
