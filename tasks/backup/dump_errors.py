"""What a failed pg_dump means: whether another try can help, who stood in its way, and what to do."""

from __future__ import annotations

import re
from contextlib import suppress

from psycopg2.extensions import connection as Connection

from tasks.backup.source import DUMPED_RELATIONS
from tasks.errors import BackupSystemError, DumpFailed, DumpRefused, named
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import rows, source_session

#: Messages of pg_dump after which another try would fail in the same way.
_REFUSALS = ("permission denied", "row-level security", "version mismatch", "must be owner", "must be superuser")
#: A row that has more bytes than PostgreSQL can write as one line of text.
_TOO_LARGE = ("invalid memory alloc request size", "Cannot enlarge string buffer")
_COPIED = re.compile(r"Command was: COPY (.+?) (?:\(.*\) )?TO stdout")
#: pg_dump bounds its wait for locks as the time of a statement.
_LOCK_TIMEOUT = re.compile("timeout.*LOCK TABLE")
_CONFLICT = "conflict with recovery"
_STANDBY_ADVICE = (
    "The standby had to apply changes that the dump still needed: set hot_standby_feedback = on there, or raise "
    "max_standby_streaming_delay (and max_standby_archive_delay), or back up the primary."
)
#: Who holds a lock that pg_dump must wait for. A prepared transaction has no process.
_HOLDERS = f"""
    SELECT d.name, quote_literal(p.gid) AS gid, l.pid, quote_ident(a.usename) AS role, a.application_name AS application
      FROM pg_locks l JOIN ({DUMPED_RELATIONS}) d ON d.oid = l.relation
      LEFT JOIN pg_locks t ON l.pid IS NULL AND t.pid IS NULL AND t.virtualtransaction = l.virtualtransaction
                          AND t.locktype = 'transactionid' AND t.mode = 'ExclusiveLock'
      LEFT JOIN pg_prepared_xacts p ON p.transaction = t.transactionid
      LEFT JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'AccessExclusiveLock'
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
     ORDER BY d.name
"""


def dump_error(dsn: Dsn, status: int, complaints: str, program: str = "pg_dump") -> BackupSystemError:
    """The error for a pg_dump, or a psql that read rows, that failed, with the last lines of its standard error."""
    message = dsn.clean(complaints) or "it wrote no message"
    text = f"{program} of {dsn.place} ended with status {status}: {message}"
    if any(sign in message for sign in _TOO_LARGE):
        table = _COPIED.search(message)
        which = f"table {table[1]}" if table else "a table"
        return DumpRefused(
            f"A row of {which} is too large: PostgreSQL writes no row of more than "
            "1 GB as text, and a bytea takes two characters a byte. Store such values as large objects, or in pieces. "
            f"{text}"
        )
    if any(refusal in message for refusal in _REFUSALS):
        return DumpRefused(text)
    if _CONFLICT in message:
        return DumpFailed(f"{text} {_STANDBY_ADVICE}")
    if _LOCK_TIMEOUT.search(message):
        return lock_error(dsn, text)
    return DumpFailed(text)


def lock_error(dsn: Dsn, text: str) -> DumpFailed:
    """The error for a table that stayed locked, with whoever holds it now."""
    return DumpFailed(" ".join([text, *_asked_for_holders(dsn)]))


def prepared_locks(connection: Connection, excluded: tuple[str, ...] = ()) -> list[str]:
    """A sentence for each prepared transaction that keeps pg_dump from a table until somebody ends it."""
    held = rows(connection, _HOLDERS, excluded=list(excluded))
    return [
        sentence
        for gid in sorted({row["gid"] for row in held if row["gid"]})
        for sentence in named(
            f"The prepared transaction {gid} has locked ",
            [row["name"] for row in held if row["gid"] == gid],
            f"run COMMIT PREPARED {gid} or ROLLBACK PREPARED {gid} in this database.",
        )
    ]


def session_locks(connection: Connection) -> list[str]:
    """A sentence for each session that keeps pg_dump from a table until its transaction ends."""
    held = rows(connection, _HOLDERS, excluded=[])
    return [
        sentence
        for pid, role, application in sorted(
            {(row["pid"], row["role"] or "", row["application"] or "") for row in held if row["pid"]}
        )
        for sentence in named(
            f"Process {pid} of role {role}{f' ({application})' if application else ''} has locked ",
            [row["name"] for row in held if row["pid"] == pid],
            "have it end its transaction.",
        )
    ]


def _asked_for_holders(dsn: Dsn) -> list[str]:
    """Who holds the locks now. Nothing when the server does not answer."""
    with suppress(BackupSystemError), source_session(dsn, "backup: who holds a lock") as connection:
        return prepared_locks(connection) + session_locks(connection)
    return []
