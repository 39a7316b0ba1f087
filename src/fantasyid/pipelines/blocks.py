"""The pipeline as diffusers' modular blocks, which others can put into pipelines of their own.

The blocks are the pipeline's own stages, so they make its frames bit for bit. `save_blocks` writes a folder that
`ModularPipeline.from_pretrained(folder, trust_remote_code=True)` loads. What runs then is the file `blocks.py` of the
folder: ours imports this one. Of a stranger's folder it may be anything; see docs/security.md.
"""

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, ModularPipelineBlocks, SequentialPipelineBlocks
from diffusers.modular_pipelines import ComponentSpec, ConfigSpec, InputParam, ModularPipeline, OutputParam
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fantasyid.core.upstream import execution_device
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.models.vision import FaceVisionModel
from fantasyid.pipelines import sampling, stages
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from fantasyid.pipelines.readers import face_reader_of

_INDEX, _MODULAR_INDEX = FantasyIDPipeline.config_name, ModularPipeline.config_name
_CODE = '''"""FantasyID as diffusers' modular blocks; the package fantasyid has the code."""

from fantasyid.pipelines.blocks import FantasyIDBlocks as FantasyIDBlocks
'''
_CLASSES = {
    "tokenizer": PreTrainedTokenizerBase,
    "text_encoder": PreTrainedModel,
    "vae": AutoencoderKLCogVideoX,
    "transformer": FantasyIDTransformer3DModel,
    "scheduler": CogVideoXDDIMScheduler,
    "identity_encoder": IdentityEncoder,
    "face_vision": FaceVisionModel,
    "face_reader_model": FaceReaderModel,
}
_PLAN = ("plan", stages.VideoPlan, "The call, checked, with the model's own values filled in.")
_PERSON = ("person", sampling.PersonBranches, "What the transformer is told of the person.")


class _Block(ModularPipelineBlocks):
    """A stage: what it takes, by the names of `FantasyIDPipeline.__call__`, and what it gives."""

    model_name = "fantasyid"
    _components: tuple[str, ...] = ()
    _settings: tuple[str, ...] = ()
    _asked: tuple[str, ...] = ()
    _taken: tuple[tuple[str, Any, str], ...] = ()
    _given: tuple[tuple[str, Any, str], ...] = ()

    @property
    def description(self) -> str:
        """The first sentence of the class."""
        return (inspect.getdoc(type(self)) or "").partition("\n")[0]

    @property
    def expected_components(self) -> list[ComponentSpec]:
        """The networks."""
        return [ComponentSpec(name, _CLASSES[name]) for name in self._components]

    @property
    def expected_configs(self) -> list[ConfigSpec]:
        """The model's settings, with the pipeline's defaults."""
        defaults = inspect.signature(FantasyIDPipeline.__init__).parameters
        return [ConfigSpec(name, defaults[name].default) for name in self._settings]

    @property
    def inputs(self) -> list[InputParam]:
        """What a caller may give, with the pipeline's defaults, and what earlier blocks give."""
        defaults = inspect.signature(FantasyIDPipeline.__call__).parameters
        asked = [InputParam(name, default=defaults[name].default, description=_told(name)) for name in self._asked]
        taken = [InputParam(name, type_hint=kind, required=True, description=what) for name, kind, what in self._taken]
        return [*asked, *taken]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """What later blocks and the caller get."""
        return [OutputParam(name, type_hint=kind, description=what) for name, kind, what in self._given]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        """Run the stage on diffusers' state."""
        block_state = self.get_block_state(state)
        self.run(components, block_state)
        self.set_block_state(state, block_state)
        return components, state

    def run(self, parts: Any, state: Any) -> None:
        """Read the inputs as attributes of the state, and set the outputs."""
        raise NotImplementedError


class CheckBlock(_Block):
    """Checks the call before any work, and fills in what it leaves to the model."""

    _components = ("vae", "transformer", "scheduler", "identity_encoder", "face_vision")
    _settings = ("default_num_inference_steps", "default_guidance_scale")
    _asked = (
        *("prompt", "image", "negative_prompt", "num_inference_steps", "guidance_scale", "guidance_interval"),
        *("identity_scale", "use_reference", "use_identity_tokens", "num_frames", "height", "width", "generator"),
        *("num_videos_per_prompt", "identity_inputs", "latents", "prompt_embeds", "negative_prompt_embeds"),
        "output_type",
    )
    _given = (_PLAN,)

    def run(self, parts: Any, state: Any) -> None:
        """As `_Block.run`."""
        state.plan = stages.plan_video(parts, **{name: getattr(state, name) for name in self._asked})


