"""What pyproject.toml says of Python and of other packages is so."""

import ast
import os
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
EXTRAS = {
    extra: [Requirement(text) for text in texts if not text.startswith("fantasyid")]
    for extra, texts in PROJECT["project"]["optional-dependencies"].items()
}
TESTED_EXTRAS = (
    "c2pa",
    "data",
    "dev",
    "docs",
    "eval",
    "examples",
    "face",
    "lora",
    "report",
    "serve",
    "study",
    "tensorboard",
    "ui",
)
INSTALLED = [*DEPENDENCIES, *(requirement for extra in TESTED_EXTRAS for requirement in EXTRAS[extra])]


def lower_bound(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator in (">=", "=="), requirement
    return specifier.version


def test_every_requirement_has_one_lower_bound() -> None:
    for requirement in (*DEPENDENCIES, *(requirement for extra in EXTRAS.values() for requirement in extra)):
        lower_bound(requirement)


@pytest.mark.parametrize("requirement", INSTALLED, ids=lambda requirement: requirement.name)
def test_the_tests_run_with_what_is_allowed(requirement: Requirement) -> None:
    assert requirement.specifier.contains(version(requirement.name), prereleases=True)
    if os.environ.get("FANTASYID_LOWEST"):
        # A bound below what the other packages allow would be one that nobody can install.
        lowest = SpecifierSet(f"=={lower_bound(requirement)}.*")
        assert lowest.contains(version(requirement.name)), f"{requirement} cannot be installed in that version"


def test_everything_imported_is_declared() -> None:
    declared = {
        re.sub("[-_.]+", "-", requirement.name).lower()
        for requirement in (*DEPENDENCIES, *(requirement for extra in EXTRAS.values() for requirement in extra))
    }
    owners = packages_distributions()
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - {"fantasyid"} - sys.stdlib_module_names:
                packages = {re.sub("[-_.]+", "-", owner).lower() for owner in owners.get(name, ())}
                assert not packages or packages & declared, f"{path} imports {name} of {packages}"


def test_one_version_of_python_is_said_everywhere() -> None:
    required = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert f"Python {required} or newer" in (ROOT / "README.md").read_text()
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{required.replace('.', '')}"
    assert PROJECT["tool"]["mypy"]["python_version"] == required
    classifiers = [text.rpartition(" ")[2] for text in PROJECT["project"]["classifiers"] if "::" in text]
    versions = [text for text in classifiers if text[0] == "3" and "." in text]
    assert versions[0] == required
