"""Whoever sees the state of a failed run needs to read nothing else: it says in one sentence what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flows.adopt_backup import adopt_backup
from flows.backup import backup
from flows.check_health import check_health
from flows.cleanup import cleanup
from flows.delete_backup import delete_backup
from flows.download_backup import download_backup
from flows.keep_backup import keep_backup
from flows.list_backups import list_backups
from flows.list_events import list_events
from flows.rebuild_catalogue import rebuild_catalogue
from flows.restore import restore
from flows.undo_restore import undo_restore
from flows.verify_backup import verify_backup
from tests.support.flow_fixtures import WorldFactory

NOBODY = "backup_2001-01-01_00-00-00_00000000.sql"
FLOWS: dict[str, Callable[..., Any]] = {
    "adopt-backup": adopt_backup,
    "backup": backup,
    "cleanup": cleanup,
    "delete-backup": delete_backup,
    "download-backup": download_backup,
    "keep-backup": keep_backup,
    "check-health": check_health,
    "list-backups": list_backups,
    "list-events": list_events,
    "rebuild-catalogue": rebuild_catalogue,
    "restore": restore,
    "undo-restore": undo_restore,
    "verify-backup": verify_backup,
}
#: What some of them cannot do without.
NEEDED = {"adopt-backup": {"key": "old.sql"}, "delete-backup": {"backup": NOBODY}, "keep-backup": {"backup": NOBODY}}
#: Those that are about one backup.
OF_A_BACKUP = ("delete-backup", "download-backup", "keep-backup", "restore", "verify-backup")

pytestmark = pytest.mark.usefixtures("impatient")


def message(name: str, **given: Any) -> str:
    state = FLOWS[name](**given, return_state=True)
    assert state.is_failed(), state
    said = str(state.message)
    assert "encountered an exception" not in said, said
    assert said == str(state.result(raise_on_failure=False)), "the state says less than the error"
    assert "\n" not in said.strip() and "Traceback" not in said, said
    return said


@pytest.mark.parametrize("name", FLOWS)
def test_the_state_of_a_run_names_a_plan_that_does_not_exist(make_world: WorldFactory, name: str) -> None:
    make_world(mebibytes=0)
    given = NEEDED.get(name, {})
    assert "nobody-at-all" in message(name, plan="nobody-at-all", **given)


@pytest.mark.parametrize("name", OF_A_BACKUP)
def test_the_state_of_a_run_names_a_backup_that_does_not_exist(make_world: WorldFactory, name: str) -> None:
    make_world(mebibytes=0)
    assert NOBODY in message(name, backup=NOBODY)


@pytest.mark.parametrize("name", [name for name in FLOWS if name not in ("list-events", "download-backup")])
def test_the_state_of_a_run_says_which_server_does_not_answer(
    make_world: WorldFactory, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Downloading needs the bucket alone, and the list of events names no place but those of the plans it lists."""
    make_world(mebibytes=0)
    place = "127.0.0.1:1"
    for variable in ("DATABASE_URL", "CATALOG_URL"):
        monkeypatch.setenv(variable, f"postgresql://somebody:mark3r@{place}/gone")
    monkeypatch.setenv("DRILL_ON", "server")  # elsewhere, a drill asks the plan's own server for nothing
    given = NEEDED.get(name, {})
    said = message(name, **given)
    assert place in said and "mark3r" not in said
