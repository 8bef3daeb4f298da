"""The swap: a database takes the place of another one in a single transaction that changes both names.

ALTER DATABASE … RENAME takes a lock on the live database for which every new connection waits, and then itself waits
up to five seconds for the sessions in it to go. Meanwhile a second connection ends those. Nothing is committed until
both names have changed: a program that dies on the way leaves both databases as they were.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from tasks.errors import SwapFailed, Unreachable
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, on, primary, rows
from tasks.restore import swap_sessions
from tasks.restore.carry import Lines, carried
from tasks.restore.labels import Label, kept_name, own_comment

NAME = "restore: swap"
_LOOKS_EVERY = 0.01  # seconds
_OUTCOME_PATIENCE = 60.0  # seconds
#: Whatever happens to this program, its machine or the network, the live database is free again after this long.
_LIMITS = (
    # New connections to both databases wait for this transaction, whose statements follow each other at once. If this
    # process is frozen between them, the server ends it after that time, and everything is as it was.
    "SET idle_in_transaction_session_timeout = '3s'",
    "SET statement_timeout = '20s'",
    "SET lock_timeout = '10s'",
    "SET synchronous_commit = on",
    "SET tcp_keepalives_idle = 5",
    "SET tcp_keepalives_interval = 2",
    "SET tcp_keepalives_count = 3",
)


@dataclass(frozen=True)
class Swapped:
    """A swap that is done."""

    kept: str
    """What the replaced database is called now; empty when there was none."""
    seconds: float
    """How long the database took no new connections, from the first that had to wait to the commit."""


@dataclass(frozen=True)
class _Pair:
    """The two databases as they are before the swap, and what they will be called."""

    database: str
    incoming: str
    incoming_oid: int
    comment: str | None
    """What the comment of the incoming one will be."""
    live_oid: int | None
    label: Label | None
    """What the live one will be labelled; None when there is none."""


def swap(
    dsn: Dsn,
    database: str,
    incoming: str,
    at: datetime,
    run_id: str,
    carry: Sequence[str] = (),
    must_be_new: bool = False,
    plan: str = "",
    replaced_by: str = "restore",
) -> Swapped:
    """`incoming` becomes `database`; the database of that name until now is kept, under a new name, with a label.

    The label names `plan`, whose cleanup drops it. `carry` are the catalogue's relations in the live database
    (`Catalogue.own_tables_in`), which are copied as they are at the moment of the swap. With `must_be_new`, there must
    be no database called `database` yet. Sessions in both databases are ended.
    Raises SwapFailed when a session or a prepared transaction cannot be ended, AccessRefused when a privilege is
    missing; both databases are as they were then. Raises Unreachable when the server went away; the message says
    whether that was before the swap, or at a moment when the outcome is unknown.
    """
    server = maintenance(dsn)
    if server.dbname in (database, incoming):
        raise SwapFailed(
            f"Role {dsn.user} can connect to no other database of the server than {database}, and a session cannot "
            "rename the database that it is in: let it connect to the database postgres, or restore with the mode "
            "in_place."
        )
    with server.session(NAME) as watcher:
        pair = _pair(watcher, database, incoming, at, run_id, plan, replaced_by)
        if must_be_new and pair.live_oid is not None:
            raise SwapFailed(f"There is a database {database} already: drop it, or choose another name.")
        swap_sessions.check(watcher, [database, incoming])
        with carried(dsn, database, incoming, carry if pair.live_oid else ()) as lines:
            return _swap(server, watcher, pair, lines)


def _pair(
    server: Connection, database: str, incoming: str, at: datetime, run_id: str, plan: str, replaced_by: str
) -> _Pair:
    databases = rows(
        server,
        "SELECT oid::bigint, datname, datconnlimit <> -2 AND datallowconn AS is_open,"
        " shobj_description(oid, 'pg_database') AS c FROM pg_database",
    )
    known = {row["datname"]: row for row in databases}
    if incoming not in known:
        raise SwapFailed(f"There is no database {incoming} that could become {database}: restore again.")
    if not known[incoming]["is_open"]:
        raise SwapFailed(
            f"{incoming} cannot become {database}, since it takes no connections: it is half dropped, or "
            "somebody has closed it (ALTER DATABASE … ALLOW_CONNECTIONS true opens it)."
        )
    comment = own_comment(incoming, known[incoming]["c"])
    if database not in known:
        return _Pair(database, incoming, known[incoming]["oid"], comment, None, None)
    label = Label(
        "kept",
        kept_name(database, at, known),
        database,
        at,
        run_id,
        own_comment(database, known[database]["c"]),
        plan,
        replaced_by,
    )
    return _Pair(database, incoming, known[incoming]["oid"], comment, known[database]["oid"], label)


def _swap(server: Dsn, watcher: Connection, pair: _Pair, lines: Lines | None) -> Swapped:
    with server.session(NAME) as renamer, _refusals_explained(watcher, pair):
        _execute(renamer, *_LIMITS)
        if renamer.server_version >= 140000:
            _execute(
                renamer,
                "SELECT set_config('client_connection_check_interval', '500ms', false) WHERE version() LIKE '%linux%'",
            )
        pid = renamer.info.backend_pid
        began = time.monotonic()
        with _in_background(renamer, pair) as renaming:
            while not renaming.done():
                swap_sessions.end(watcher, pid, but_not=lines.pid if lines else 0)
                if lines and swap_sessions.alone(watcher, pid, lines.pid):
                    lines.release()
                    lines = None
                wait([renaming], _LOOKS_EVERY)
            renaming.result()
        if lines:
            raise SwapFailed(f"The catalogue's rows in {pair.database} could not be guarded: restore again.")
        try:
            _execute(renamer, "COMMIT")
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            if not is_done(server, pid, NAME, pair.incoming_oid, pair.database):
                raise
        return Swapped(pair.label.name if pair.label else "", time.monotonic() - began)


@contextmanager
def _in_background(renamer: Connection, pair: _Pair) -> Iterator[Future[None]]:
    """Both renames, in a thread during the block; cancelled when the block is left before their end."""
    with ThreadPoolExecutor(1) as pool:
        renaming = pool.submit(_rename_both, renamer, pair)
        try:
            yield renaming
        finally:
            if not renaming.done():
                renamer.cancel()


def _rename_both(renamer: Connection, pair: _Pair) -> None:
    with renamer.cursor() as cursor:
        cursor.execute("BEGIN READ WRITE")
        if pair.label:
            cursor.execute(on("ALTER DATABASE {d} RENAME TO {n}", pair.database, n=pair.label.name))
            cursor.execute(on("COMMENT ON DATABASE {d} IS ", pair.label.name) + sql.Literal(pair.label.text()))
        cursor.execute(on("ALTER DATABASE {d} RENAME TO {n}", pair.incoming, n=pair.database))
        cursor.execute(on("COMMENT ON DATABASE {d} IS ", pair.database) + sql.Literal(pair.comment))
        cursor.execute(
            "SELECT count(*) FROM pg_database WHERE (oid, datname::text) IN ((%s, %s), (%s, %s))",
            [pair.incoming_oid, pair.database, pair.live_oid, pair.label.name if pair.label else ""],
        )
        if cursor.fetchone() != (2 if pair.label else 1,):
            raise SwapFailed(f"Somebody else has renamed {pair.database} or {pair.incoming} meanwhile: try again.")


@contextmanager
def _refusals_explained(watcher: Connection, pair: _Pair) -> Iterator[None]:
    """An error of the server against the renames is raised as SwapFailed, which names the sessions in the way."""
    try:
        yield
    except psycopg2.errors.InsufficientPrivilege:
        raise
    except psycopg2.Error as error:
        if error.pgcode is None or error.pgcode.startswith(("57P", "08")) or watcher.closed:
            raise
        who = swap_sessions.who_is_in(watcher, [pair.database, pair.incoming])
        raise SwapFailed(
            f"{pair.database} could not be swapped ({primary(error)}){who}; it is as it was: try again "
            "when nothing stands in the way."
        ) from None


def _execute(connection: Connection, *statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def is_done(server: Dsn, pid: int, application: str, incoming_oid: int, database: str) -> bool:
    """Whether a swap was committed whose COMMIT was not answered: asked when the session `pid` has ended.

    Raises Unreachable, which says that the outcome is unknown, when the server does not answer within a minute.
    """
    give_up = time.monotonic() + _OUTCOME_PATIENCE
    while True:
        try:
            with server.session("restore: outcome of a swap") as connection:
                if not rows(
                    connection,
                    "SELECT FROM pg_stat_activity WHERE pid = %(pid)s AND application_name = %(a)s",
                    pid=pid,
                    a=application,
                ):
                    names = rows(connection, "SELECT datname FROM pg_database WHERE oid = %(oid)s", oid=incoming_oid)
                    return [row["datname"] for row in names] == [database]
        except Unreachable as error:
            if time.monotonic() > give_up:
                raise Unreachable(
                    f"The connection broke while {database} was swapped, so it is either the old database or the "
                    f"restored one, whole in both cases: look at it. {error}"
                ) from None
        if time.monotonic() > give_up:
            raise Unreachable(f"The swap of {database} is neither done nor given up by the server: look at it again.")
        time.sleep(0.2)
