"""The list of events: the last lines of the audit that fit, newest first, with nothing in them taken for markup."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event
from tasks.errors import BadSetting
from tasks.list_events.event_log import HEADERS, Asked, EventLine, Listed, last_events, markdown, newest, plain
from tasks.postgres.dsn import parse
from tests.conftest import DatabaseFactory

AT = datetime(2026, 3, 18, 12, tzinfo=UTC)
ODD = "Ol|ga <b>`x`</b>\n| [a](javascript:b) *c*"
FILE = "backup_2026-03-01_02-00-00_9f2c41ab.sql"


@pytest.fixture(scope="module")
def catalogue(any_postgres: PostgresCluster, fresh_database: DatabaseFactory) -> Catalogue:
    """Five lines: a backup of each of two plans, a restore that failed, two deletions by somebody with an odd name."""
    made = Catalogue(parse(fresh_database(any_postgres)))
    made.prepare()
    backup_id = made.open(FILE, FILE, "shop", "run-1", "ada", AT, "full")
    made.note(Event("backup", "completed", "shop", "ada", "run-1", backup_id, FILE, 12.3, 5 << 20))
    made.note(Event("backup", "completed", "blog", "system", "run-2"))
    made.note(
        Event("restore", "failed", "shop", "Ada L.", "run-3", None, FILE, error="No room.", details={"mode": "swap"})
    )
    made.note(Event("delete-backup", "refused", "shop", ODD, "run-4", error=ODD, details={"backup": ODD, "none": None}))
    made.note(Event("delete-backup", "completed", "shop", ODD, "run-5", backup_id, FILE))
    return made


def line(**changes: Any) -> EventLine:
    told: dict[str, Any] = {
        "at": AT,
        "action": "backup",
        "outcome": "completed",
        "plan": "shop",
        "backup_id": 7,
        "filename": FILE,
        "actor": "ada",
        "run_id": "run-1",
        "duration_seconds": 1.5,
        "bytes": 1536,
        "error": None,
        "details": {},
    }
    return EventLine(**{**told, **changes})


@pytest.mark.parametrize(
    ("asked", "runs"),
    [
        ({}, "54321"),
        ({"last": 2}, "54"),
        ({"plan": "shop"}, "5431"),
        ({"plan": "blog"}, "2"),
        ({"action": "backup"}, "21"),
        ({"outcome": "refused"}, "4"),
        ({"actor": "ADA"}, "31"),
        ({"actor": "ol|ga <B>"}, "54"),
        ({"backup": FILE}, "531"),
        ({"backup": "1"}, "531"),
        ({"backup": "2"}, ""),
        ({"plan": " shop ", "action": "restore", "outcome": "failed"}, "3"),
        ({"actor": "%"}, ""),
        ({"action": "' OR true --"}, ""),
    ],
)
def test_the_lines_that_fit_come_newest_first(catalogue: Catalogue, asked: dict[str, Any], runs: str) -> None:
    found = last_events(catalogue, Asked(**asked))
    assert "".join(one.run_id[-1] for one in found) == runs
    assert all(one.at.tzinfo is UTC for one in found)


@pytest.mark.parametrize("last", [0, -1, 1001])
def test_a_number_of_lines_that_makes_no_sense_is_refused(last: int) -> None:
    with pytest.raises(BadSetting, match="set last to 1 to 1000"):
        Asked(last=last)


def test_several_catalogues_are_one_list() -> None:
    older, old, new = (line(at=AT + timedelta(hours=hours)) for hours in (1, 2, 3))
    assert newest([[new, older], [old]], 2) == (new, old)


@pytest.mark.parametrize("shape", [markdown, plain])
def test_everything_that_is_known_of_a_line_is_shown(shape: Callable[[Listed], str]) -> None:
    shown = shape(Listed(Asked(plan="shop"), (line(error="No room.", details={"mode": "swap", "tables": ["a", "b"]}),)))
    shown = shown.replace("&#45;", "-").replace("&#95;", "_").replace("&#58;", ":")
    for text in (
        "2026-03-18 12:00:00",
        "completed",
        FILE,
        "ada",
        "1.5 s",
        "1.5 KiB",
        "run-1",
        "No room.; mode: swap; tables: a, b",
        "One line of the audit with plan shop.",
    ):
        assert text in shown


def test_nothing_in_a_line_is_markup(catalogue: Catalogue) -> None:
    lines = last_events(catalogue, Asked(actor="ol|ga"))
    shown = markdown(Listed(Asked(actor=ODD), lines))
    rows = [one for one in shown.splitlines() if one.startswith("|")]
    assert len(rows) == 2 + len(lines) and {one.count("|") for one in rows} == {len(HEADERS) + 1}
    assert not any(sign in shown for sign in ("<", "`", "[", "*"))


def test_a_line_of_plain_text_stays_one_line(catalogue: Catalogue) -> None:
    lines = last_events(catalogue, Asked())
    shown = plain(Listed(Asked(), lines)).splitlines()
    assert len(shown) == 3 + len(lines) and shown[0] == "The last 5 lines of the audit."
    assert shown[2].split("  ")[0] == HEADERS[0]
    assert plain(Listed(Asked(plan="x"), ())).startswith("No line of the audit with plan x.")
