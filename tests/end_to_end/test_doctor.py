"""`fantasyid doctor`: the one command that must run when all else is broken."""

import io
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

from fantasyid.checkpoints.builtin import save_builtin
from fantasyid.cli import diagnosis
from fantasyid.cli.diagnosis import EXTRAS, MODULES, PURPOSES, Diagnosis, Finding, diagnose
from fantasyid.cli.main import app
from tests.tiny_pipeline import tiny_pipeline

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found() -> Iterator[Diagnosis]:
    """What is found where nothing was ever downloaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", "/nowhere")
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere/hub")
        yield diagnose()


def by_name(diagnosis: Diagnosis) -> dict[str, Finding]:
    return {finding.name: finding for finding in diagnosis.findings}


def test_table_of_packages_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(MODULES) == {Requirement(line).name for line in project["dependencies"]}
    extras = {
        name: {Requirement(line).name for line in lines} for name, lines in project["optional-dependencies"].items()
    }
    assert all(name in extras[extra] for name, (extra, _) in EXTRAS.items())
    assert project["scripts"]["fantasyid"] == "fantasyid.cli.entry:run"


def test_it_runs_where_nothing_at_all_is_installed() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-S", "-c", "from fantasyid.cli.entry import run; run()"]
    result = subprocess.run([*command, "doctor"], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    first = result.stdout.splitlines()[0]
    assert first.startswith(f"mini: no, missing {', '.join(MODULES)}; full size: no, missing ")
    assert "Traceback" not in result.stderr
    assert "Looking at the packages" in result.stderr
    other = subprocess.run([*command, "generate"], env=environment, capture_output=True, text=True, check=False)
    assert other.returncode == 2
    assert re.fullmatch(
        r"Error: fantasyid cannot start \(.*\); `fantasyid doctor` says what to install\.\n", other.stderr
    )


def test_a_package_that_is_really_gone_is_named_in_the_first_line(tmp_path: Path) -> None:
    """Without numpy, cv2 prints to the standard output and all others fail."""
    installed = Path(str(metadata.distribution("numpy").locate_file("")))
    gone = {file.parts[0] for file in metadata.files("numpy") or ()}
    for path in installed.iterdir():
        if path.name not in gone and path.suffix != ".pth":
            (tmp_path / path.name).symlink_to(path)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-S", "-c", "from fantasyid.cli.entry import run; run()", "doctor"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    first, *others = result.stdout.splitlines()
    assert re.fullmatch("mini: no, missing .*numpy.*; full size: no, missing .*numpy.*; training: no, .*numpy.*", first)
    assert any(line.endswith("cannot be imported without numpy, which see") for line in others)


@pytest.mark.parametrize("package", MODULES)
def test_each_package_that_cannot_be_imported_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULES[package], None)  # as Python marks a module that is not there
    findings = diagnosis._packages(set())
    problems = {item.name: item.problem for item in findings if item.needed_for == PURPOSES and item.problem}
    assert set(problems) == {package}
    assert f"pip install {package}" in str(problems[package])
    assert all(package in Diagnosis(tuple(findings)).missing(purpose) for purpose in PURPOSES)


def test_what_cannot_be_looked_at_is_said_and_counted_once() -> None:
    def broken() -> list[Finding]:
        raise RuntimeError("a library of yours")

    def without_torch() -> list[Finding]:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    (strange,) = diagnosis._guarded("weights", "mini", ("mini",), set(), broken)
    assert strange.problem == "cannot be looked at (RuntimeError: a library of yours)"
    (unknown,) = diagnosis._guarded("weights", "mini", ("mini",), set(), without_torch)
    assert unknown.needed_for == ("mini",)
    (known,) = diagnosis._guarded("weights", "mini", ("mini",), {"torch"}, without_torch)
    assert known.needed_for == ()
    assert known.problem is not None


def test_a_package_of_another_version_is_a_problem() -> None:
    finding = diagnosis._package("numpy", "numpy", ("mini",), SpecifierSet(">=999"))
    assert finding.problem == "this version is not >=999; install it with: pip install 'numpy>=999'"
    assert diagnosis._package("numpy", "numpy", ("mini",), SpecifierSet(">=1")).problem is None


def test_first_line_says_what_the_machine_can_do(found: Diagnosis) -> None:
    assert found.missing("mini") == ()
    mini, full_size, training = found.verdict().split("; ")
    assert mini == "mini: yes"
    assert "transform.pkl" in full_size
    assert "DECA (deca_model.tar)" in full_size
    if not torch.cuda.is_available():
        assert full_size.endswith("a CUDA GPU")
        assert training.endswith("a CUDA GPU")


def test_every_file_for_full_size_is_listed_with_its_size(found: Diagnosis) -> None:
    named = {item.name: item for item in found.findings if item.kind == "full size"}
    assert {"T5-XXL", "insightface antelopev2", "transform.pkl"} <= set(named)
    assert all(re.search(r"\d [GM]B", item.detail) for item in named.values())
    assert "13.3 GB" in named["released FantasyID transformer"].detail
    assert "about 53 MB" in named["FLAME 2020 (generic_model.pkl)"].detail
    assert "transform.pkl (0.9 MB)" in str(named["transform.pkl"].problem)
    assert "deca_model.tar (about 414 MB)" in str(by_name(found)["deca"].problem)
    assert not any(item.needed_for for item in named.values() if "adapters of your own" in item.detail)


def test_json_is_one_object_and_the_exit_code_that_of_mini() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    content = json.loads(result.stdout)
    assert result.exit_code == (0 if content["can_generate"] else 2)
    assert set(content["missing"]) == set(PURPOSES)
    assert {item["kind"] for item in content["findings"]} == {"package", "backend", "weights", "full size", "device"}
    assert any("attention: " in item["detail"] for item in content["findings"] if item["name"] == "cpu")


def test_output_needs_no_utf8_and_cuts_no_address(found: Diagnosis, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Finding("weights", "/home/é\udcff/x", "", (), "a problem")
    monkeypatch.setenv("COLUMNS", "80")
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    diagnosis.say(Diagnosis((*found.findings, odd)).to_text())
    out.seek(0)
    lines = out.read().splitlines()
    assert "mini: yes" in lines[0]
    assert any(
        "https://github.com/deepinsight/insightface/tree/master/python-package#model-zoo" in line for line in lines
    )
    assert r"-       weights   /home/\xe9\udcff/x: a problem" in lines


def test_a_home_that_cannot_be_read_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", f"/{'a' * 300}")  # the system refuses it, as it refuses a folder without permission
    named = {item.name: item for item in (*diagnosis._backends(set()), *diagnosis._full_size(set()))}
    assert "cannot be read (File name too long)" in str(named["deca"].problem)
    assert "cannot be read (File name too long)" in str(named["DECA (deca_model.tar)"].problem)
    assert named["dlib-hog"].problem is None


def test_hashes_of_the_weights_are_checked(tmp_path: Path) -> None:
    (missing,) = diagnosis._weights(set(), tmp_path)
    assert "not installed" in str(missing.problem)
    save_builtin(tiny_pipeline(), tmp_path)
    assert all(finding.problem is None for finding in diagnosis._weights(set(), tmp_path))
    shard = next((tmp_path / "vae").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    (damaged,) = diagnosis._weights(set(), tmp_path)
    assert shard.name in str(damaged.problem)
