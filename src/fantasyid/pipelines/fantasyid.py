"""One face photo and one prompt become a video of that person."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from einops import rearrange, repeat
from PIL import Image
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fantasyid.conditioning.identity import IdentityInputs, IdentityPreparation, PhotoStyle, read_identity
from fantasyid.conditioning.latents import (
    allowed_frames,
    concat_reference,
    decode_video,
    padding_frames,
    reference_latents,
    rotary_embedding,
)
from fantasyid.conditioning.text import encode_text
from fantasyid.core.errors import InvalidRequestError, MissingWeightsError, TopologyMismatchError
from fantasyid.core.imaging import Photo
from fantasyid.face.align import FACE_SIZE
from fantasyid.face.reader import FaceReader
from fantasyid.face.reconstruct_deca import DecaReconstructor
from fantasyid.models.eva_vision import EvaVisionModel
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.injection import IdentityKeyValues
from fantasyid.models.released import ReleasedIdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.models.vision import FaceVisionModel
from fantasyid.pipelines.builtin import MINI_FOLDER, load_builtin, load_component
from fantasyid.pipelines.convert import RELEASE_NAME, RELEASE_REMEDY, converted_from_hub, is_release
from fantasyid.pipelines.loading import LoadingRequest, download_model
from fantasyid.pipelines.memory import MemoryPlan, explain_out_of_memory
from fantasyid.pipelines.memory_options import MemoryOptionsPipeline
from fantasyid.pipelines.model_folder import load_folder
from fantasyid.pipelines.parallel import DeviceGroup

StepTensors = dict[str, torch.Tensor | None]
StepCallback = Callable[["FantasyIDPipeline", int, torch.Tensor, StepTensors], StepTensors]

_OFFSET = 2.0
"""What CogVideoX 1.5's image-to-video base is told beside the time; it was trained with this value only."""
OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@dataclass
class FantasyIDPipelineOutput(BaseOutput):
    """Videos, one per prompt and per video asked for.

    Attributes:
        frames: Lists of PIL images (`"pil"`), an array (B, T, H, W, 3) in [0, 1] (`"np"`), a tensor (B, T, 3, H, W) in
            [0, 1] (`"pt"`), or scaled latents (B, T, C, h, w) (`"latent"`).
    """

    frames: list[list[Image.Image]] | npt.NDArray[np.float32] | torch.Tensor


@dataclass(frozen=True)
class IdentityConditions:
    """What the network is told about the person, computed once per video.

    Attributes:
        reference: Reference latent (B, 1, C, h, w), or None when it is switched off.
        tokens: Identity tokens (B, N, D), or None when they are switched off.
    """

    reference: torch.Tensor | None
    tokens: torch.Tensor | None


@dataclass(frozen=True)
class _DenoiserInputs:
    """What stays the same over the denoising steps, for both branches of guidance."""

    reference: torch.Tensor | None
    key_values: IdentityKeyValues | None
    identity_scale: float | torch.Tensor

    def positive(self) -> "_DenoiserInputs":
        """The second half of the batch: the branch that guidance leads towards."""
        reference, key_values, scale = self.reference, self.key_values, self.identity_scale
        if reference is not None:
            reference = reference.chunk(2)[1]
        if key_values is not None:
            key_values = IdentityKeyValues(
                *(tuple(x.chunk(2)[1] for x in part) for part in (key_values.keys, key_values.values))
            )
        if isinstance(scale, torch.Tensor):
            scale = scale.chunk(2)[1]
        return _DenoiserInputs(reference, key_values, scale)


