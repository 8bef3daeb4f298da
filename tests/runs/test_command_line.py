"""The commands `python -m flows.…`: their options are the flow's parameters; what they do not know is refused."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prefect import flow
from prefect.logging import get_run_logger

from tasks.errors import BadSetting, HealthFailed
from tasks.runs import command_line
from tasks.runs.command_line import run_flow

CHECKOUT = Path(__file__).parents[2]
COMMANDS = sorted(path.stem for path in (CHECKOUT / "flows").glob("[!_]*.py"))
#: Options that no parameter of the flow stands for, or that have another name.
OTHER_NAMES = {"tables": "--table", "schemas": "--schema", "plans": "--plan"}


def option_of(parameter: str) -> str:
    return OTHER_NAMES.get(parameter, f"--{parameter.replace('_', '-')}")


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is run, and no server is started or asked."""

    def started() -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(command_line, "some_server", started)


def command(name: str, *words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of `python -m flows.<name>` with these words."""
    monkeypatch.setattr(sys, "argv", [name, *words])
    return int(importlib.import_module(f"flows.{name}").main())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_help_and_does_nothing(
    name: str, no_server: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(name, "--help", monkeypatch=monkeypatch) == 0
    told = " ".join(capsys.readouterr().out.split())
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    summary = inspect.cleandoc(flow.fn.__doc__).split("\n\n")[0]
    assert f"python -m flows.{name}" in told and summary in told
    for parameter in inspect.signature(flow.fn).parameters:
        assert re.search(rf"{option_of(parameter)}[ :,]", told)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("words", [["--no-such-option"], ["--no-such-option", "x"], ["a-word"], ["--plan"]])
def test_every_command_refuses_what_it_does_not_know(
    name: str,
    words: list[str],
    no_server: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needed = ["--key", "x"] if name == "adopt_backup" else []
    needed = ["--backup", "x"] if name in ("delete_backup", "keep_backup") else needed
    assert command(name, *needed, *words, monkeypatch=monkeypatch) == 2
    captured = capsys.readouterr()
    assert words[0] in captured.err and f"See python -m flows.{name} --help." in captured.err
    assert captured.out == "" and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("restore", ["--mode", "gently"]),
        ("restore", ["--analyze", "never"]),
        ("restore", ["--tables", "x"]),
        ("list_events", ["--last", "some"]),
        ("backup_all", ["--at-once", "few"]),
        ("backup_all", ["--at-once", "1.5"]),
        ("list_events", ["--last=1e3"]),
        ("cleanup", ["--dry-run=perhaps"]),
        ("cleanup", ["--no-dry-run"]),
        ("delete_backup", []),
    ],
)
def test_values_that_an_option_cannot_have_are_refused(
    name: str,
    words: list[str],
    no_server: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(name, *words, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and (words or ["--backup"])[0].partition("=")[0] in said


def test_a_command_in_a_process_of_its_own_ends_with_its_exit_status() -> None:
    """Help is there within seconds, without a Prefect server and without a home to make one in."""
    words = [sys.executable, "-m", "flows.cleanup"]
    shown = subprocess.run([*words, "--help"], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60)
    assert (shown.returncode, shown.stderr) == (0, "") and "python -m flows.cleanup" in shown.stdout
    refused = subprocess.run([*words, "now"], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "Unknown argument: now. See python -m flows.cleanup --help.\n"


# --- what is run, with what, and what is shown of it


@flow(name="everything", persist_result=False)
def everything(
    tables: list[str] = [],  # noqa: B006 - as in the flows
    name: str = "nobody",
    count: int = 3,
    now: bool = False,
) -> dict[str, object]:
    """Return what was given.

    Args:
        tables: Some tables.
        name: A name.
        count: A number.
        now: At once.
    """
    return {"tables": tables, "name": name, "count": count, "now": now}


@flow(name="refuse", persist_result=False)
def refuse(kind: str = "setting") -> None:
    """Fail.

    Args:
        kind: Of which error.
    """
    get_run_logger().warning("before the end")
    if kind == "health":
        raise HealthFailed("Nothing is well.", "disk: full")
    raise BadSetting("The host x has no address.")


@pytest.fixture
def on_server(prefect_api: object, nothing_waits_for_a_server_that_is_gone: None) -> None:
    """Flows of this process run on the server of the tests."""


@pytest.mark.usefixtures("on_server")
@pytest.mark.parametrize(
    ("words", "given"),
    [
        ([], {"tables": [], "name": "nobody", "count": 3, "now": False}),
        (
            ["--table", "a b", "--table=-c", "--now"],
            {"tables": ["a b", "-c"], "name": "nobody", "count": 3, "now": True},
        ),
        (["--name", "", "--count", "7"], {"tables": [], "name": "", "count": 7, "now": False}),
        (["--name", "12"], {"tables": [], "name": "12", "count": 3, "now": False}),
    ],
)
def test_options_become_parameters_of_the_flow(
    words: list[str],
    given: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["everything", *words])
    assert run_flow(everything, text=repr) == 0
    assert capsys.readouterr().out == f"{given!r}\n"


@pytest.mark.usefixtures("on_server")
@pytest.mark.parametrize("words", [[], ["--show"]])
def test_a_text_that_is_not_asked_for_is_not_shown(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["everything", *words])
    assert run_flow(everything, text=lambda _: "a secret", text_option=("show", "Show it.")) == 0
    assert capsys.readouterr().out == ("a secret\n" if words else "")


@pytest.mark.usefixtures("on_server")
@pytest.mark.parametrize(
    ("words", "sentence", "report"),
    [
        ([], "The host x has no address.", ""),
        (["--kind", "health"], "Nothing is well.", "disk: full\n"),
    ],
)
def test_a_failed_run_ends_with_1_and_its_sentence_once(
    words: list[str], sentence: str, report: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["refuse", *words])
    assert run_flow(refuse) == 1
    captured = capfd.readouterr()
    assert captured.out == report
    assert captured.err.count(sentence) == 1 and captured.err.endswith(f"{sentence}\n")
    assert "Traceback" not in captured.err and "Finished in state" not in captured.err


@pytest.mark.usefixtures("on_server")
def test_a_command_that_prints_text_shows_no_log_around_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["everything"])
    assert run_flow(everything, text=lambda _: "all of it", console_level=logging.WARNING) == 0
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("all of it\n", "")
