"""The keys of the locks in `tasks.postgres.locks`, and whether anybody holds one."""

from __future__ import annotations

import hashlib

from psycopg2.extensions import connection as Connection

#: The lock of whoever restores a database, or (shared) backs it up.
DATABASE = "database"
#: The lock of whoever tries a backup out in a scratch database of this name's making.
DRILL = "drill"


def lock_key(kind: str, name: str) -> int:
    """The 64-bit key of one lock, signed, as PostgreSQL takes it. Pure."""
    return int.from_bytes(hashlib.sha256(f"database-backup-system\0{kind}\0{name}".encode()).digest()[:8], signed=True)


def is_held(server: Connection, kind: str, name: str) -> bool:
    """Whether somebody holds the lock, in whatever database of the server; asking takes nothing from anybody."""
    with server.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
            " AND (classid::bigint << 32 | objid::bigint) = %s",
            [lock_key(kind, name)],
        )
        (holders,) = cursor.fetchone()
        return bool(holders)
