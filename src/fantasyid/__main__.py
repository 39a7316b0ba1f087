"""`python -m fantasyid`, which is how torchrun starts the command."""

from fantasyid.cli.entry import run

if __name__ == "__main__":
    run()
