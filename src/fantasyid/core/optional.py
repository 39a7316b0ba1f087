"""Import of optional packages, with an error that says what to install."""

from importlib import import_module
from types import ModuleType

from fantasyid.core.errors import MissingBackendError


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: Name to import, such as `"insightface"`.
        extra: The extra of this package that brings it, such as `"face"`.
        purpose: What it is needed for, as the end of "needed to ...".

    Returns:
        The imported module.

    Raises:
        MissingBackendError: The package is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingBackendError(
            f"The package {error.name} is needed to {purpose} and is not installed; "
            f"install it with: pip install 'fantasyid[{extra}]'"
        ) from error
