"""Locks that hold across deployments, workers and machines, and free themselves when their holder dies.

A lock is a session-level advisory lock in the catalogue's database: it lives exactly as long as the connection that
took it, and the server notices within a minute when the machine at the other end is gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from tasks.core.errors import AlreadyRunning
from tasks.core.postgres import Dsn


def lock_key(kind: str, name: str) -> int:
    """The 64-bit key of one lock, signed, as PostgreSQL takes it. Pure."""
    return int.from_bytes(hashlib.sha256(f"database-backup-system\0{kind}\0{name}".encode()).digest()[:8], signed=True)


@contextmanager
def exclusive(catalogue: Dsn, kind: str, name: str, holder: str) -> Iterator[None]:
    """Holds the lock `kind` (such as `backup`) of `name` (such as a plan) for the length of a `with` block.

    `holder` is what others are told. Raises AlreadyRunning at once when somebody else has the lock.
    """
    connection = catalogue.connect(holder)
    try:
        with catalogue.sentences(), connection.cursor() as cursor:
            _notice_dead_peers(connection, cursor)
            if not _take(cursor, lock_key(kind, name)):
                raise AlreadyRunning(f"A {kind} of {name} is under way already{_holder(cursor, lock_key(kind, name))}: "
                                     "wait for it to end, or cancel it.")  # fmt: skip
        yield
    finally:
        connection.close()


def _notice_dead_peers(connection: Connection, cursor: Cursor) -> None:
    for setting in ("tcp_keepalives_idle = 20", "tcp_keepalives_interval = 10", "tcp_keepalives_count = 3"):
        cursor.execute(f"SET {setting}")
    if connection.server_version >= 140000:
        cursor.execute("SET idle_session_timeout = 0")


def _take(cursor: Cursor, key: int) -> bool:
    cursor.execute("SELECT pg_try_advisory_lock(%s)", [key])
    (taken,) = cursor.fetchone()
    return bool(taken)


def _holder(cursor: Cursor, key: int) -> str:
    """Who has the lock, and since when, as far as the server lets this role see it."""
    cursor.execute(
        "SELECT a.application_name, a.backend_start FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted AND (l.classid::bigint << 32 | l.objid::bigint) = %s"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        [key],
    )
    who = cursor.fetchone()
    return f" by {who[0]} since {who[1]:%Y-%m-%d %H:%M:%S %Z}" if who and who[0] and who[1] else ""
