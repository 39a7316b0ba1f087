"""What an index and an installation get: the files of wheel and source distribution, and the page of the project."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from fantasyid import __version__

ROOT = Path(__file__).parents[2]
MEGABYTE = 10**6


@pytest.fixture(scope="module")
def project() -> ProjectMetadata:
    return ProjectMetadata(str(ROOT), PluginManager())


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    return {name for name in listed.stdout.split("\0") if (ROOT / name).is_file()}


def test_the_wheel_holds_the_package_and_nothing_else(tracked: set[str]) -> None:
    files = {file.distribution_path: Path(file.path) for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {f"src/{name}" for name in files} == {name for name in tracked if name.startswith("src/")}
    assert all(name.startswith("fantasyid/") for name in files)
    assert "fantasyid/py.typed" in files
    assert sum(path.stat().st_size for path in files.values()) < 60 * MEGABYTE


def test_the_source_distribution_holds_what_the_repository_holds(tracked: set[str]) -> None:
    files = {file.distribution_path for file in SdistBuilder(str(ROOT)).recurse_included_files()}
    assert tracked <= files
    strange = {
        name for name in files if name.startswith((".venv", "outputs/", "site/", "dist/")) or "__pycache__" in name
    }
    assert not strange


def test_the_page_of_an_index_needs_no_file_beside_it(project: ProjectMetadata) -> None:
    page = project.core.readme
    assert project.core.readme_content_type == "text/markdown"
    targets = re.findall(r"\]\(([^)]*)\)", page)
    assert all(target.startswith(("https://", "#")) for target in targets), targets
    assert "![" not in page
    assert "*The contact sheet" not in page
    assert "in one run on one machine: docs/benchmarks.md." in " ".join(page.split())
    assert "Apache License 2.0 (`LICENSE`)" in page
    assert page.count("```") == (ROOT / "README.md").read_text().count("```")


def test_licences_are_named_and_lie_beside(project: ProjectMetadata) -> None:
    assert project.core.license_expression == "Apache-2.0 AND Bitstream-Vera"
    assert set(project.core.license_files) == {"LICENSE", "src/fantasyid/generation/fonts/LICENSE-DejaVu.txt"}


def test_one_version_is_said_everywhere(project: ProjectMetadata) -> None:
    assert project.version == __version__
    (newest, *_) = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert newest == citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"


def test_commits_and_changes_are_checked_by_what_the_makefile_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    rules = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
    assert [repo["repo"] for repo in hooks] == ["local"]
    for hook in hooks[0]["hooks"]:
        assert re.search(rf"^\t\S*{re.escape(hook['entry'])}", rules, re.MULTILINE), hook["entry"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    jobs = workflow["jobs"]
    assert jobs["checks"]["steps"][-1]["run"] == ".ci/run"
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    assert jobs["other-pythons"]["steps"][-1]["run"] == "make test"
    versions = [
        jobs["checks"]["steps"][1]["with"]["python-version"],
        *jobs["other-pythons"]["strategy"]["matrix"]["python"],
    ]
    assert [f"Programming Language :: Python :: {version}" for version in versions] == [
        text for text in classifiers if "Python :: 3." in text
    ]
