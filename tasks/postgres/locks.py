"""Locks that hold across deployments, workers and machines, and free themselves when their holder dies.

A lock is a session-level advisory lock: it lives exactly as long as the connection that took it, and the server
notices within a minute when the machine at the other end is gone. The lock of a plan lies in the catalogue's database.
That of a database lies on its own server, in another database, so that nobody is in the way of a swap.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from tasks.errors import AlreadyRunning
from tasks.postgres.dsn import Dsn
from tasks.postgres.lock_keys import DATABASE, DRILL
from tasks.postgres.lock_keys import lock_key as lock_key
from tasks.postgres.server import maintenance

#: How long a removal waits for another one, which takes seconds; copies to a replica may take hours.
REMOVAL_PATIENCE = 30.0  # seconds


@contextmanager
def exclusive(catalogue: Dsn, kind: str, name: str, holder: str) -> Iterator[None]:
    """Holds the lock `kind` (such as `backup`) of `name` (such as a plan) for the length of a `with` block.

    `holder` is what others are told. Raises AlreadyRunning at once when somebody else has the lock.
    """
    with _held(catalogue, lock_key(kind, name), holder, "", f"A {kind} of {name} is under way already"):
        yield


@contextmanager
def removal_lock(catalogue: Dsn, plan: str, holder: str, patience: float = REMOVAL_PATIENCE) -> Iterator[None]:
    """Nobody else removes or copies stored backups of `plan` for the length of a `with` block.

    What is being removed is soon gone: somebody else's work is waited for, `patience` seconds at most. Raises
    AlreadyRunning when it goes on for longer.
    """
    give_up = time.monotonic() + patience
    said = f"No backup of plan {plan} can be removed or copied now, since some are being removed or copied"
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(_held(catalogue, lock_key("removal", plan), holder, "", said))
                break
            except AlreadyRunning:
                if time.monotonic() > give_up:
                    raise
            time.sleep(0.3)
        yield


@contextmanager
def restore_lock(dsn: Dsn, holder: str) -> Iterator[None]:
    """Nobody else backs up or restores the database of `dsn` for the length of a `with` block.

    `holder` is what others are told. Raises AlreadyRunning at once when somebody does so.
    """
    said = f"Database {dsn.dbname} cannot be restored now, since it is being backed up or restored"
    with _held(maintenance(dsn), lock_key(DATABASE, dsn.dbname), holder, "", said):
        yield


@contextmanager
def backup_lock(dsn: Dsn, holder: str, refusal: str = "") -> Iterator[None]:
    """Nobody restores the database of `dsn` for the length of a `with` block; others may back it up as well.

    `holder` is what others are told. Raises AlreadyRunning at once when a restore is under way, with `refusal` for
    its first words if that is given.
    """
    said = refusal or f"Database {dsn.dbname} cannot be backed up now, since it is being restored"
    with _held(maintenance(dsn), lock_key(DATABASE, dsn.dbname), holder, "_shared", said):
        yield


@contextmanager
def drill_lock(dsn: Dsn, holder: str) -> Iterator[None]:
    """Nobody else tries a backup of the database of `dsn` out for the length of a `with` block.

    Backups and restores of the database go on meanwhile; what clears away dead drills' databases sees by this lock
    that this one is alive. `holder` is what others are told. Raises AlreadyRunning at once when somebody else does.
    """
    said = f"A backup of database {dsn.dbname} is being tried out already"
    with _held(maintenance(dsn), lock_key(DRILL, dsn.dbname), holder, "", said):
        yield


@contextmanager
def _held(dsn: Dsn, key: int, holder: str, mode: str, refusal: str) -> Iterator[None]:
    connection = dsn.connect(holder)
    try:
        with dsn.sentences(), connection.cursor() as cursor:
            _notice_dead_peers(connection, cursor)
            if not _take(cursor, key, mode):
                raise AlreadyRunning(f"{refusal}{_holder(cursor, key)}: wait for it to end, or cancel it.")
        yield
    finally:
        connection.close()


def _notice_dead_peers(connection: Connection, cursor: Cursor) -> None:
    for setting in ("tcp_keepalives_idle = 20", "tcp_keepalives_interval = 10", "tcp_keepalives_count = 3"):
        cursor.execute(f"SET {setting}")
    if connection.server_version >= 140000:
        cursor.execute("SET idle_session_timeout = 0")


def _take(cursor: Cursor, key: int, mode: str) -> bool:
    cursor.execute(f"SELECT pg_try_advisory_lock{mode}(%s)", [key])
    (taken,) = cursor.fetchone()
    return bool(taken)


def _holder(cursor: Cursor, key: int) -> str:
    """Who has the lock, and since when, as far as the server lets this role see it."""
    cursor.execute(
        "SELECT a.application_name, a.backend_start FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted AND (l.classid::bigint << 32 | l.objid::bigint) = %s"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " ORDER BY a.backend_start LIMIT 1",
        [key],
    )
    who = cursor.fetchone()
    return f" by {who[0]} since {who[1]:%Y-%m-%d %H:%M:%S %Z}" if who and who[0] and who[1] else ""
