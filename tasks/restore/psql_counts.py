"""Rows counted in the transaction of a restore in place, before its COMMIT."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.errors import RowsDiffer
from tasks.restore.compare import difference
from tasks.restore.psql_session import PsqlSession
from tasks.restore.values import LARGE_OBJECTS, RestoreRun, TableCount
from tasks.storage.manifest_model import raw_name


def counted_within(session: PsqlSession, run: RestoreRun) -> tuple[TableCount, ...]:
    """The rows of the restored tables as the transaction sees them."""
    chosen = set(run.chosen)
    tables = [table for table in run.backup.tables if not run.tables or table.name in chosen]
    if run.backup.database.encoding == "SQL_ASCII":  # names may be no UTF-8
        session.run(b"SET client_encoding = 'SQL_ASCII';")
    counts = [_count(session, table.name, table.rows) for table in tables]
    if not run.tables:
        found = session.ask("rows", "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata")
        counts.append(TableCount(LARGE_OBJECTS, run.backup.large_objects, int(found)))
    return tuple(counts)


def _count(session: PsqlSession, name: str, expected: int) -> TableCount:
    raw = raw_name(name)
    quoted = raw.replace("'", "''")
    of_extension = (
        "EXISTS (SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
        f" AND objid = '{quoted}'::pg_catalog.regclass AND deptype = 'e')"
    )
    found, at_least = session.ask("rows", f"(SELECT count(*) FROM ONLY {raw}) || ' ' || {of_extension}").split()
    return TableCount(name, expected, int(found), at_least=at_least == "true")


def check(run: RestoreRun, counted: Sequence[TableCount]) -> None:
    """Raises RowsDiffer when a table does not have the rows that the manifest says."""
    if different := [table for table in counted if table.differs]:
        raise RowsDiffer(difference(run.database, run.backup.filename, different))
