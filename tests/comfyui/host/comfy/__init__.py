"""The parts of ComfyUI's engine that the nodes use."""
