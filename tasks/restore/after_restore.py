"""The statements of a plan that run in what is restored from another plan, before it is put into place.

They mask what its readers must not see, and switch off what must not run there. All are one transaction, in the scratch
database: when one fails, nothing is put into place. No message repeats a statement, or a value of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS
from psycopg2.extensions import connection as Connection

from tasks.errors import RestoreRefused
from tasks.plans.plan import Plan
from tasks.postgres.server import on, rows
from tasks.postgres.server_errors import condition
from tasks.restore.scratch import scratch_dsn
from tasks.restore.session_roles import writer_of
from tasks.restore.values import RestoreRun

NAME = "restore: after_restore"
#: Names are found by the search_path of the database. Some statements change every row.
_LIMITS = "RESET search_path; SET statement_timeout = 0; SET default_transaction_read_only = off"


def run_after_restore(plan: Plan, run: RestoreRun) -> None:
    """Every statement of the plan that is restored into has run in the scratch database, where there are any.

    Raises RestoreRefused, which names the first that failed by its number. The database that would be replaced is as
    it was.
    """
    if not run.after_restore:
        return
    with _session(plan, run) as connection:
        for words in (_LIMITS, "BEGIN"):
            _sqlstate(connection, words)
        for number, statement in enumerate(plan.after_restore, 1):
            what = f"Statement {number} of {run.after_restore}"
            _refuse(run, what, _sqlstate(connection, statement))
            if connection.info.transaction_status != TRANSACTION_STATUS_INTRANS:
                raise _refusal(run, what, "ends the transaction of all")
        _refuse(run, "What is checked at the end of the transaction", _sqlstate(connection, "COMMIT"))


@contextmanager
def _session(plan: Plan, run: RestoreRun) -> Iterator[Connection]:
    """The session in which the statements run: of the plan's role, or where that is a superuser, of a role without its
    rights. What they change may call what the users of the backed-up database have written, such as a trigger.
    """
    owner = run.ground.like.owner
    if run.ground.is_superuser:
        with writer_of(scratch_dsn(plan, run), NAME, owner) as connection:
            yield connection
        return
    with plan.database.with_dbname(run.scratch).session(NAME) as connection:
        if rows(connection, "SELECT FROM pg_roles WHERE rolname = current_user AND rolname <> %(o)s", o=owner):
            with connection.cursor() as cursor:
                cursor.execute(on("SET ROLE {d}", owner))
        yield connection


def _sqlstate(connection: Connection, statement: str) -> str:
    """Runs a statement; the SQLSTATE of the server's error, whose texts may repeat values, or nothing."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    except psycopg2.Error as error:
        if error.pgcode is None or connection.closed:
            raise
        return str(error.pgcode)
    return ""


def _refuse(run: RestoreRun, what: str, sqlstate: str) -> None:
    if sqlstate:
        raise _refusal(run, what, f"failed: {condition(sqlstate)} (SQLSTATE {sqlstate})")


def _refusal(run: RestoreRun, what: str, how: str) -> RestoreRefused:
    return RestoreRefused(
        f"{what} in after_restore of plan {run.receiver} {how}. Nothing was put into place: correct the statement in "
        "the plan, and restore again."
    )
