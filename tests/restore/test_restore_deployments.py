"""Restores as they are asked for from a command line: by a deployment's run, and directly."""

from __future__ import annotations

import re

import pytest

from tests.support.installation import DATABASE, Installation
from tests.support.world import plain_dump

pytestmark = pytest.mark.slow
#: How a line of Prefect's log begins.
_LOGGED = re.compile(r"\d\d:\d\d:\d\d\.\d{3} \| ")


def dumped(installation: Installation) -> bytes:
    return plain_dump(installation.world.cluster, installation.world.database_url)


def test_restore_undo_and_clean_up_are_run_as_deployments(installation: Installation) -> None:
    installation.world.sql("DELETE FROM shop.order_items")
    damaged = dumped(installation)
    run = installation.deployment_run("restore/restore-backup", backup="latest", requested_by="Ada")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert dumped(installation) == installation.original
    run = installation.deployment_run("undo-restore/undo-last-restore", requested_by="Ada")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert dumped(installation) == damaged
    there = installation.databases()
    run = installation.deployment_run("cleanup/clean-up-now", dry_run=True)
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert "## Replaced databases" in installation.artifact("retention-default")["data"]
    assert installation.databases() == there


def test_one_table_of_the_backup_of_an_id_is_asked_for_by_a_deployments_run(installation: Installation) -> None:
    installation.world.sql("DELETE FROM shop.order_items")
    asked = {"mode": "in_place", "tables": ["shop.order_items"], "confirm": DATABASE}
    run = installation.deployment_run("restore/restore-backup", backup=str(installation.saved.id), **asked)
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert dumped(installation) == installation.original


def test_restore_and_undo_run_directly_without_any_prefect_server(installation: Installation) -> None:
    """The plan is what `.env`, here the environment, describes."""
    home = str(installation.directory / "no-server")
    alone = {"PREFECT_HOME": home, "PREFECT_API_URL": "", **installation.world.settings()}
    installation.world.sql("DELETE FROM shop.order_items")
    damaged = dumped(installation)
    done = installation.run("-m", "flows.restore", **alone)
    assert done.returncode == 0, done.stderr
    assert dumped(installation) == installation.original
    done = installation.run("-m", "flows.undo_restore", **alone)
    assert done.returncode == 0, done.stderr
    assert dumped(installation) == damaged


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        (
            "restore",
            ["--backup", "backup_2001-01-01_00-00-00_00000000.sql"],
            "Plan default has no backup 'backup_2001-",
        ),
        (
            "restore",
            ["--mode", "in_place", "--confirm", "typo"],
            f"to confirm, write its name, {DATABASE}, into confirm",
        ),
        ("restore", ["--mode", "in_place", "--confirm", DATABASE, "--table", "shop.order"], "shop.order"),
        ("restore", ["--plan", "nobody's"], "nobody's"),
        ("undo_restore", ["--plan", "nobody"], "There is no plan 'nobody'"),
        ("undo_restore", ["--target", "template1"], "template1"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_exit_status_1(
    installation: Installation, module: str, words: list[str], said: str
) -> None:
    unchanged = dumped(installation)
    done = installation.run("-m", f"flows.{module}", *words)
    assert done.returncode == 1
    [sentence] = [line for line in done.stderr.splitlines() if line and not _LOGGED.match(line)]
    assert said in sentence
    assert "Traceback" not in done.stdout + done.stderr
    assert dumped(installation) == unchanged


@pytest.mark.parametrize(("parameter", "said"), [("mode=gently", "is not one of"), ("backup=12", "is not of type")])
def test_a_run_of_the_deployment_with_what_it_cannot_take_is_not_even_made(
    installation: Installation, parameter: str, said: str
) -> None:
    done = installation.run("-m", "prefect", "deployment", "run", "restore/restore-backup", "-p", parameter)
    assert done.returncode == 1
    assert said in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("words", [["--mode", "gently"], ["--analyze", "never"], ["--tables", "x"]])
def test_what_the_command_does_not_know_ends_it_with_exit_status_2(
    installation: Installation, words: list[str]
) -> None:
    done = installation.run("-m", "flows.restore", *words)
    assert done.returncode == 2
    assert words[0] in done.stderr
    assert "Traceback" not in done.stderr
