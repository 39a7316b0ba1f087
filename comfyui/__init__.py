"""FantasyID's nodes for ComfyUI: a folder of `custom_nodes`, beside the installed package `fantasyid`."""

from .extension import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
