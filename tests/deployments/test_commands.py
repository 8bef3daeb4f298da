"""Every `python -m deployments.…` explains itself, and does nothing when it is asked for something unknown."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from deployments.quick_start.services import Services

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
COMMANDS = sorted(
    ".".join(file.relative_to(DEPLOYMENTS.parent).with_suffix("").parts)
    for file in DEPLOYMENTS.rglob("*.py")
    if '__name__ == "__main__"' in file.read_text(encoding="utf-8") or file.name == "__main__.py"
)
MODULES = {name: importlib.import_module(name) for name in COMMANDS}


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be started or looked at."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the command did something")

    monkeypatch.setattr(Services, "__init__", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr("getpass.getpass", refuse)
    monkeypatch.setattr("psycopg2.connect", refuse)


def test_the_commands_are_those_that_the_documents_name() -> None:
    names = ("add_plan", "down", "sample.__main__", "set_plan", "set_up", "up")
    assert [f"deployments.{name}" for name in names] == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_shown_and_nothing_else_happens(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert MODULES[name].main(["--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: python -m {name.removesuffix('.__main__')}")


UNKNOWN = [(name, argument) for name in COMMANDS for argument in ("--unknown", "unknown")]
#: Here the word is a change of the plan, whose field is looked for.
UNKNOWN.remove(("deployments.set_plan", "unknown"))


@pytest.mark.parametrize(("name", "argument"), UNKNOWN)
def test_an_unknown_argument_is_refused_in_one_sentence(
    name: str, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = ["shop"] if name.endswith("_plan") else []
    assert MODULES[name].main([*known, argument]) == 2
    said = capsys.readouterr().err
    assert argument in said
    assert said.count("\n") == 1
    assert said.endswith(".\n")
