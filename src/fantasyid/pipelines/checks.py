"""What a pipeline's call is checked for before any work: each function refuses by name and says what is allowed."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fantasyid.conditioning.identity import IdentityInputs
from fantasyid.conditioning.latents import allowed_frames
from fantasyid.conditioning.text import check_text
from fantasyid.core.bounds import (
    GUIDANCE_SCALE,
    IDENTITY_SCALE,
    PIXELS_PER_SIDE,
    VIDEOS_PER_PROMPT,
    Bounds,
    check_integer,
    check_number,
    check_shares,
)
from fantasyid.core.errors import InvalidRequestError, MissingWeightsError, TopologyMismatchError
from fantasyid.geometry.head_check import check_heads
from fantasyid.models.eva_vision import EvaVisionModel
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.released import ReleasedIdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.models.vision import FaceVisionModel
from fantasyid.pipelines.sampling import Scheduler

Encoder: TypeAlias = IdentityEncoder | ReleasedIdentityEncoder

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
CALLBACK_TENSORS = ("latents", "prompt_embeds", "negative_prompt_embeds", "pred_original_sample")


_CLASSES: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "tokenizer": (PreTrainedTokenizerBase,),
        "text_encoder": (PreTrainedModel,),
        "vae": (AutoencoderKLCogVideoX,),
        "identity_encoder": (IdentityEncoder, ReleasedIdentityEncoder),
        "face_vision": (FaceVisionModel, EvaVisionModel),
        "face_reader_model": (FaceReaderModel,),
    }
)
"""What each component may be; transformer and scheduler may be changed until a call, which looks at them."""


def check_classes(components: Mapping[str, Any]) -> None:
    """Refuse a component in another's place.

    Args:
        components: Some of a pipeline's, by name; None is left out.

    Raises:
        InvalidRequestError: The message says what to use.
    """
    for name, component in components.items():
        if component is not None and not isinstance(component, _CLASSES[name]):
            allowed = " or ".join(cls.__name__ for cls in _CLASSES[name])
            raise InvalidRequestError(f"The {name} is a {type(component).__name__}; use {allowed}.")


def check_networks(components: Mapping[str, Any]) -> None:
    """Refuse a pipeline that lacks what every video needs, and a transformer or a scheduler of another kind.

    Args:
        components: All of the pipeline's, by name.

    Raises:
        MissingWeightsError: A component is not there.
        InvalidRequestError: The message says which are allowed.
    """
    if missing := [name for name in ("vae", "transformer", "scheduler") if components[name] is None]:
        raise MissingWeightsError(f"This pipeline has no {' and no '.join(missing)}; load all of it to make videos.")
    transformer, scheduler = components["transformer"], components["scheduler"]
    if not isinstance(transformer, FantasyIDTransformer3DModel):
        raise InvalidRequestError(
            f"The transformer is a {type(transformer).__name__}; wrap it with FantasyIDTransformer3DModel.from_base."
        )
    if not isinstance(scheduler, CogVideoXDDIMScheduler | CogVideoXDPMScheduler):
        raise InvalidRequestError(
            f"The scheduler is a {type(scheduler).__name__}; use CogVideoXDDIMScheduler or CogVideoXDPMScheduler."
        )


def check_text_networks(components: Mapping[str, Any]) -> None:
    """Refuse a pipeline without a text encoder where there is text to encode.

    Args:
        components: All of the pipeline's, by name.

    Raises:
        MissingWeightsError: It or its tokenizer is not there.
    """
    if missing := [name for name in ("tokenizer", "text_encoder") if components[name] is None]:
        raise MissingWeightsError(
            f"This pipeline has no {' and no '.join(missing)}; pass prompt_embeds, and with guidance "
            "negative_prompt_embeds, from encode_prompt of one that has."
        )


def check_prompts(
    prompt: Any, negative_prompt: Any, prompt_embeds: Any, negative_prompt_embeds: Any, config: Mapping[str, Any]
) -> int:
    """Refuse texts and text states that do not go together or do not fit the transformer.

    Args:
        prompt: One or P texts, or None.
        negative_prompt: One text for all, or P; or None.
        prompt_embeds: (P, L, D) instead of `prompt`, or None.
        negative_prompt_embeds: (P, L, D) or (1, L, D) instead of `negative_prompt`, or None.
        config: The transformer's, which gives L and D.

    Returns:
        P.

    Raises:
        InvalidRequestError: The message says what does not fit.
    """
    if (prompt is None) == (prompt_embeds is None):
        raise InvalidRequestError("Pass either prompt or prompt_embeds.")
    if negative_prompt is not None and negative_prompt_embeds is not None:
        raise InvalidRequestError("Pass negative_prompt or negative_prompt_embeds, not both.")
    for name, states in (("prompt_embeds", prompt_embeds), ("negative_prompt_embeds", negative_prompt_embeds)):
        if states is not None and not isinstance(states, torch.Tensor):
            raise InvalidRequestError(f"{name} is a {type(states).__name__}; it must be a tensor from encode_prompt.")
    if prompt_embeds is not None and negative_prompt_embeds is not None:
        shapes = tuple(prompt_embeds.shape), tuple(negative_prompt_embeds.shape)
        if shapes[0] != shapes[1]:
            raise InvalidRequestError(
                f"prompt_embeds {shapes[0]} and negative_prompt_embeds {shapes[1]} must have the same shape."
            )
    for name, states in (("prompt_embeds", prompt_embeds), ("negative_prompt_embeds", negative_prompt_embeds)):
        if states is not None:
            _check_states(name, states, config["max_text_seq_length"], config["text_embed_dim"])
    prompts = _count(prompt, "prompts") if prompt_embeds is None else prompt_embeds.shape[0]
    negatives = _count(negative_prompt, "negative prompts") if negative_prompt is not None else 1
    if negative_prompt_embeds is not None:
        negatives = negative_prompt_embeds.shape[0]
    if negatives != prompts and (negatives != 1 or isinstance(negative_prompt, list)):
        raise InvalidRequestError(
            f"There are {negatives} negative prompts for {prompts} prompts; give one text for all, or one per prompt."
        )
    return prompts


def _count(texts: Any, what: str) -> int:
    if not isinstance(texts, list):
        check_text(texts)
        return 1
    if not texts:
        raise InvalidRequestError(f"The list of {what} is empty.")
    for text in texts:
        check_text(text)
    return len(texts)


def _check_states(name: str, states: torch.Tensor, length: int, width: int) -> None:
    if states.ndim != 3 or states.shape[0] == 0 or states.shape[1:] != (length, width):
        raise InvalidRequestError(
            f"{name} is {tuple(states.shape)}; it must be (prompts, {length}, {width}), as encode_prompt gives it."
        )
    check_given(name, states)


def check_given(name: str, tensor: torch.Tensor) -> None:
    """Refuse a tensor of the user's that holds NaN or an infinity.

    Raises:
        InvalidRequestError: It does.
    """
    if not torch.isfinite(tensor).all():
        raise InvalidRequestError(f"{name} holds numbers that are not finite; pass others.")


def check_output(output_type: str, tensor_inputs: Sequence[str]) -> None:
    """Refuse unknown names of outputs and of callback tensors.

    Raises:
        InvalidRequestError: The message names those that there are.
    """
    if output_type not in OUTPUT_TYPES:
        raise InvalidRequestError(f"output_type is {output_type!r}; it can be {', '.join(OUTPUT_TYPES)}.")
    unknown = set(tensor_inputs) - set(CALLBACK_TENSORS)
    if unknown:
        raise InvalidRequestError(
            f"callback_on_step_end_tensor_inputs has {sorted(unknown)}; it can have {list(CALLBACK_TENSORS)}."
        )


def check_size(
    config: Mapping[str, Any], vae: AutoencoderKLCogVideoX, factor: int, num_frames: Any, height: Any, width: Any
) -> None:
    """Refuse lengths and sizes that a model cannot make.

    Args:
        config: The transformer's.
        vae: The video VAE.
        factor: Pixels per latent and side.
        num_frames: Of the video.
        height: Pixels.
        width: Pixels.

    Raises:
        InvalidRequestError: The message says which are allowed.
    """
    # CogVideoX 1.5 was trained at 5 and 10 seconds; its config has the shorter.
    longest = config["sample_frames"] if config["patch_size_t"] is None else 2 * config["sample_frames"] - 1
    lengths = allowed_frames(vae, longest)
    if isinstance(num_frames, bool) or not isinstance(num_frames, Integral) or num_frames not in lengths:
        raise InvalidRequestError(f"num_frames is {num_frames}; this model makes {', '.join(map(str, lengths))}.")
    multiple = factor * config["patch_size"]
    if height < multiple or width < multiple or height % multiple or width % multiple:
        raise InvalidRequestError(f"The size {width}x{height} must be in multiples of {multiple} pixels.")
    check_integer("height", height, PIXELS_PER_SIDE)
    check_integer("width", width, PIXELS_PER_SIDE)
    trained = config["sample_height"] * factor, config["sample_width"] * factor
    if config["use_learned_positional_embeddings"] and (height, width) != trained:
        raise InvalidRequestError(
            f"The size is {width}x{height}; this model's learned positions allow {trained[1]}x{trained[0]} only."
        )
    if config["patch_size_t"] is not None and (height > trained[0] or width > trained[1]):
        raise InvalidRequestError(
            f"The size is {width}x{height}; this model's positions end at {trained[1]}x{trained[0]}."
        )


def check_numbers(
    steps: Any,
    scheduler: Scheduler,
    guidance_scale: Any,
    guidance_interval: Any,
    identity_scale: Any,
    num_videos_per_prompt: Any,
) -> None:
    """Refuse numbers that are not finite or out of bounds; the scheduler says how many steps there are.

    Raises:
        InvalidRequestError: The message names the number and its bounds.
    """
    check_integer("num_inference_steps", steps, Bounds(1, scheduler.config.num_train_timesteps))
    check_number("guidance_scale", guidance_scale, GUIDANCE_SCALE)
    check_shares("guidance_interval", guidance_interval)
    check_number("identity_scale", identity_scale, IDENTITY_SCALE)
    check_integer("num_videos_per_prompt", num_videos_per_prompt, VIDEOS_PER_PROMPT)


def check_generator(generator: Any, videos: int) -> None:
    """Refuse what is no source of noise, or too few or too many of them.

    Raises:
        InvalidRequestError: The message says what to pass.
    """
    generators = generator if isinstance(generator, list) else [] if generator is None else [generator]
    for one in generators:
        if not isinstance(one, torch.Generator):
            raise InvalidRequestError(
                f"generator is {one!r}; it must be a torch.Generator, such as torch.Generator().manual_seed(7)."
            )
    if isinstance(generator, list) and len(generator) != videos:
        raise InvalidRequestError(f"There are {len(generator)} generators for {videos} videos.")


def check_latents(latents: Any, shape: tuple[int, ...]) -> None:
    """Refuse latents of the user's of another shape.

    Raises:
        InvalidRequestError: The message says what it must be.
    """
    if not isinstance(latents, torch.Tensor) or latents.shape != shape:
        given = tuple(latents.shape) if isinstance(latents, torch.Tensor) else f"a {type(latents).__name__}"
        raise InvalidRequestError(f"latents are {given} and must be a tensor {shape}.")


def check_one_source(image: Any, identity_inputs: IdentityInputs | None) -> None:
    """Refuse a photo beside a person already read.

    Raises:
        InvalidRequestError: Both are given.
    """
    if image is not None and identity_inputs is not None:
        raise InvalidRequestError("Pass image or identity_inputs, not both.")


def check_ways_in(
    config: Mapping[str, Any], components: Mapping[str, Any], use_reference: bool, use_identity_tokens: bool
) -> None:
    """Refuse a person where the model has no way in for one.

    Args:
        config: The transformer's.
        components: The pipeline's, by name.
        use_reference: Whether the reference latent is wanted.
        use_identity_tokens: Whether the identity tokens are wanted.

    Raises:
        InvalidRequestError: The base takes no reference latent.
        MissingWeightsError: A component is needed and not there.
    """
    latent_channels = components["vae"].config.latent_channels
    if use_reference and config["in_channels"] != 2 * latent_channels:
        raise InvalidRequestError(
            f"This base takes {config['in_channels']} latent channels, so no reference latent "
            f"(an I2V base takes {2 * latent_channels}); pass use_reference=False."
        )
    missing = [name for name in ("identity_encoder", "face_vision") if components[name] is None]
    if config["identity_token_dim"] is None:
        missing.append("injection in its transformer")
    if use_identity_tokens and missing:
        raise MissingWeightsError(
            f"This pipeline has no {' and no '.join(missing)}; pass use_identity_tokens=False, or load a model "
            'with identity weights such as FantasyIDPipeline.from_pretrained("mini").'
        )


def check_person(
    inputs: IdentityInputs, prompts: int, size: tuple[int, int] | None, identity_encoder: Encoder | None
) -> None:
    """Refuse a person that does not fit the videos or cannot be one; all vertices pass here.

    Args:
        inputs: One person or several.
        prompts: How many there are; each may have its own person.
        size: Height and width that the reference picture must have; None where it is not used.
        identity_encoder: Takes the vertices; None where they are not used.

    Raises:
        InvalidRequestError: The number of persons, the reference picture's size or a number in it does not fit.
        TopologyMismatchError: The vertices are of another mesh than the identity encoder was trained on.
        ImpossibleHeadError: The vertices are no head.
    """
    people, _, height, width = inputs.reference_image.shape
    if people not in (1, prompts):
        raise InvalidRequestError(f"{people} people do not fit {prompts} prompts; give one, or one per prompt.")
    if size is not None:
        if (height, width) != size:
            raise InvalidRequestError(
                f"The reference picture is {width}x{height}; it must have the video's size, {size[1]}x{size[0]}."
            )
        check_given("The reference picture", inputs.reference_image)
    if identity_encoder is None:
        return
    check_given("The face crop", inputs.face_crop)
    expected = identity_encoder.config.topology_hash
    if expected is not None and inputs.topology_hash != expected:
        raise TopologyMismatchError(
            f"The vertices are of mesh {inputs.topology_hash}, but the identity encoder was trained on "
            f"{expected}; read the photo with the head model it was trained with."
        )
    if identity_encoder.vertex_encoder is None or expected is None:  # the encoder itself says that it has no mesh
        return
    mean_head: Any = None
    if isinstance(identity_encoder, IdentityEncoder):
        mean_head = identity_encoder.vertex_encoder.mean_head
        if inputs.vertices.shape[1:] != mean_head.shape:
            raise TopologyMismatchError(
                f"The face has {inputs.vertices.shape[1]} vertices, but the identity encoder was trained on a mesh of "
                f"{len(mean_head)} (topology {expected}); use the head model it was trained with."
            )
    check_heads(inputs.vertices, mean_head)
