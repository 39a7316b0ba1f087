"""What pydantic found wrong, in the parts that our sentences are made of."""

from pydantic import ValidationError


def first_fault(error: ValidationError, whole: str = "") -> tuple[str, str]:
    """Where the first fault lies, and what it is.

    Args:
        error: What pydantic raised.
        whole: What the place is called where no field is at fault.

    Returns:
        The field's path with dots, and pydantic's words.
    """
    first = error.errors()[0]
    return ".".join(map(str, first["loc"])) or whole, first["msg"]
