"""The commands of the evaluation on many people: what they refuse, and the names they had."""

from pathlib import Path

import pytest

from tests.commands import refusal, run, run_module

READER = ("evaluate", "reader")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("people", "--portraits", "nowhere", "--out", "a.npz"), "There is no file nowhere/manifest.csv"),
        (("latents", "--people", "nowhere.npz", "--out", "a"), "There is no file nowhere.npz"),
        (("latents", "--people", __file__, "--out", "a", "--guidance", "inf"), "--guidance is inf"),
        (("frames", "--out", "nowhere"), "no latents in nowhere; make them with `fantasyid evaluate latents`"),
        (("reposed", "--rigs", "no.npz", "--portraits", "nowhere", "--out", "a"), "There is no file no.npz"),
        (("judge", "--portraits", "nowhere", "--frames", "a", "--out", "b"), "There is no file nowhere/manifest.csv"),
        (("reader", "pairs", "--out", "a"), "The step pairs needs --portraits"),
        (("reader", "render", "--out", "a", "--portraits", "."), "The step render needs --leave-out"),
        (("reader", "found", "--out", "a", "--portraits", "no", "--leave-out", __file__), "no file no/manifest.csv"),
    ],
)
def test_missing_files_and_wrong_values_are_one_sentence(
    command: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal("evaluate", *command)
    assert not list(tmp_path.iterdir())


def test_a_manifest_without_its_columns_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("person,file\nA,a.png\n")
    judge = ("judge", "--portraits", tmp_path, "--frames", tmp_path, "--out", tmp_path / "report")
    for command in (("people", "--portraits", tmp_path, "--out", tmp_path / "a.npz"), judge):
        assert "manifest.csv" in refusal("evaluate", *command)


@pytest.mark.parametrize("word", ["people", "latents", "frames", "reposed", "judge", "reader"])
def test_help(word: str) -> None:
    assert run("evaluate", word, "--help").exit_code == 0


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("fantasyid.evaluation.generate", "fantasyid evaluate people` or `fantasyid evaluate latents"),
        ("fantasyid.evaluation.judge", "fantasyid evaluate judge"),
        ("fantasyid.evaluation.reposed", "fantasyid evaluate reposed"),
        ("fantasyid.evaluation.reader.run", "fantasyid evaluate reader"),
    ],
)
def test_old_commands_name_the_new_ones(
    module: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_module(module, monkeypatch) == 2
    assert command in capsys.readouterr().err
