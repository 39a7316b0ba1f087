"""One face photo and one prompt become a video of that person."""

import inspect
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.video_processor import VideoProcessor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fantasyid.checkpoints.builtin import load_builtin
from fantasyid.checkpoints.folders import load_folder
from fantasyid.checkpoints.hub import LoadingRequest, download_model
from fantasyid.checkpoints.released.convert import RELEASE_NAME, RELEASE_REMEDY, converted_from_hub, is_release
from fantasyid.conditioning.identity import IdentityInputs, IdentityPreparation
from fantasyid.core.choices import MemoryPlan
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.imaging import Photo
from fantasyid.core.upstream import execution_device
from fantasyid.face.reader import FaceReader
from fantasyid.models.eva_vision import EvaVisionModel
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.released import ReleasedIdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.models.vision import FaceVisionModel
from fantasyid.pipelines import checks, sampling, stages
from fantasyid.pipelines.adapters import AdaptersPipeline
from fantasyid.pipelines.callbacks import StepCallback, after_each_step
from fantasyid.pipelines.memory import explain_out_of_memory
from fantasyid.pipelines.memory_options import MemoryOptionsPipeline
from fantasyid.pipelines.parallel import DeviceGroup
from fantasyid.pipelines.pipeline_output import FantasyIDPipelineOutput
from fantasyid.pipelines.readers import face_reader_of
from fantasyid.pipelines.turns import RunningCall, Turns, take_turns


class FantasyIDPipeline(RunningCall, MemoryOptionsPipeline, AdaptersPipeline):
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
        follows_vertices: Whether videos were measured to change with the head's vertices; None was not measured.
    """

    model_cpu_offload_seq = "text_encoder->face_vision->identity_encoder->transformer->vae"
    _optional_components: ClassVar[list[str]] = ["identity_encoder", "face_vision", "face_reader_model"]
    _callback_tensor_inputs: ClassVar[list[str]] = list(checks.CALLBACK_TENSORS)

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
        follows_vertices: bool | None = None,
    ) -> None:
        super().__init__()
        parts = {"vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer, "identity_encoder": identity_encoder}
        checks.check_classes({**parts, "face_vision": face_vision, "face_reader_model": face_reader_model})
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
            follows_vertices=follows_vertices,
        )
        # A pipeline without a VAE encodes prompts only; diffusers' pipelines have CogVideoX's numbers then, too.
        self.vae_scale_factor_spatial = 8 if vae is None else stages.pixels_per_latent(vae)
        self.vae_scale_factor_temporal = 4 if vae is None else vae.config.temporal_compression_ratio
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor_spatial)
        self._face_reader: FaceReader | None = None
        self._devices: DeviceGroup | None = None
        self.memory_plan: MemoryPlan = "fast"
        self._turns = Turns()

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
            MissingWeightsError: The built-in weights are not installed, there is no such model, or files are missing.
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
        """Finds and reads faces in photos; made at the first use, see `readers.face_reader_of`."""
        if self._face_reader is None:
            keep = self.config.keep_expression_and_pose
            self._face_reader = face_reader_of(self.face_reader_model, self.identity_encoder, keep)
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
        return stages.identity_preparation(self, height, width)

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        negative_prompt: str | list[str] | None = None,
        do_classifier_free_guidance: bool = True,
        num_videos_per_prompt: int = 1,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        truncate: bool = False,
        max_sequence_length: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Encode prompts to token states, repeated for each video asked for.

        Args:
            prompt: One or P texts.
            negative_prompt: One text for all, or P; None is the empty text.
            do_classifier_free_guidance: Whether negative states are wanted.
            num_videos_per_prompt: Videos of each prompt.
            prompt_embeds: (P, L, D), states instead of `prompt`.
            negative_prompt_embeds: (P, L, D), states instead of `negative_prompt`.
            truncate: Cut prompts that are too long instead of refusing them.
            max_sequence_length: Tokens; the transformer's number by default. Needed where the pipeline was loaded
                without its transformer, to encode prompts alone.

        Returns:
            States and negative states (or None), each (P * num_videos_per_prompt, L, D) on the pipeline's device in
            the transformer's dtype, the videos of one prompt side by side.
        """

        return stages.encode_prompt(
            self,
            prompt,
            negative_prompt,
            do_classifier_free_guidance,
            num_videos_per_prompt,
            prompt_embeds,
            negative_prompt_embeds,
            truncate,
            max_sequence_length,
        )

    @explain_out_of_memory
    @take_turns
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
        truncate_prompt: bool = False,
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
            guidance_scale: Classifier-free guidance, 0 to 100, off at 1 and below; the model's own by default.
            guidance_interval: Share of the steps that are guided, from and to, in 0..1. The others compute one branch
                instead of two.
            identity_scale: Factor on what the identity tokens add, 0 to 10; 0 is none.
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
            truncate_prompt: Cut prompts that are too long, with a warning, instead of refusing them.
            output_type: `"pil"`, `"np"`, `"pt"` or `"latent"`.
            return_dict: False gives a tuple.
            callback_on_step_end: Called as `callback(pipeline, step, timestep, tensors)` after each step; what it
                returns replaces the tensors, and None none. The pipeline it gets is this one with the call's own
                scheduler: `_guidance_scale` and `_interrupt` set on it change this call, and no other.
            callback_on_step_end_tensor_inputs: Names of the tensors it gets; `latents` by default.

        Returns:
            The videos, prompts in order and the videos of one prompt side by side.

        Raises:
            FantasyIDError: The request cannot be met; the class and message say why.
        """
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        tensor_inputs = callback_on_step_end_tensor_inputs or ["latents"]

        # 1. Defaults of this model, and checks before any work.
        plan = stages.plan_video(
            self,
            prompt=prompt,
            image=image,
            negative_prompt=negative_prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_interval=guidance_interval,
            identity_scale=identity_scale,
            use_reference=use_reference,
            use_identity_tokens=use_identity_tokens,
            num_frames=num_frames,
            height=height,
            width=width,
            generator=generator,
            num_videos_per_prompt=num_videos_per_prompt,
            identity_inputs=identity_inputs,
            latents=latents,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            output_type=output_type,
            tensor_inputs=tensor_inputs,
        )

        # 2. The person: the photo is read once, and all vertices are checked.
        inputs = stages.find_person(self, plan, image, identity_inputs, face_index, lambda: self.face_reader)

        # 3. Text: states of the prompt, and of the null text or the negative prompt for guidance.
        text = self.encode_prompt(
            prompt,
            negative_prompt,
            plan.guidance_scale > 1,
            num_videos_per_prompt,
            prompt_embeds,
            negative_prompt_embeds,
            truncate_prompt,
        )

        # 4. What the transformer is told of the person, once and not at every step.
        person = stages.tell_of_person(self, plan, inputs, has_negative=text[1] is not None)

        # 5. Noise and denoising.
        scheduler = sampling.own_scheduler(self.scheduler, plan.num_inference_steps, execution_device(self))
        running = self._for_one_call(scheduler, plan.guidance_scale)
        with self.progress_bar(total=running.num_timesteps) as progress_bar:
            after_step = after_each_step(running, callback_on_step_end, tensor_inputs, progress_bar.update)
            denoised = stages.denoise(
                self, plan, text, person, generator, latents, scheduler, after_step, running.enter_step, self._devices
            )
            running.enter_step(None)

        # 6. Frames.
        frames = stages.decode(self, denoised, output_type)
        self.maybe_free_model_hooks()
        return FantasyIDPipelineOutput(frames=frames) if return_dict else (frames,)
