"""Layers one after another, as a parent of classes that build their own."""

from typing import Any

from torch import nn


class Chain(nn.Sequential):
    """`nn.Sequential` whose child classes may take other arguments: a slice is a plain `nn.Sequential`.

    PyTorch makes a slice by the child's own constructor, and diffusers' group offloading slices.
    """

    def __getitem__(self, index: Any) -> Any:
        """A layer, or several."""
        return nn.Sequential(*list(self)[index]) if isinstance(index, slice) else super().__getitem__(index)
