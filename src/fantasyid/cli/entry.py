"""Where the `fantasyid` command enters; `doctor` works even where the packages of the command line are missing."""

import sys


def run() -> None:
    """Run the command line, or say why it cannot be run."""
    try:
        from fantasyid.cli.main import app
    except ImportError as error:
        from fantasyid.cli.diagnosis import report

        if sys.argv[1:2] == ["doctor"]:
            sys.exit(report("--json" in sys.argv))
        sys.stderr.write(f"Error: fantasyid cannot start ({error}); `fantasyid doctor` says what to install.\n")
        sys.exit(2)
    app()
