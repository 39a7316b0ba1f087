"""Cancelling, and memory."""

_interrupted = False


class InterruptProcessingException(Exception):  # noqa: N818 - ComfyUI's name
    """The user pressed Cancel."""


def interrupt_current_processing(value: bool = True) -> None:
    """What Cancel does."""
    global _interrupted
    _interrupted = value


def throw_exception_if_processing_interrupted() -> None:
    """End the work, once, if it was cancelled."""
    global _interrupted
    if _interrupted:
        _interrupted = False
        raise InterruptProcessingException


def unload_all_models() -> None:
    """Move ComfyUI's models out of the GPU; here there are none."""


def soft_empty_cache(force: bool = False) -> None:
    """Give memory back to the GPU; here there is none."""
