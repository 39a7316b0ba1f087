"""What the transformer is told, computed once per video: text states, the reference latent, identity tokens."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX
from einops import repeat
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fantasyid.conditioning.identity import IdentityInputs
from fantasyid.conditioning.latents import reference_latents
from fantasyid.conditioning.prompt_words import doubt_about
from fantasyid.conditioning.text import encode_text
from fantasyid.core.errors import FantasyIDWarning
from fantasyid.models.eva_vision import EvaVisionModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.released import ReleasedIdentityEncoder
from fantasyid.models.vision import FaceVisionModel
from fantasyid.pipelines.sampling import IdentityConditions, check_finite


@dataclass(frozen=True, eq=False)
class PersonNetworks:
    """What encodes a person; None leaves that way in out.

    Attributes:
        vae: Makes the reference latent.
        face_vision: Makes face tokens of the face crop.
        identity_encoder: Makes identity tokens of face tokens and vertices; None where `face_vision` is.
    """

    vae: AutoencoderKLCogVideoX | None
    face_vision: FaceVisionModel | EvaVisionModel | None
    identity_encoder: IdentityEncoder | ReleasedIdentityEncoder | None

    @classmethod
    def chosen(cls, components: Mapping[str, Any], use_reference: bool, use_identity_tokens: bool) -> "PersonNetworks":
        """Those of a pipeline's components that are to be used."""
        return cls(
            vae=components["vae"] if use_reference else None,
            face_vision=components["face_vision"] if use_identity_tokens else None,
            identity_encoder=components["identity_encoder"] if use_identity_tokens else None,
        )


def prompt_states(
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: PreTrainedModel,
    max_length: int,
    texts: str | list[str] | None,
    device: torch.device,
    truncate: bool,
) -> Tensor:
    """Encode texts, and warn of words that the encoder cannot have learned.

    Args:
        tokenizer: The encoder's.
        text_encoder: MiniLM or T5.
        max_length: Tokens the transformer takes.
        texts: One text or P.
        device: Where the encoder computes.
        truncate: Cut longer texts instead of refusing them.

    Returns:
        (P, max_length, D).

    Raises:
        InvalidRequestError: A text is too long.
        NotFiniteError: The encoder's weights are damaged.
    """
    assert texts is not None, "check_prompts lets texts or states through"
    texts = [texts] if isinstance(texts, str) else texts
    for text in texts:
        if doubt := doubt_about(tokenizer, text):
            warnings.warn(doubt, FantasyIDWarning, stacklevel=2)
    states = encode_text(tokenizer, text_encoder, texts, max_length, device, truncate)
    check_finite(states, "The text encoder")
    return states


def encode_person(
    inputs: IdentityInputs | None, networks: PersonNetworks, videos: int, device: torch.device, dtype: torch.dtype
) -> IdentityConditions:
    """Encode the person, once for all denoising steps.

    Args:
        inputs: One person, or one per prompt, as `checks.check_person` lets pass; None is nobody.
        networks: What encodes them.
        videos: To be made; a multiple of the number of persons.
        device: Where it is computed.
        dtype: The transformer's.

    Returns:
        The conditions on that device in that dtype, what is not wanted left out.

    Raises:
        NotFiniteError: A network's weights are damaged.
    """
    reference, tokens = None, None
    if inputs is not None and networks.vae is not None:
        latents = reference_latents(networks.vae, inputs.reference_image.to(device))
        check_finite(latents, "The VAE")
        reference = repeat(latents.to(dtype), "b c 1 h w -> (b n) 1 c h w", n=videos // len(latents))
    if inputs is not None and networks.face_vision is not None:
        encoder = networks.identity_encoder
        assert encoder is not None, "face tokens are for an identity encoder"
        face_tokens = networks.face_vision(inputs.face_crop.to(device)).tokens
        identity_tokens = encoder(face_tokens.to(encoder.dtype), inputs.vertices.to(device))
        check_finite(identity_tokens, "The identity encoder")
        tokens = repeat(identity_tokens.to(dtype), "b k d -> (b n) k d", n=videos // len(identity_tokens))
    return IdentityConditions(reference, tokens)
