"""Load FantasyID: a model, made ready."""

from pathlib import Path
from typing import Any, get_args

import folder_paths
from comfy_api.latest import io

from fantasyid.core.choices import Device, Dtype, MemoryPlanChoice
from fantasyid.core.errors import InvalidRequestError
from fantasyid.generation.request import SPEED_PRESETS, ModelRequest

from .kinds import LoadedModel, ModelKind
from .progress import NodeProgress

MODELS = "fantasyid"
"""The folder of ComfyUI's models that holds ours."""
BUILT_IN = "mini"


class LoadFantasyID(io.ComfyNode):
    """Loads a model; ComfyUI keeps it as long as it keeps the node's output."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's inputs and outputs."""
        return io.Schema(
            node_id="FantasyID_Load",
            display_name="Load FantasyID",
            category="FantasyID",
            description="Loads a model that makes videos of a person: the built-in one, or a folder.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[BUILT_IN, *_folders()],
                    default=BUILT_IN,
                    tooltip="mini is built in; the others are folders in ComfyUI's models/fantasyid.",
                ),
                io.Combo.Input(
                    "device",
                    options=list(get_args(Device)),
                    default="auto",
                    tooltip="Where to compute; auto is CUDA where there is a usable device.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(get_args(Dtype)),
                    default="auto",
                    tooltip="Of the video network and the VAE; auto is bfloat16 where the machine has it.",
                ),
                io.Combo.Input(
                    "offload",
                    options=list(get_args(MemoryPlanChoice)),
                    default="auto",
                    tooltip="What stays in the GPU's memory: fast keeps all of it there, balanced fits 24 GB, low "
                    "10 GB; auto is the first that fits what is free.",
                ),
                io.Combo.Input(
                    "speed",
                    options=list(SPEED_PRESETS),
                    default="exact",
                    tooltip="For full size on a GPU: exact changes nothing, fast compiles and rounds differently, "
                    "draft leaves out what changes the video little.",
                ),
            ],
            outputs=[ModelKind.Output(display_name="model")],
        )

    @classmethod
    def fingerprint_inputs(cls, model: str, **_: Any) -> list[tuple[str, int, int]]:
        """A folder whose files have changed is loaded again."""
        folder = _folders().get(model)
        if folder is None:
            return []
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]

    @classmethod
    def execute(
        cls, model: str, device: Device, precision: Dtype, offload: MemoryPlanChoice, speed: str
    ) -> io.NodeOutput:
        """Load it."""
        folders, preset = _folders(), SPEED_PRESETS[speed]
        if model != BUILT_IN and model not in folders:
            raise InvalidRequestError(
                f"There is no model {model!r}; take one of {', '.join([BUILT_IN, *folders])}, or put its folder into "
                f"ComfyUI's models/{MODELS}."
            )
        asked = {
            **preset.get("model", {}),
            "name": str(folders.get(model, BUILT_IN)),
            "device": device,
            "dtype": precision,
            "memory_plan": offload,
        }
        loaded = LoadedModel(ModelRequest.model_validate(asked), preset.get("guidance_interval", (0.0, 1.0)))
        loaded.studio(NodeProgress())
        return io.NodeOutput(loaded)


def _folders() -> dict[str, Path]:
    """The folders with models, by their names; the first of a name counts."""
    found: dict[str, Path] = {}
    for place in folder_paths.get_folder_paths(MODELS):
        for path in sorted(Path(place).glob("*/model_index.json")):
            found.setdefault(path.parent.name, path.parent)
    return found
