"""Locks that hold across deployments, workers and machines. A lock ends when its holder dies.

Each is a session-level advisory lock: it lives as long as the connection that took it, and the server notices within
a minute when the client's machine is gone. Locks of a plan are taken in the catalogue's database. Locks of a database
are taken on that database's server, in another database, so that a swap can rename the locked one.

`holder` is the name of the connection, and so what another run is shown when its lock is refused.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from tasks.errors import AlreadyRunning, BackupSystemError
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, within_pg_catalog

#: The kind of lock that a restore holds on its database, and a backup too, but shared.
DATABASE = "database"
#: The kind of lock that a run holds while it verifies a backup of a database.
VERIFY = "verify"
#: How long a removal waits for another removal, which takes seconds.
REMOVAL_PATIENCE = 30.0  # seconds
_RETRY_SECONDS = 0.3


@contextmanager
def exclusive(catalogue: Dsn, kind: str, name: str, holder: str) -> Iterator[None]:
    """Holds the lock `kind` (such as `backup`) of `name` (such as a plan) for the length of a `with` block.

    Raises AlreadyRunning at once when another run holds the lock.
    """
    with _held(catalogue, lock_key(kind, name), holder, f"A {kind} of {name} is under way already"):
        yield


@contextmanager
def removal_lock(catalogue: Dsn, plan: str, holder: str, patience: float = REMOVAL_PATIENCE) -> Iterator[None]:
    """No other run removes or copies stored backups of `plan` for the length of a `with` block.

    Waits up to `patience` seconds for another run to end; then raises AlreadyRunning.
    """
    give_up = time.monotonic() + patience
    refusal = f"No backup of plan {plan} can be removed or copied now, since some are being removed or copied"
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(_held(catalogue, lock_key("removal", plan), holder, refusal))
                break
            except AlreadyRunning:
                if time.monotonic() > give_up:
                    raise
            time.sleep(_RETRY_SECONDS)
        yield


@contextmanager
def alive(catalogue: Dsn, holder: str) -> Iterator[None]:
    """For the length of a `with` block, whatever removes backups sees that run `holder` is alive.

    Without a catalogue that answers there is nothing to see, and nothing is removed.
    """
    with ExitStack() as held:
        with suppress(BackupSystemError):
            held.enter_context(_held(catalogue, lock_key("reader", holder), holder, "This run is alive already"))
        yield


@contextmanager
def restore_lock(dsn: Dsn, holder: str) -> Iterator[None]:
    """No other run backs up or restores the database of `dsn` for the length of a `with` block.

    Raises AlreadyRunning at once when another run does.
    """
    refusal = f"Database {dsn.dbname} cannot be restored now, since it is being backed up or restored"
    with _held(maintenance(dsn), lock_key(DATABASE, dsn.dbname), holder, refusal):
        yield


@contextmanager
def backup_lock(dsn: Dsn, holder: str, refusal: str = "") -> Iterator[None]:
    """No run restores the database of `dsn` for the length of a `with` block; other backups of it may run.

    Raises AlreadyRunning at once when a restore is under way. `refusal`, if given, replaces the beginning of its
    message.
    """
    refusal = refusal or f"Database {dsn.dbname} cannot be backed up now, since it is being restored"
    with _held(maintenance(dsn), lock_key(DATABASE, dsn.dbname), holder, refusal, shared=True):
        yield


@contextmanager
def verify_lock(dsn: Dsn, holder: str, database: str = "") -> Iterator[None]:
    """No other run verifies a backup of the database of `dsn`, or of `database`, there during a `with` block.

    Backups and restores of the database may run meanwhile. What drops scratch databases of dead runs keeps those of a
    run that holds this lock. Raises AlreadyRunning at once when another run verifies.
    """
    database = database or dsn.dbname
    refusal = f"A backup of database {database} is being verified already"
    with _held(maintenance(dsn), lock_key(VERIFY, database), holder, refusal):
        yield


def is_held(server: Connection, kind: str, name: str) -> bool:
    """Whether any session of the server, in whichever database, holds the lock. The question itself takes no lock."""
    with server.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
            " AND (classid::bigint << 32 | objid::bigint) = %s",
            [lock_key(kind, name)],
        )
        (holders,) = cursor.fetchone()
        return bool(holders)


def lock_key(kind: str, name: str) -> int:
    """The 64-bit key of a lock, signed, as PostgreSQL's advisory locks take it. Pure."""
    return int.from_bytes(hashlib.sha256(f"database-backup-system\0{kind}\0{name}".encode()).digest()[:8], signed=True)


@contextmanager
def _held(dsn: Dsn, key: int, holder: str, refusal: str, shared: bool = False) -> Iterator[None]:
    connection = dsn.connect(holder)
    try:
        with dsn.sentences(), within_pg_catalog(connection).cursor() as cursor:
            _notice_dead_clients(connection, cursor)
            if not _take(cursor, key, shared):
                raise AlreadyRunning(f"{refusal}{_holder(cursor, key)}: wait for it to end, or cancel it.")
        yield
    finally:
        connection.close()


def _notice_dead_clients(connection: Connection, cursor: Cursor) -> None:
    for setting in ("tcp_keepalives_idle = 20", "tcp_keepalives_interval = 10", "tcp_keepalives_count = 3"):
        cursor.execute(f"SET {setting}")
    if connection.server_version >= 140000:
        cursor.execute("SET idle_session_timeout = 0")


def _take(cursor: Cursor, key: int, shared: bool) -> bool:
    cursor.execute(f"SELECT pg_try_advisory_lock{'_shared' if shared else ''}(%s)", [key])
    (taken,) = cursor.fetchone()
    return bool(taken)


def _holder(cursor: Cursor, key: int) -> str:
    """` by HOLDER since TIME`, as far as the server lets this role see it."""
    cursor.execute(
        "SELECT a.application_name, a.backend_start FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted AND (l.classid::bigint << 32 | l.objid::bigint) = %s"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " ORDER BY a.backend_start LIMIT 1",
        [key],
    )
    row = cursor.fetchone()
    return f" by {row[0]} since {row[1]:%Y-%m-%d %H:%M:%S %Z}" if row and row[0] and row[1] else ""
