"""A restore in place: one transaction removes all that pg_dump would write of the live database, and runs the dump.

Extensions that the backup has too stay with their members, and so do the tables of the catalogue of backups.
`in_place.sql` looks for what there is while it runs, so it also removes what was made a moment before.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from psycopg2.extensions import connection as Connection

from tasks.errors import BackupSystemError
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import rows, source_session
from tasks.restore.dump_reader import NO_ENTRY, Entry, Piece
from tasks.restore.entries import LeftOut
from tasks.restore.psql import Script
from tasks.storage.backup_values import StoredBackup

LOCK_WAIT = 30  # seconds that the restore waits for one lock
_LOCKS_OF_TABLE = 5  # what a new table takes with its indexes, sequence and out-of-line values
_REMOVAL = tuple(Path(__file__).with_name("sql") / name for name in ("in_place.sql", "in_place_privileges.sql"))
_STANDING = Path(__file__).with_name("sql") / "in_place_standing.sql"
_MAKE_LANGUAGE = "CREATE EXTENSION plpgsql SCHEMA pg_catalog;"
_CREATE_SCHEMA = re.compile(rb"^CREATE SCHEMA ", re.MULTILINE)

#: How many locks the removal takes until its end, and how many the server has room for.
_LOCKS = """
    SELECT (SELECT count(DISTINCT (classid, objid)) FROM pg_depend WHERE objid >= 16384 AND deptype <> 'e')
           + (SELECT count(*) FROM pg_largeobject_metadata) AS needed,
           current_setting('max_locks_per_transaction')::bigint
           * (current_setting('max_connections')::bigint
              + current_setting('max_prepared_transactions')::bigint) AS room,
           current_setting('max_locks_per_transaction')::bigint AS setting
"""
_LOOKS_EVERY = 1.0  # seconds
_WAITING = "SELECT pid FROM pg_stat_activity WHERE application_name = %(name)s AND datname = current_database()"
_HOLDERS = """
    SELECT coalesce(a.pid, 0) AS pid, a.usename AS role, a.application_name AS application, a.backend_type AS type,
           to_char(a.xact_start AT TIME ZONE 'UTC', 'HH24:MI:SS') AS since,
           extract(epoch FROM clock_timestamp() - a.xact_start)::int AS seconds,
           (SELECT l.relation::regclass::text FROM pg_locks l
             WHERE l.pid = %(pid)s AND NOT l.granted AND l.relation IS NOT NULL LIMIT 1) AS relation
      FROM unnest(pg_blocking_pids(%(pid)s)) b (pid) LEFT JOIN pg_stat_activity a ON a.pid = b.pid
     ORDER BY a.xact_start NULLS LAST LIMIT 1
"""


class Standing:
    """All of a dump without the entries on what stays; a schema that stays is not created again."""

    def __init__(
        self,
        skipped: Iterable[tuple[str, str, str]] = (),
        system_privileges: bool = True,
        left_out: LeftOut | None = None,
    ) -> None:
        """`skipped` are entries as (kind, schema, tag); without `system_privileges`, those on system objects too."""
        self._skipped = frozenset(skipped)
        self._named = left_out or LeftOut()
        self._leaves = False
        self._system_privileges = system_privileges
        self._schema = b""
        self._entry = NO_ENTRY

    def take(self, piece: Piece) -> Iterable[Piece]:
        entry = piece.entry
        ready: Iterable[Piece] = ()
        if entry != self._entry:
            ready, self._entry = self.finish(), entry
            self._leaves = self._named.takes(entry) or self._left_out(entry)
        if self._leaves:
            return ready
        if entry.kind == "SCHEMA":
            self._schema += piece.data
            return ready
        return (*ready, piece)

    def finish(self) -> tuple[Piece, ...]:
        schema, self._schema = self._schema, b""
        made = _CREATE_SCHEMA.sub(b"CREATE SCHEMA IF NOT EXISTS ", schema, count=1)
        return (Piece(self._entry, made, rows=False),) if schema else ()

    def _left_out(self, entry: Entry) -> bool:
        if entry.kind == "ACL" and entry.schema == "pg_catalog" and not self._system_privileges:
            return True
        return (entry.kind, entry.schema, entry.tag) in self._skipped


def removal(
    connection: Connection,
    backup: StoredBackup,
    keep: Sequence[str],
    lock_wait: int = LOCK_WAIT,
    left_out: LeftOut | None = None,
) -> Script:
    """The script for a restore in place, for the database and with the role that `connection` is in; changes nothing.

    `keep` are relations that stay, as `schema.name`, written as PostgreSQL writes them; their schemas and the functions
    of their triggers stay with them. What cannot be removed ends the transaction with an error that names it. Waits at
    most `lock_wait` seconds for each lock. `left_out` says which entries are not restored.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('search_path', 'pg_catalog, pg_temp', false)")
    wanted = [{"name": extension.name, "schema": extension.schema} for extension in backup.extensions]
    lines = [
        "SET LOCAL client_encoding = 'UTF8';",
        "SET LOCAL standard_conforming_strings = on;",
        f"SET LOCAL lock_timeout = '{lock_wait}s';",
        _setting("in_place.keep", list(keep)),
        _setting("in_place.extensions", wanted),
        *_language(connection, wanted="plpgsql" in {extension["name"] for extension in wanted} or bool(keep)),
    ]
    if not backup.conditions.has_public_schema and not any(name.startswith("public.") for name in keep):
        lines.append("DROP SCHEMA public;")
    standing = rows(connection, _STANDING.read_text(encoding="utf-8"), keep=list(keep))
    skipped = {(row["kind"], _as_in_comments(row["schema"]), _as_in_comments(row["tag"])) for row in standing}
    selection = Standing(skipped, _is_superuser(connection), left_out)
    return Script(before="\n".join(lines).encode() + b"\n", selection=selection)


