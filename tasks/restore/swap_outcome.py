"""Whether a swap has come about whose COMMIT was not answered."""

from __future__ import annotations

import time

from tasks.errors import Unreachable
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import rows

_PATIENCE = 60.0  # seconds


def is_done(server: Dsn, pid: int, application: str, incoming_oid: int, database: str) -> bool:
    """Asks the server, once the session `pid` that was to commit is gone, what the database is called.

    Raises Unreachable, which says that nobody can tell, when the server does not answer within a minute.
    """
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            with server.session("restore: outcome of a swap") as connection:
                if not rows(
                    connection,
                    "SELECT FROM pg_stat_activity WHERE pid = %(pid)s AND application_name = %(a)s",
                    pid=pid,
                    a=application,
                ):
                    found = rows(connection, "SELECT datname FROM pg_database WHERE oid = %(oid)s", oid=incoming_oid)
                    return [row["datname"] for row in found] == [database]
        except Unreachable as error:
            if time.monotonic() > give_up:
                raise Unreachable(
                    f"The connection broke while {database} was swapped, so it is either the old database or the "
                    f"restored one, whole in both cases: look at it. {error}"
                ) from None
        if time.monotonic() > give_up:
            raise Unreachable(f"The swap of {database} is neither done nor given up by the server: look at it again.")
        time.sleep(0.2)
