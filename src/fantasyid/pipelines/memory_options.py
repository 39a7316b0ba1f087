"""diffusers' own memory options on our pipeline: each works, or is refused in one sentence."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

import torch
from diffusers import DiffusionPipeline

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.upstream import offload_parts
from fantasyid.models.spiral import SpiralEncoder

_INSTEAD = "for little memory use fantasyid.pipelines.memory.apply_plan or enable_model_cpu_offload"


class MemoryOptionsPipeline(DiffusionPipeline):
    """A pipeline with a face reader, a VAE and a transformer, whose memory options of diffusers work or are refused."""

    _exclude_from_cpu_offload: ClassVar[list[str]] = ["face_reader_model"]
    """It has few weights, and reads photos on the device where these are."""

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: torch.device | str | None = None) -> None:
        """Keep only the network that is working on the device; as diffusers.

        Raises:
            InvalidRequestError: It cannot be done; the message says why.
        """
        _or_refuse("enable_model_cpu_offload", super().enable_model_cpu_offload, gpu_id=gpu_id, device=device)

    def enable_sequential_cpu_offload(
        self, gpu_id: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """Keep only the layer that is working on the device, which is slow; as diffusers.

        Raises:
            InvalidRequestError: It cannot be done; the message says why.
        """
        self._keep_mean_head()
        _or_refuse("enable_sequential_cpu_offload", super().enable_sequential_cpu_offload, gpu_id=gpu_id, device=device)

    def enable_group_offload(
        self,
        onload_device: torch.device | str,
        *,
        exclude_modules: str | Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        """Keep only the layers or blocks that are working on the device; as diffusers.

        Args:
            onload_device: Where to compute.
            exclude_modules: Components that stay there; the face reader always does.
            **options: As `DiffusionPipeline.enable_group_offload`.

        Raises:
            InvalidRequestError: It cannot be done; the message says why.
        """
        excluded = [exclude_modules] if isinstance(exclude_modules, str) else list(exclude_modules or ())
        # The VAE is called by its encoder and decoder and never as a whole, which diffusers has no note of.
        offload_parts(self.vae, ("encoder", "decoder"))
        self._keep_mean_head()
        _or_refuse(
            "enable_group_offload",
            super().enable_group_offload,
            onload_device,
            exclude_modules=[*excluded, *self._exclude_from_cpu_offload],
            **options,
        )

    def enable_attention_slicing(self, slice_size: str | int = "auto") -> NoReturn:
        """Refused: the networks' attention keeps no matrix that could be sliced.

        Raises:
            InvalidRequestError: Always.
        """
        raise InvalidRequestError(
            f"enable_attention_slicing({slice_size!r}) would change nothing, since this model's attention keeps no "
            f"matrix to slice; {_INSTEAD}."
        )

    def enable_xformers_memory_efficient_attention(self, attention_op: Callable[..., Any] | None = None) -> NoReturn:
        """Refused: xformers' processor knows nothing of the prompt's tokens beside the video's.

        Raises:
            InvalidRequestError: Always.
        """
        raise InvalidRequestError(
            "enable_xformers_memory_efficient_attention would leave the prompt out of the attention; choose a kernel "
            f"with fantasyid.pipelines.acceleration.accelerate, and {_INSTEAD}."
        )

    def _keep_mean_head(self) -> None:
        vertex_encoder = getattr(self.identity_encoder, "vertex_encoder", None)
        if isinstance(vertex_encoder, SpiralEncoder):
            vertex_encoder.keep_mean_head()


def _or_refuse(name: str, enable: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Say in our words what diffusers refuses in its own."""
    try:
        enable(*args, **kwargs)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError, NotImplementedError, ImportError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InvalidRequestError(f"{name} cannot be used here: {reason}.") from error
