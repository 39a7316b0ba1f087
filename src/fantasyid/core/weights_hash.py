"""Naming networks by their weights, as they are used and wherever they came from."""

import hashlib
from collections.abc import Mapping

import torch


def weights_sha256(networks: Mapping[str, object]) -> str:
    """Hash all tensors of networks.

    Args:
        networks: By name; what is no network does not count.

    Returns:
        SHA-256, in hexadecimal.
    """
    digest = hashlib.sha256()
    for name, component in sorted(networks.items()):
        if isinstance(component, torch.nn.Module):
            for key, tensor in sorted(component.state_dict().items()):
                digest.update(f"{name}.{key}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
