"""What ComfyUI is told of when it starts; the nodes import what takes seconds when they are first executed."""

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io

from .generate import Generate
from .load import MODELS, LoadFantasyID
from .person import EditHead, ReadPerson


class FantasyIDExtension(ComfyExtension):
    """The four nodes."""

    async def on_load(self) -> None:
        """Let ComfyUI look for models in `models/fantasyid`, and where extra_model_paths.yaml says."""
        folder_paths.add_model_folder_path(MODELS, str(Path(folder_paths.models_dir) / MODELS))

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes, in the order of their use."""
        return [LoadFantasyID, ReadPerson, EditHead, Generate]


async def comfy_entrypoint() -> FantasyIDExtension:
    """Called by ComfyUI."""
    return FantasyIDExtension()
