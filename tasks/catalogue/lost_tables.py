"""Which of the catalogue's tables are there, and the making of those that are lost."""

from __future__ import annotations

from typing import Any

import psycopg2

from tasks.catalogue.catalogue import SCHEMA_FILE, TABLES, Catalogue
from tasks.errors import BadSetting

_EVENTS, _LABEL = "CREATE TABLE backup_events", "COMMENT ON TABLE"


def tables_there(catalogue: Catalogue) -> tuple[str, ...]:
    """The names of the catalogue's tables that are not there. Raises BadSetting when one is not this system's."""
    with catalogue.cursor() as cursor:
        lacking = _lacking(cursor)
    if TABLES[0] not in lacking:
        catalogue.prepare()  # creates nothing, and refuses a table of others and a newer version
    return lacking


def create_lost_tables(catalogue: Catalogue) -> tuple[str, ...]:
    """Creates those that are lost, empty, and leaves what is there alone; returns their names. Raises BadSetting."""
    with catalogue.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('database-backup-system set-up'))")
        lacking = _lacking(cursor)
        backups, _, rest = SCHEMA_FILE.read_text(encoding="utf-8").partition(_EVENTS)
        events, _, label = rest.partition(_LABEL)
        if TABLES[0] in lacking:
            cursor.execute(f"{backups}{_LABEL}{label}")
        if TABLES[1] in lacking:
            cursor.execute(f"{_EVENTS}{events}")
    return lacking


def _lacking(cursor: Any) -> tuple[str, ...]:
    cursor.execute(
        "SELECT t FROM unnest(%s) WITH ORDINALITY t(t, n) WHERE to_regclass(t) IS NULL ORDER BY n", [list(TABLES)]
    )
    lacking = tuple(str(row["t"]) for row in cursor.fetchall())
    if lacking == TABLES[:1]:
        _check_events(cursor)
    return lacking


def _check_events(cursor: Any) -> None:
    """The table of events that is left by itself must be ours: it has the columns, and refuses changes."""
    try:
        cursor.execute("SELECT action, outcome, plan, actor, run_id, details FROM backup_events WHERE false")
        cursor.execute("SELECT FROM pg_trigger WHERE tgrelid = 'backup_events'::regclass AND tgname = 'append_only'")
    except psycopg2.errors.UndefinedColumn:
        raise _foreign() from None
    if not cursor.rowcount:
        raise _foreign()


def _foreign() -> BadSetting:
    return BadSetting("There is a table backup_events that is not this system's: name another database in CATALOG_URL.")