def lock_holders(connection: Connection, pid: int) -> str:
    """One sentence about who holds a lock that server process `pid` waits for; empty when it waits for none."""
    holders = rows(connection, _HOLDERS, pid=pid)
    if not holders:
        return ""
    [holder] = holders
    thing = f"table {holder['relation']}" if holder["relation"] else "a lock"
    if not holder["pid"]:
        return f"The restore waits for {thing}, which a prepared transaction holds: commit it or roll it back."
    who = f"role {holder['role']}" if holder["role"] else str(holder["type"] or "another session")
    application = f"{holder['application']}, " if holder["application"] else ""
    since = f" in a transaction open since {holder['since']} UTC ({holder['seconds']} s)" if holder["since"] else ""
    return f"The restore waits for {thing}, which {who} ({application}process {holder['pid']}) holds{since}."


def _setting(name: str, value: object) -> str:
    text = json.dumps(value, ensure_ascii=False).replace("'", "''")
    return f"SET LOCAL {name} = '{text}';"


def _language(connection: Connection, wanted: bool) -> list[str]:
    """The statements that remove everything; they need the language plpgsql, at least for that time."""
    there = any(row["lanname"] == "plpgsql" for row in rows(connection, "SELECT lanname FROM pg_language"))
    removing = [file.read_text(encoding="utf-8") for file in _REMOVAL]
    return [*([] if there else [_MAKE_LANGUAGE]), *removing, *([] if wanted else ["DROP EXTENSION plpgsql;"])]


def lock_problems(connection: Connection, tables: int) -> list[str]:
    """A sentence where it is sure to fail: no server takes 2.5 times the locks that it is set up for."""
    [row] = rows(connection, _LOCKS)
    needed = row["needed"] + _LOCKS_OF_TABLE * tables
    if needed <= 2.5 * row["room"]:
        return []
    setting = row["setting"] * (needed // row["room"] + 1)
    return [
        f"A restore in place takes about {needed} locks in one transaction, and the server is set up for "
        f"{row['room']}: set max_locks_per_transaction to {setting} or more, or restore with swap."
    ]


def _is_superuser(connection: Connection) -> bool:
    [row] = rows(connection, "SELECT current_setting('is_superuser') = 'on' AS yes")
    return bool(row["yes"])


def _as_in_comments(name: str) -> str:
    """A name as in the comments of pg_dump: on one line."""
    return re.sub(r"[\r\n]", " ", name)


class LockWatch:
    """The last session that was seen to hold a lock that psql waits for. psql's own error does not name it."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._seen = ""

    def sentence(self) -> str:
        """A sentence on that session; empty when psql never had to wait."""
        return self._seen

    def look(self, dsn: Dsn, application_name: str) -> None:
        """Looks every second until `ended` is set. When the server does not answer, there is no sentence."""
        with suppress(BackupSystemError), source_session(dsn, "restore: lock watch") as connection:
            while not self.ended.wait(_LOOKS_EVERY):
                for row in rows(connection, _WAITING, name=application_name):
                    self._seen = lock_holders(connection, row["pid"]) or self._seen


@contextmanager
def lock_watch(dsn: Dsn, application_name: str) -> Iterator[LockWatch]:
    """Watches the sessions with this `application_name` in the database `dsn` during the block."""
    watch = LockWatch()
    watcher = threading.Thread(target=watch.look, args=(dsn, application_name), daemon=True)
    watcher.start()
    try:
        yield watch
    finally:
        watch.ended.set()
        watcher.join()