class FantasyIDPipeline(MemoryOptionsPipeline):
    """Identity-preserving text-to-video (paper 3).

    The person enters in two separable ways: the portrait's latent beside the noise, as in CogVideoX-I2V, and the
    identity tokens injected after every block (paper 3.5). With both off this is the plain text-to-video base.

    Args:
        tokenizer: Tokenizer of the text encoder.
        text_encoder: MiniLM for the built-in model, T5 for CogVideoX-5B.
        vae: Video VAE.
        transformer: Denoising network.
        scheduler: DDIM or DPM, as CogVideoX uses them.
        identity_encoder: Face tokens and vertices to identity tokens; not needed without identity tokens.
        face_vision: Aligned face crop to face tokens; not needed without identity tokens.
        face_reader_model: Reads a photo's landmarks; not needed when `identity_inputs` are given.
        guidance_drops_identity: Whether guidance's negative branch also drops reference and identity tokens. What it
            does must match training: True for the built-in model, False for full size.
        default_num_inference_steps: Denoising steps when a call names none.
        default_guidance_scale: Guidance when a call names none.
        fps: Frames per second the model was trained at.
        keep_expression_and_pose: Whether the 3D head keeps the photo's expression and pose, as the heads that the
            released checkpoint was made with; only for a released identity encoder.
    """

    model_cpu_offload_seq = "text_encoder->face_vision->identity_encoder->transformer->vae"
    _optional_components: ClassVar[list[str]] = ["identity_encoder", "face_vision", "face_reader_model"]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "prompt_embeds", "negative_prompt_embeds"]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: PreTrainedModel,
        vae: AutoencoderKLCogVideoX,
        transformer: FantasyIDTransformer3DModel,
        scheduler: CogVideoXDDIMScheduler | CogVideoXDPMScheduler,
        identity_encoder: IdentityEncoder | ReleasedIdentityEncoder | None = None,
        face_vision: FaceVisionModel | EvaVisionModel | None = None,
        face_reader_model: FaceReaderModel | None = None,
        guidance_drops_identity: bool = False,
        default_num_inference_steps: int = 50,
        default_guidance_scale: float = 6.0,
        fps: int = 8,
        keep_expression_and_pose: bool = False,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            vae=vae,
            transformer=transformer,
            scheduler=scheduler,
            identity_encoder=identity_encoder,
            face_vision=face_vision,
            face_reader_model=face_reader_model,
        )
        self.register_to_config(
            guidance_drops_identity=guidance_drops_identity,
            default_num_inference_steps=default_num_inference_steps,
            default_guidance_scale=default_guidance_scale,
            fps=fps,
            keep_expression_and_pose=keep_expression_and_pose,
        )
        self.vae_scale_factor_spatial = 2 ** (len(vae.config.block_out_channels) - 1)
        self.vae_scale_factor_temporal = vae.config.temporal_compression_ratio
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor_spatial)
        self._face_reader: FaceReader | None = None
        self._devices: DeviceGroup | None = None
        self.memory_plan: MemoryPlan = "fast"

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "FantasyIDPipeline":
        """Load a pipeline.

        Args:
            pretrained_model_name_or_path: `"mini"` for the model built into this package (a folder of that name is
                `"./mini"`), else a folder written by `save_pretrained` or a name on the Hugging Face Hub. The authors'
                release, `"acvlab/FantasyID"`, is converted once and the result kept in the Hub's cache.
            **kwargs: `torch_dtype` (or its other name `dtype`), as a name or of torch; `device_map`, one device;
                `revision`, `token`, `cache_dir` and `local_files_only` for the Hub; components to use instead of the
                model's, and for a folder settings, too.

        Returns:
            The pipeline, on the CPU unless `device_map` says otherwise.

        Raises:
            MissingWeightsError: The built-in weights are not installed, there is no such folder or name, or files of it
                are missing.
            CorruptWeightsError: Weights do not match their manifest or their class, or a folder names classes that we
                do not load.
            InvalidRequestError: The folder is the authors' release, which must be converted first, or an argument is
                not known.
        """
        name = str(pretrained_model_name_or_path)
        request = LoadingRequest.from_arguments(kwargs, set(inspect.signature(cls.__init__).parameters) - {"self"})
        if name == "mini":
            dtype: dict[str, Any] = {} if request.dtype is None else {"torch_dtype": request.dtype}
            arguments = load_builtin(**dtype, **request.given)
        else:
            arguments = load_folder(cls._find_folder(name, request), request.dtype, request.given)
        pipeline = cls(**arguments)
        return pipeline if request.device is None else pipeline.to(request.device)

    @staticmethod
    def _find_folder(name: str, request: LoadingRequest) -> Path:
        """The folder of a model's name, downloaded and converted where that is needed."""
        if is_release(Path(name)):
            raise InvalidRequestError(
                f"{name} is laid out as the authors publish their release; convert it once with: "
                f"fantasyid convert {name} OUT_DIR, and name OUT_DIR."
            )
        if Path(name).is_dir():
            return Path(name)
        remedy = f"Of the authors' release, {RELEASE_REMEDY}." if name == RELEASE_NAME else ""
        downloaded = download_model(name, request.hub, remedy)
        if name == RELEASE_NAME:
            return converted_from_hub(downloaded, request.hub.get("local_files_only", False))
        return downloaded

    @property
    def face_reader(self) -> FaceReader:
        """Finds and reads faces in photos; made at the first use.

        The networks are the built-in ones. Only the released checkpoint needs FLAME heads, so DECA's files; see
        `DecaReconstructor`. They are made as the authors' script makes them, or neutral if the pipeline's config says
        so.
        """
        if self._face_reader is None:
            if isinstance(self.identity_encoder, ReleasedIdentityEncoder):
                keep = self.config.keep_expression_and_pose
                reconstructor = DecaReconstructor.load(keep_expression_and_pose=keep)
                face_reader_model = self.face_reader_model or load_component(MINI_FOLDER, "face_reader_model")
                self._face_reader = FaceReader(face_reader_model, reconstructor=reconstructor)
            elif self.face_reader_model is None:
                raise MissingWeightsError(
                    "This pipeline has no face_reader_model to read a photo with; pass identity_inputs, "
                    'or take the one of FantasyIDPipeline.from_pretrained("mini").'
                )
            else:
                self._face_reader = FaceReader(self.face_reader_model)
        return self._face_reader

    def enable_parallelism(self, devices: DeviceGroup) -> None:
        """Share the denoising with other devices from now on; every process must make the same calls.

        Args:
            devices: Who they are and what each does.

        Raises:
            InvalidRequestError: The memory plan does not go with devices that share tokens.
        """
        if self.memory_plan != "fast" and devices.layout.devices > devices.layout.guidance:
            raise InvalidRequestError(
                f"Devices that share tokens need the memory plan 'fast', not {self.memory_plan!r}; use that, or two "
                "devices (one for each branch of guidance)."
            )
        self._devices = devices

    def identity_preparation(self, height: int | None = None, width: int | None = None) -> IdentityPreparation:
        """How this model's networks want a photo prepared.

        Args:
            height: Of the video in pixels; the model's own by default.
            width: As `height`.

        Returns:
            What `read_identity` needs beside the photo.
        """
        config, factor = self.transformer.config, self.vae_scale_factor_spatial
        size = (
            config.sample_height * factor if height is None else height,
            config.sample_width * factor if width is None else width,
        )
        style: PhotoStyle = "portrait" if self.identity_encoder is None else self.identity_encoder.photo_style
        face_size = FACE_SIZE if self.face_vision is None else self.face_vision.config.image_size
        return IdentityPreparation(style, size, face_size)

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        negative_prompt: str | list[str] | None = None,
        do_classifier_free_guidance: bool = True,
        num_videos_per_prompt: int = 1,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Encode prompts to token states, repeated for each video asked for.

        Args:
            prompt: One or P texts.
            negative_prompt: One text for all, or P; None is the empty text.
            do_classifier_free_guidance: Whether negative states are wanted.
            num_videos_per_prompt: Videos of each prompt.
            prompt_embeds: (P, L, D), states instead of `prompt`.
            negative_prompt_embeds: (P, L, D), states instead of `negative_prompt`.

        Returns:
            States and negative states (or None), each (P * num_videos_per_prompt, L, D) on the pipeline's device in
            the transformer's dtype, the videos of one prompt side by side.
        """

        def encode(texts: list[str]) -> torch.Tensor:
            length = self.transformer.config.max_text_seq_length
            return encode_text(self.tokenizer, self.text_encoder, texts, length, self._execution_device)

        def place(states: torch.Tensor) -> torch.Tensor:
            placed = states.to(self._execution_device, self.transformer.dtype)
            return repeat(placed, "b l d -> (b n) l d", n=num_videos_per_prompt)

        if prompt_embeds is None:
            assert prompt is not None, "check_inputs lets one of the two through"
            prompt_embeds = encode([prompt] if isinstance(prompt, str) else prompt)
        if not do_classifier_free_guidance:
            return place(prompt_embeds), None
        if negative_prompt_embeds is None:
            negatives = negative_prompt if isinstance(negative_prompt, list) else [negative_prompt or ""]
            negative_prompt_embeds = encode(negatives)
        if negative_prompt_embeds.shape[0] == 1:
            negative_prompt_embeds = negative_prompt_embeds.expand_as(prompt_embeds)
        return place(prompt_embeds), place(negative_prompt_embeds)

    def encode_identity(
        self,
        inputs: IdentityInputs | None,
        batch_size: int,
        size: tuple[int, int],
        use_reference: bool = True,
        use_identity_tokens: bool = True,
    ) -> IdentityConditions:
        """Encode the person, once for all denoising steps.

        Args:
            inputs: One person, or one per prompt; None is nobody.
            batch_size: Videos to be made; a multiple of the number of persons.
            size: Height and width of the video in pixels.
            use_reference: Whether the reference latent is wanted.
            use_identity_tokens: Whether the identity tokens are wanted.

        Returns:
            The conditions on the pipeline's device in the transformer's dtype, what is not wanted left out.

        Raises:
            InvalidRequestError: The number of persons or the reference picture's size does not fit the videos.
            TopologyMismatchError: The vertices are of another mesh than the identity encoder was trained on.
        """
        if inputs is None:
            return IdentityConditions(None, None)
        device, dtype = self._execution_device, self.transformer.dtype
        people, _, height, width = inputs.reference_image.shape
        if batch_size % people:
            raise InvalidRequestError(f"{people} people do not fit {batch_size} videos; give one, or one per prompt.")
        reference, tokens = None, None
        if use_reference:
            if (height, width) != size:
                raise InvalidRequestError(
                    f"The reference picture is {width}x{height}; it must have the video's size, {size[1]}x{size[0]}."
                )
            latents = reference_latents(self.vae, inputs.reference_image.to(device))
            reference = repeat(latents.to(dtype), "b c 1 h w -> (b n) 1 c h w", n=batch_size // people)
        if use_identity_tokens:
            expected = self.identity_encoder.config.topology_hash
            if expected is not None and inputs.topology_hash != expected:
                raise TopologyMismatchError(
                    f"The vertices are of mesh {inputs.topology_hash}, but the identity encoder was trained on "
                    f"{expected}; read the photo with the head model it was trained with."
                )
            face_tokens = self.face_vision(inputs.face_crop.to(device)).tokens
            identity_tokens = self.identity_encoder(
                face_tokens.to(self.identity_encoder.dtype), inputs.vertices.to(device)
            )
            tokens = repeat(identity_tokens.to(dtype), "b k d -> (b n) k d", n=batch_size // people)
        return IdentityConditions(reference, tokens)

    def check_inputs(
        self,
        prompt: str | list[str] | None,
        negative_prompt: str | list[str] | None,
        prompt_embeds: torch.Tensor | None,
        negative_prompt_embeds: torch.Tensor | None,
        image: Photo | None,
        identity_inputs: IdentityInputs | None,
        use_reference: bool,
        use_identity_tokens: bool,
        num_frames: int,
        height: int,
        width: int,
        num_inference_steps: int,
        guidance_interval: tuple[float, float],
        num_videos_per_prompt: int,
        output_type: str,
        callback_on_step_end_tensor_inputs: list[str],
    ) -> None:
        """Refuse what cannot be done, before any work is done.

        Raises:
            InvalidRequestError: A value is not allowed; the message names those that are.
            MissingWeightsError: A component is needed and not there.
        """
        if (prompt is None) == (prompt_embeds is None):
            raise InvalidRequestError("Pass either prompt or prompt_embeds.")
        if negative_prompt is not None and negative_prompt_embeds is not None:
            raise InvalidRequestError("Pass negative_prompt or negative_prompt_embeds, not both.")
        if prompt_embeds is not None and negative_prompt_embeds is not None:
            shapes = tuple(prompt_embeds.shape), tuple(negative_prompt_embeds.shape)
            if shapes[0] != shapes[1]:
                raise InvalidRequestError(
                    f"prompt_embeds {shapes[0]} and negative_prompt_embeds {shapes[1]} must have the same shape."
                )
        if isinstance(prompt, list) and isinstance(negative_prompt, list) and len(prompt) != len(negative_prompt):
            raise InvalidRequestError(f"There are {len(negative_prompt)} negative prompts for {len(prompt)} prompts.")
        if prompt == []:
            raise InvalidRequestError("The list of prompts is empty.")
        if output_type not in OUTPUT_TYPES:
            raise InvalidRequestError(f"output_type is {output_type!r}; it can be {', '.join(OUTPUT_TYPES)}.")
        unknown = set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise InvalidRequestError(
                f"callback_on_step_end_tensor_inputs has {sorted(unknown)}; it can have {self._callback_tensor_inputs}."
            )
        for name, value in (
            ("num_inference_steps", num_inference_steps),
            ("num_videos_per_prompt", num_videos_per_prompt),
        ):
            if value < 1:
                raise InvalidRequestError(f"{name} is {value}; it must be at least 1.")
        if not 0 <= guidance_interval[0] <= guidance_interval[1] <= 1:
            raise InvalidRequestError(
                f"guidance_interval is {guidance_interval}; it must be two rising shares of the steps within 0..1."
            )
        if num_inference_steps > self.scheduler.config.num_train_timesteps:
            raise InvalidRequestError(
                f"num_inference_steps is {num_inference_steps}; "
                f"it can be at most {self.scheduler.config.num_train_timesteps}."
            )
        if not isinstance(self.transformer, FantasyIDTransformer3DModel):
            raise InvalidRequestError(
                f"The transformer is a {type(self.transformer).__name__}; wrap it with "
                "FantasyIDTransformer3DModel.from_base."
            )
        if not isinstance(self.scheduler, CogVideoXDDIMScheduler | CogVideoXDPMScheduler):
            raise InvalidRequestError(
                f"The scheduler is a {type(self.scheduler).__name__}; "
                "use CogVideoXDDIMScheduler or CogVideoXDPMScheduler."
            )
        self._check_size(num_frames, height, width)
        self._check_identity(image, identity_inputs, use_reference, use_identity_tokens)
        if identity_inputs is not None:
            people = identity_inputs.reference_image.shape[0]
            if prompt_embeds is not None:
                prompts = prompt_embeds.shape[0]
            else:
                prompts = len(prompt) if isinstance(prompt, list) else 1
            if people not in (1, prompts):
                raise InvalidRequestError(f"{people} people do not fit {prompts} prompts; give one, or one per prompt.")

    def _check_size(self, num_frames: int, height: int, width: int) -> None:
        config = self.transformer.config
        # CogVideoX 1.5 was trained at 5 and 10 seconds; its config has the shorter.
        longest = config.sample_frames if config.patch_size_t is None else 2 * config.sample_frames - 1
        lengths = allowed_frames(self.vae, longest)
        if num_frames not in lengths:
            raise InvalidRequestError(f"num_frames is {num_frames}; this model makes {', '.join(map(str, lengths))}.")
        multiple = self.vae_scale_factor_spatial * config.patch_size
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise InvalidRequestError(f"The size {width}x{height} must be in multiples of {multiple} pixels.")
        trained = (
            config.sample_height * self.vae_scale_factor_spatial,
            config.sample_width * self.vae_scale_factor_spatial,
        )
        if config.use_learned_positional_embeddings and (height, width) != trained:
            raise InvalidRequestError(
                f"The size is {width}x{height}; this model's learned positions allow {trained[1]}x{trained[0]} only."
            )
        if config.patch_size_t is not None and (height > trained[0] or width > trained[1]):
            raise InvalidRequestError(
                f"The size is {width}x{height}; this model's positions end at {trained[1]}x{trained[0]}."
            )

    def _check_identity(
        self,
        image: Photo | None,
        identity_inputs: IdentityInputs | None,
        use_reference: bool,
        use_identity_tokens: bool,
    ) -> None:
        if image is not None and identity_inputs is not None:
            raise InvalidRequestError("Pass image or identity_inputs, not both.")
        if image is None and identity_inputs is None:
            return
        if use_reference and self.transformer.config.in_channels != 2 * self.vae.config.latent_channels:
            raise InvalidRequestError(
                f"This base takes {self.transformer.config.in_channels} latent channels, so no reference latent "
                f"(an I2V base takes {2 * self.vae.config.latent_channels}); pass use_reference=False."
            )
        missing = [name for name in ("identity_encoder", "face_vision") if getattr(self, name) is None]
        if self.transformer.config.identity_token_dim is None:
            missing.append("injection in its transformer")
        if use_identity_tokens and missing:
            raise MissingWeightsError(
                f"This pipeline has no {' and no '.join(missing)}; pass use_identity_tokens=False, or load a model "
                'with identity weights such as FantasyIDPipeline.from_pretrained("mini").'
            )

    def prepare_latents(
        self,
        shape: tuple[int, int, int, int, int],
        generator: torch.Generator | list[torch.Generator] | None,
        device: torch.device,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Draw the noise the video starts from, or take what is given.

        Args:
            shape: (B, T, C, h, w).
            generator: One, or one per video.
            device: Where the result is needed.
            latents: Noise of this shape to use instead.

        Returns:
            Latents in the dtype they keep through all steps, times the standard deviation the scheduler starts with:
            float32, and with the released checkpoint the transformer's, to which its authors round them.

        Raises:
            InvalidRequestError: The noise or the list of generators does not fit the shape.
        """
        if isinstance(generator, list) and len(generator) != shape[0]:
            raise InvalidRequestError(f"There are {len(generator)} generators for {shape[0]} videos.")
        dtype = self.transformer.dtype if self.transformer.config.injection_kind == "released" else torch.float32
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        elif latents.shape != shape:
            raise InvalidRequestError(f"latents are {tuple(latents.shape)} and must be {shape}.")
        return latents.to(device, dtype) * float(self.scheduler.init_noise_sigma)

    @explain_out_of_memory
    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: Photo | None = None,
        negative_prompt: str | list[str] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        identity_scale: float = 1.0,
        use_reference: bool = True,
        use_identity_tokens: bool = True,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_videos_per_prompt: int = 1,
        face_index: int | None = None,
        identity_inputs: IdentityInputs | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> FantasyIDPipelineOutput | tuple[Any]:
        """Make videos.

        Args:
            prompt: What happens, one text or one per video.
            image: Photo of the person: a file, a PIL image, or RGB uint8 (H, W, 3). None makes plain text-to-video.
            negative_prompt: What guidance leads away from; the empty text by default.
            num_inference_steps: Denoising steps; the model's own number by default.
            guidance_scale: Classifier-free guidance, off at 1 and below; the model's own by default.
            guidance_interval: Share of the steps that are guided, from and to, in 0..1. The others compute one branch
                instead of two.
            identity_scale: Factor on what the identity tokens add; 0 is none.
            use_reference: Whether the portrait's latent stands beside the noise.
            use_identity_tokens: Whether the identity tokens are injected.
            num_frames: 1, 9, 17 and so on up to the model's own, which is the default; up to twice that with
                CogVideoX 1.5.
            height: Pixels, a multiple of the VAE's times the patch's; the model's own by default.
            width: As `height`.
            generator: Source of all noise, one or one per video.
            num_videos_per_prompt: Videos of each prompt.
            face_index: Which face of the photo; None takes the largest.
            identity_inputs: A person already read, instead of `image`; one, or one per prompt.
            latents: Noise (B, T, C, h, w) instead of drawn noise; T is padded to a multiple of the temporal patch.
            prompt_embeds: Token states (B, L, D) instead of `prompt`.
            negative_prompt_embeds: Token states instead of `negative_prompt`.
            output_type: `"pil"`, `"np"`, `"pt"` or `"latent"`.
            return_dict: False gives a tuple.
            callback_on_step_end: Called as `callback(pipeline, step, timestep, tensors)` after each step; what it
                returns replaces the tensors.
            callback_on_step_end_tensor_inputs: Names of the tensors it gets; `latents` by default.

        Returns:
            The videos, prompts in order and the videos of one prompt side by side.

        Raises:
            FantasyIDError: The request cannot be met; the class and message say why.
        """
        # 1. Defaults of this model, and checks before any work.
        config, factor = self.transformer.config, self.vae_scale_factor_spatial
        steps = self.config.default_num_inference_steps if num_inference_steps is None else num_inference_steps
        guidance_scale = self.config.default_guidance_scale if guidance_scale is None else guidance_scale
        num_frames = config.sample_frames if num_frames is None else num_frames
        height = config.sample_height * factor if height is None else height
        width = config.sample_width * factor if width is None else width
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        tensor_inputs = callback_on_step_end_tensor_inputs or ["latents"]
        self.check_inputs(
            prompt=prompt,
            negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            image=image,
            identity_inputs=identity_inputs,
            use_reference=use_reference,
            use_identity_tokens=use_identity_tokens,
            num_frames=num_frames,
            height=height,
            width=width,
            num_inference_steps=steps,
            guidance_interval=guidance_interval,
            num_videos_per_prompt=num_videos_per_prompt,
            output_type=output_type,
            callback_on_step_end_tensor_inputs=tensor_inputs,
        )
        self._guidance_scale, self._interrupt = guidance_scale, False
        device = self._execution_device

        # 2. Text: states of the prompt, and of the null text or the negative prompt for guidance.
        prompt_embeds, negative_prompt_embeds = self.encode_prompt(
            prompt, negative_prompt, guidance_scale > 1, num_videos_per_prompt, prompt_embeds, negative_prompt_embeds
        )
        batch_size = prompt_embeds.shape[0]

        # 3. The person: the photo is read and encoded once, not at every step.
        if image is not None and (use_reference or use_identity_tokens):
            preparation = self.identity_preparation(height, width)
            identity_inputs, _ = read_identity(image, self.face_reader, face_index, preparation)
        identity = self.encode_identity(
            identity_inputs, batch_size, (height, width), use_reference, use_identity_tokens
        )
        denoiser_inputs = self._prepare_denoiser(identity, identity_scale, negative_prompt_embeds is not None)
        unguided_inputs = denoiser_inputs if negative_prompt_embeds is None else denoiser_inputs.positive()

        # 4. Noise.
        latent_frames = (num_frames - 1) // self.vae_scale_factor_temporal + 1
        padding = padding_frames(config, latent_frames)
        shape = (
            batch_size,
            padding + latent_frames,
            self.vae.config.latent_channels,
            height // factor,
            width // factor,
        )
        latents = self.prepare_latents(shape, generator, device, latents)
        rotary = rotary_embedding(config, shape[1], shape[3], shape[4], device)
        if self._devices is not None:
            video_tokens = shape[1] * shape[3] * shape[4] // config.patch_size**2 // (config.patch_size_t or 1)
            self._devices.split_tokens(self.transformer, (video_tokens, prompt_embeds.shape[1]))
            latents = self._devices.share(latents)

        # 5. Denoising.
        self.scheduler.set_timesteps(steps, device=device)
        timesteps = self.scheduler.timesteps
        self._num_timesteps = len(timesteps)
        estimate: torch.Tensor | None = None
        was_guided: bool | None = None
        with self.progress_bar(total=len(timesteps)) as progress_bar:
            for step, timestep in enumerate(timesteps):
                if self.interrupt:
                    continue
                text, inputs = prompt_embeds, unguided_inputs
                is_guided = guidance_interval[0] <= step / len(timesteps) < guidance_interval[1]
                if is_guided != was_guided:
                    # What a cache holds is of another batch, or of an earlier call that was cut off.
                    self.transformer._reset_stateful_cache()
                    was_guided = is_guided
                if negative_prompt_embeds is not None and is_guided:
                    text, inputs = torch.cat([negative_prompt_embeds, prompt_embeds]), denoiser_inputs
                prediction = self._predict(latents, timestep, text, rotary, inputs)
                if isinstance(self.scheduler, CogVideoXDPMScheduler):
                    before = timesteps[step - 1] if step > 0 else None
                    stepped, estimate = self.scheduler.step(
                        prediction, estimate, timestep, before, latents, generator=generator, return_dict=False
                    )
                else:
                    stepped = self.scheduler.step(prediction, timestep, latents, return_dict=False)[0]
                latents = stepped.to(latents.dtype)
                if callback_on_step_end is not None:
                    available: StepTensors = {
                        "latents": latents,
                        "prompt_embeds": prompt_embeds,
                        "negative_prompt_embeds": negative_prompt_embeds,
                    }
                    wanted = {name: available[name] for name in tensor_inputs}
                    replaced = {**available, **callback_on_step_end(self, step, timestep, wanted)}
                    latents, prompt_embeds = replaced["latents"], replaced["prompt_embeds"]
                    negative_prompt_embeds = replaced["negative_prompt_embeds"]
                if self._devices is not None:
                    latents = self._devices.share(latents)
                progress_bar.update()

        # 6. Frames.
        latents = latents[:, padding:]
        frames: Any = latents
        if output_type != "latent":
            video = decode_video(self.vae, rearrange(latents, "b t c h w -> b c t h w"))
            frames = self.video_processor.postprocess_video(video.float(), output_type=output_type)
        self.maybe_free_model_hooks()
        return FantasyIDPipelineOutput(frames=frames) if return_dict else (frames,)

    def _prepare_denoiser(
        self, identity: IdentityConditions, identity_scale: float, has_negative: bool
    ) -> _DenoiserInputs:
        reference, tokens = identity.reference, identity.tokens
        scale: float | torch.Tensor = identity_scale
        if has_negative:
            drops = self.config.guidance_drops_identity
            if reference is not None:
                reference = torch.cat([torch.zeros_like(reference) if drops else reference, reference])
            if tokens is not None:
                scale = tokens.new_full((2 * tokens.shape[0],), identity_scale)
                if drops:
                    scale[: tokens.shape[0]] = 0
                tokens = torch.cat([tokens, tokens])
        key_values = None if tokens is None else self.transformer.project_identity(tokens)
        return _DenoiserInputs(reference, key_values, scale)

    def _predict(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        text: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor] | None,
        inputs: _DenoiserInputs,
    ) -> torch.Tensor:
        """Predict the velocity, both branches of guidance in one batch."""
        repeats = text.shape[0] // latents.shape[0]
        noisy = self.scheduler.scale_model_input(latents, timestep).to(text.dtype)
        hidden_states = repeat(noisy, "b t c h w -> (n b) t c h w", n=repeats)
        if self.transformer.config.in_channels != noisy.shape[2]:
            hidden_states = concat_reference(hidden_states, inputs.reference)
        arguments = {
            "hidden_states": hidden_states,
            "encoder_hidden_states": text,
            "timestep": timestep.expand(text.shape[0]),
            "ofs": None if self.transformer.config.ofs_embed_dim is None else noisy.new_full((1,), _OFFSET),
            "image_rotary_emb": rotary,
            "identity_key_values": inputs.key_values,
            "identity_scale": inputs.identity_scale,
            "return_dict": False,
        }
        with self.transformer.cache_context("cond_uncond"):
            if self._devices is not None and repeats == 2:
                prediction = self._devices.predict_branches(self.transformer, arguments)
            else:
                prediction = self.transformer(**arguments)[0]
        prediction = prediction.float()
        if repeats == 1:
            return prediction
        negative, positive = prediction.chunk(2)
        return negative + self.guidance_scale * (positive - negative)

    @property
    def guidance_scale(self) -> float:
        """Guidance of the running call; a callback may change it between steps."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Denoising steps of the running call."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Set `_interrupt` in a callback to stop denoising after the current step."""
        return self._interrupt
