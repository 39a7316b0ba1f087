"""One lock for all building of networks: it is no matter of one thread alone."""

from threading import RLock

BUILDING = RLock()
"""Held while a network is built without weights or filled with them: accelerate, diffusers and transformers change
PyTorch's own classes meanwhile, for all threads."""
