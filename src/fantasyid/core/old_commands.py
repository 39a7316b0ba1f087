"""Modules that were commands say which command took their place."""

import sys
from typing import NoReturn


def tell_new_command(module: str, *commands: str) -> NoReturn:
    """Say in one sentence what to run now, and end with exit code 2.

    Args:
        module: Such as `"fantasyid.training"`.
        commands: Such as `"fantasyid train STAGE"`.
    """
    now = " or ".join(f"`{command}`" for command in commands)
    sys.stderr.write(f"`python -m {module}` is {now} now, whose --help shows the options.\n")
    sys.exit(2)
