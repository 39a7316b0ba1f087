"""Options for signed credentials, the same for all commands that make videos."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

# Commands import what they need when they run.
if TYPE_CHECKING:
    from fantasyid.core.credentials import SigningKey

_PANEL = "Signed credentials"

Sign = Annotated[
    bool,
    typer.Option(
        "--sign",
        help="Put signed credentials (C2PA) into videos and contact sheets, with a key made at the first use; "
        "whoever has two of your signed videos sees that one computer made both.",
        rich_help_panel=_PANEL,
    ),
]
SignWith = Annotated[
    Path | None,
    typer.Option(
        help="Sign with your own: a PEM file with a private key and its certificates.", rich_help_panel=_PANEL
    ),
]


def signing_key(sign: bool, sign_with: Path | None) -> "SigningKey | None":
    """The key that the options ask for.

    Args:
        sign: Whether to sign with this computer's key.
        sign_with: File of another key, which goes before it.

    Raises:
        FantasyIDError: The extra c2pa is not installed, or the key cannot sign.
    """
    if not sign and sign_with is None:
        return None
    from fantasyid.core.credentials import SigningKey

    return SigningKey.local() if sign_with is None else SigningKey.read(sign_with)
