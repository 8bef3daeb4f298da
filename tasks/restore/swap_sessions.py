"""Sessions in databases that are to be renamed: which there are, which may be ended, and ending them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from psycopg2.extensions import connection as Connection

from tasks.errors import SwapFailed
from tasks.postgres.server import rows

_PATIENCE = 5.0  # seconds
_NAMED_AT_MOST = 5
#: As pg_terminate_backend() decides it. Autovacuum workers, which have no role, go by themselves.
_MAY_END = """
    (current_setting('is_superuser') = 'on'
     OR (NOT coalesce((SELECT rolsuper FROM pg_roles WHERE oid = a.usesysid), true)
         AND (pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))))
"""
#: The databases that a session is about to rename: no new session gets into those.
_RENAMED = """
    SELECT objid AS datid, granted FROM pg_locks
     WHERE pid = %(renamer)s AND locktype = 'object' AND classid = 'pg_database'::regclass
       AND mode = 'AccessExclusiveLock'
"""


def check(server: Connection, databases: Sequence[str]) -> None:
    """Raises SwapFailed, before anything is changed, when a database has sessions that this role may not end.

    They get five seconds to end by themselves.
    """
    if prepared := _prepared(server, databases):
        raise SwapFailed(f"{databases[0]} cannot be swapped: {prepared}; commit or roll them back, then try again.")
    give_up = time.monotonic() + _PATIENCE
    while who := _unendable(server, databases):
        if time.monotonic() > give_up:
            raise SwapFailed(
                f"{databases[0]} cannot be swapped: role {server.info.user} may not end {_named(who)}; "
                f"have those end, or grant it pg_signal_backend."
            )
        time.sleep(0.2)


def end(server: Connection, renamer: int, but_not: int) -> None:
    """Ends the sessions that this role may end, other than `but_not`, in the databases that `renamer` renames."""
    rows(
        server,
        f"""
        SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN ({_RENAMED}) r USING (datid)
         WHERE a.usesysid IS NOT NULL AND a.pid NOT IN (%(spared)s, pg_backend_pid()) AND {_MAY_END}
    """,
        renamer=renamer,
        spared=but_not,
    )


def alone(server: Connection, renamer: int, pid: int) -> bool:
    """Whether `renamer` has locked a database in which the only session left is `pid`."""
    [row] = rows(
        server,
        f"""
        SELECT count(*) = 1 AS mine FROM pg_stat_activity a JOIN ({_RENAMED}) r USING (datid)
         WHERE r.granted AND a.usesysid IS NOT NULL
        HAVING bool_and(a.pid = %(pid)s)
    """,
        renamer=renamer,
        pid=pid,
    ) or [{"mine": False}]
    return bool(row["mine"])


def who_is_in(server: Connection, databases: Sequence[str]) -> str:
    """The sessions in these databases, to be added to the server's message; empty when there are none."""
    there = rows(
        server,
        "SELECT a.pid, a.usename, a.application_name FROM pg_stat_activity a"
        " WHERE a.datname = ANY (%(names)s) ORDER BY a.pid",
        names=list(databases),
    )
    obstacles = [_named(there)] if there else []
    if prepared := _prepared(server, databases):
        obstacles.append(prepared)
    return f"; there are {' and '.join(obstacles)}" if obstacles else ""


def _unendable(server: Connection, databases: Sequence[str]) -> list[dict[str, object]]:
    return rows(
        server,
        f"""
        SELECT a.pid, a.usename, a.application_name FROM pg_stat_activity a
         WHERE a.datname = ANY (%(names)s) AND a.usesysid IS NOT NULL AND NOT {_MAY_END} ORDER BY a.pid
    """,
        names=list(databases),
    )


def _prepared(server: Connection, databases: Sequence[str]) -> str:
    prepared = rows(
        server,
        "SELECT gid FROM pg_prepared_xacts WHERE database = ANY (%(names)s) ORDER BY prepared",
        names=list(databases),
    )
    more = f" and {len(prepared) - _NAMED_AT_MOST} more" if len(prepared) > _NAMED_AT_MOST else ""
    names = ", ".join(row["gid"] for row in prepared[:_NAMED_AT_MOST])
    return f"prepared transactions are open ({names}{more})" if prepared else ""


def _named(sessions: Sequence[dict[str, object]]) -> str:
    def name_of(row: dict[str, object]) -> str:
        name = f" ({row['application_name']})" if row["application_name"] else ""
        return f"{row['pid']} of {row['usename'] or 'the server'}{name}"

    more = f" and {len(sessions) - _NAMED_AT_MOST} more" if len(sessions) > _NAMED_AT_MOST else ""
    return f"session{'s' * (len(sessions) > 1)} {', '.join(map(name_of, sessions[:_NAMED_AT_MOST]))}{more}"
