"""The old name of `fantasyid train`."""

from fantasyid.core.old_commands import tell_new_command

if __name__ == "__main__":
    tell_new_command("fantasyid.training", "fantasyid train STAGE")
