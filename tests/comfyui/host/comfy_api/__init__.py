"""ComfyUI's API for nodes."""