class ReadIdentityBlock(_Block):
    """Reads the person from the photo, or takes one that was read before (paper 3.2, 3.3)."""

    _components = ("vae", "transformer", "identity_encoder", "face_vision", "face_reader_model")
    _settings = ("keep_expression_and_pose",)
    _asked = ("image", "identity_inputs", "face_index")
    _taken = (_PLAN,)

    def run(self, parts: Any, state: Any) -> None:
        """As `_Block.run`; the person becomes the state's `identity_inputs`."""
        keep, model, encoder = parts.config.keep_expression_and_pose, parts.face_reader_model, parts.identity_encoder
        state.identity_inputs = stages.find_person(
            parts,
            state.plan,
            state.image,
            state.identity_inputs,
            state.face_index,
            lambda: face_reader_of(model, encoder, keep),
        )


class EncodeBlock(_Block):
    """Encodes prompt and person, once and not at every step (paper 3.1, 3.4)."""

    _components = ("tokenizer", "text_encoder", "vae", "transformer", "identity_encoder", "face_vision")
    _settings = ("guidance_drops_identity",)
    _asked = (
        *("prompt", "negative_prompt", "num_videos_per_prompt", "prompt_embeds", "negative_prompt_embeds"),
        *("truncate_prompt", "identity_inputs"),
    )
    _taken = (_PLAN,)
    _given = (("text", stages.TextStates, "States of the prompt, and of the negative one or None."), _PERSON)

    def run(self, parts: Any, state: Any) -> None:
        """As `_Block.run`."""
        state.text = stages.encode_prompt(
            parts,
            state.prompt,
            state.negative_prompt,
            state.plan.guidance_scale > 1,
            state.num_videos_per_prompt,
            state.prompt_embeds,
            state.negative_prompt_embeds,
            state.truncate_prompt,
        )
        has_negative = state.text[1] is not None
        state.person = stages.tell_of_person(parts, state.plan, state.identity_inputs, has_negative)


class DenoiseBlock(_Block):
    """Turns noise into latents (paper 3.5)."""

    _components = ("vae", "transformer", "scheduler")
    _asked = ("generator", "latents")
    _taken = (_PLAN, *EncodeBlock._given)

    def run(self, parts: Any, state: Any) -> None:
        """As `_Block.run`; the state's `latents` become the video's."""
        device = execution_device(parts)
        state.latents = stages.denoise(
            parts,
            state.plan,
            state.text,
            state.person,
            state.generator,
            state.latents,
            sampling.own_scheduler(parts.scheduler, state.plan.num_inference_steps, device),
            lambda _, __, after: after,
        )


class DecodeBlock(_Block):
    """Turns latents into frames."""

    _components = ("vae",)
    _asked = ("output_type",)
    _taken = (("latents", torch.Tensor, "The video's, (B, T, C, h, w)."),)
    _given = (("frames", Any, "The videos, as `FantasyIDPipelineOutput` has them."),)

    def run(self, parts: Any, state: Any) -> None:
        """As `_Block.run`."""
        state.frames = stages.decode(parts, state.latents, state.output_type)


class FantasyIDBlocks(SequentialPipelineBlocks):
    """One face photo and one prompt become a video of that person."""

    model_name = "fantasyid"
    block_classes = (CheckBlock, ReadIdentityBlock, EncodeBlock, DenoiseBlock, DecodeBlock)
    block_names = ("check", "read_identity", "encode", "denoise", "decode")

    @property
    def description(self) -> str:
        """The first sentence of the class."""
        return (inspect.getdoc(type(self)) or "").partition("\n")[0]


def save_blocks(pipeline: FantasyIDPipeline, folder: str | Path) -> None:
    """Write a pipeline so that diffusers loads it as blocks; `FantasyIDPipeline.from_pretrained` reads it as before.

    Args:
        pipeline: What to write.
        folder: As for `save_pretrained`; it may be moved afterwards.
    """
    folder = Path(folder)
    pipeline.save_pretrained(folder)
    # Its `modular_config.json` says that the class is in `blocks.py`, as this file is called.
    FantasyIDBlocks().save_pretrained(folder)
    (folder / "blocks.py").write_text(_CODE, encoding="utf-8")
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    modular: dict[str, Any] = {"_class_name": "ModularPipeline", "_blocks_class_name": "FantasyIDBlocks"}
    for name, value in index.items():
        if name in _CLASSES and value[0] is not None:
            # Without a path diffusers takes the component from the folder that it loads.
            modular[name] = [*value, {"type_hint": value, "pretrained_model_name_or_path": None, "subfolder": name}]
        elif name not in (*_CLASSES, "_class_name"):
            modular[name] = value
    (folder / _MODULAR_INDEX).write_text(json.dumps(modular, indent=2) + "\n", encoding="utf-8")


def _told(name: str) -> str:
    """What the pipeline's documentation says of an argument."""
    lines = iter((inspect.getdoc(FantasyIDPipeline.__call__) or "").splitlines())
    start = f"    {name}: "
    told = next((line.removeprefix(start) for line in lines if line.startswith(start)), "")
    for line in lines:
        if not line.startswith(" " * 8):
            break
        told += f" {line.strip()}"
    return told
