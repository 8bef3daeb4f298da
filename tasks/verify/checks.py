"""The checks of a plan: SQL that must be true of a database that was just restored.

Each is asked in a read-only transaction of its own, never as a superuser. No value of a row is repeated: a check that
fails is named by its number and its own text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import errorcodes
from psycopg2.extensions import connection as Connection

from tasks.errors import CheckFailed, VerifyImpossible
from tasks.plans.plan import Plan
from tasks.postgres.server_errors import condition
from tasks.restore.scratch import scratch_dsn
from tasks.restore.session_roles import READER_SINCE, reader_of
from tasks.restore.values import RestoreRun

NAME = "verify: checks of the plan"
_MINUTES: float = 10
_BOOLEAN = 16  # the type's oid
_STATEMENT = re.compile(r"\s*(SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE)
_SHOWN = 300  # characters of a check
#: SQLSTATEs that say nothing about the data: connections, locks, resources, an operator, the machine, the server.
_AROUND = ("08", "40", "53", "55", "57", "58", "XX")


def run_checks(plan: Plan, run: RestoreRun) -> int:
    """How many checks the plan has; all of them are true of the restored database.

    Raises CheckFailed, which names every check that is not true, or VerifyImpossible where the server alone is why.
    """
    if not plan.checks:
        return 0
    with checking_session(plan, run) as connection:
        answers = [_answer(connection, check) for check in plan.checks]
    failed = [
        f"check {number} of {len(answers)} {answer.text}: {shown(check)}"
        for number, (check, answer) in enumerate(zip(plan.checks, answers, strict=True), 1)
        if answer.text
    ]
    if any(answer.of_the_data for answer in answers):
        raise CheckFailed(f"its content is what was backed up, but {'; '.join(failed)}.")
    if failed:
        raise VerifyImpossible(f"{'; '.join(failed)}.")
    return len(answers)


@contextmanager
def checking_session(plan: Plan, run: RestoreRun) -> Iterator[Connection]:
    """The session in which checks are asked, in the scratch database: as the plan's role, or as a reader.

    A check calls what the database's users made, such as a view. So where the plan's role is a superuser, a role asks
    that can only read, and exists as long as the session. Names in a check are found by the database's search_path.
    """
    if run.ground.is_superuser and run.ground.server_version >= READER_SINCE:
        with reader_of(scratch_dsn(plan, run), NAME) as connection:
            yield _by_search_path(connection)
    else:
        with plan.database.with_dbname(run.scratch).session(NAME) as connection:
            yield _by_search_path(connection)


def _by_search_path(connection: Connection) -> Connection:
    with connection.cursor() as cursor:
        cursor.execute("RESET search_path")
    return connection


@dataclass(frozen=True)
class _Answer:
    text: str = ""
    """Why the check does not pass; empty when it does."""
    of_the_data: bool = False
    """The data or the check itself is why, not the server."""


def _answer(connection: Connection, check: str) -> _Answer:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN READ ONLY")
        try:
            cursor.execute("SELECT pg_catalog.set_config('statement_timeout', %s, true)", [str(int(_MINUTES * 60_000))])
            cursor.execute(f"DECLARE backup_check NO SCROLL CURSOR FOR {as_query(check)}")
            cursor.execute("FETCH 2 FROM backup_check")  # of a million rows, two show that it is not one
            text = _judged([column.type_code for column in cursor.description], cursor.fetchall())
            return _Answer(text, bool(text))
        except psycopg2.Error as error:
            if error.pgcode is None or connection.closed:
                raise
            return _Answer(_refused(error.pgcode), not error.pgcode.startswith(_AROUND))
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK")


def as_query(check: str) -> str:
    """The check as a query; of an expression, its value. Pure."""
    return check if _STATEMENT.match(check) else f"SELECT {check}"


def shown(check: str) -> str:
    """The text of a check for a message: one line, not too long. Pure."""
    line = " ".join(check.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def _judged(types: Sequence[int], rows: Sequence[tuple[Any, ...]]) -> str:
    """Why this answer is not `true`; empty when it is. Repeats no value."""
    if types != [_BOOLEAN]:
        return "does not give one boolean"
    if len(rows) != 1:
        return "gives more than one row" if rows else "gives no row"
    return {True: "", False: "is false"}.get(rows[0][0], "is NULL")


def _refused(sqlstate: str) -> str:
    if sqlstate == errorcodes.QUERY_CANCELED:
        return f"had no answer after {_MINUTES} minutes, or was cancelled"
    return f"ended with an error ({condition(sqlstate)}, SQLSTATE {sqlstate})"
