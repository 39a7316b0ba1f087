"""A short run of what `python -m tests.fuzz.run` does for hours: the same files in every run."""

from tests.fuzz.attacks import attacks
from tests.fuzz.formats import FORMATS
from tests.fuzz.run import run

FILES = {"pickle": 600, "photo": 300, "video": 60}
"""Damaged files of a format; about a second each."""
OTHERS = 150

# What only shares or is odd, and does no harm: it is read as it stands.
HARMLESS = {"laughing-lists", "laughing-tuples", "laughing-dictionaries"}


def test_damaged_files_of_every_format_are_read_or_refused_by_an_error_of_ours():
    outcomes = list(run([f"{name} {number}" for name in FORMATS for number in range(FILES.get(name, OTHERS))]))
    assert not [outcome for outcome in outcomes if outcome.is_failure]
    for name in FORMATS:
        kinds = {outcome.kind for outcome in outcomes if outcome.case.split()[0] == name}
        assert kinds == {"read", "refused"}, f"the mutators of {name} make nothing that is {kinds}"


def test_attacks_are_refused_soon_and_in_little_memory():
    outcomes = list(run([f"{name} {attack}" for name in FORMATS for attack in attacks(name)]))
    assert len(outcomes) >= 200
    assert not [outcome for outcome in outcomes if outcome.is_failure]
    read = {outcome.case.split()[1].removeprefix("pickle-") for outcome in outcomes if outcome.kind == "read"}
    assert read == HARMLESS


def test_whole_files_are_read(tmp_path):
    for made in FORMATS.values():
        for number, content in enumerate(made.seeds()):
            path = tmp_path / f"{made.name}{number}" / f"file{made.suffix}"
            path.parent.mkdir()
            path.write_bytes(content)
            if (made.name, content) not in _NO_MODEL:
                made.read(path)


_NO_MODEL = {("safetensors", FORMATS["safetensors"].seeds()[1])}  # Whole, and another model's.
