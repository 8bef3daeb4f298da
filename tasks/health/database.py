"""The server of a plan's database: whether it can be reached and wholly read, and what restores have left on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg2.extensions import connection as Connection

from tasks.backup import preflight
from tasks.backup.dump_errors import prepared_locks
from tasks.backup.left_out import left_out
from tasks.backup.source import estimated_plain_size
from tasks.catalogue.schema import labelled_tables
from tasks.databases.on_server import Databases
from tasks.health.lines import Line
from tasks.names import database_plan, shown
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, rows, source_session, within_pg_catalog
from tasks.restore.kept_databases import Kept, due, of_plan
from tasks.runs.at_once import Answer
from tasks.runs.markdown import human_bytes

NAME = "health check"
_DATABASE = "Database"
_REPLACED = "Replaced databases"
_UNCOVERED, _MEANT = "Databases that no plan covers", "Databases"


@dataclass(frozen=True)
class DatabaseFacts:
    """What the health check needs to know of a database that answers."""

    place: str
    role: str
    version: str
    major: int
    expected_size: int
    """Bytes that a dump will have, about."""
    ahead: timedelta
    """How far its clock is ahead of ours."""
    problems: tuple[str, ...]
    """What stands in the way of a dump: a sentence each."""


def ask_database(plan: Plan, clock: Callable[[], datetime]) -> DatabaseFacts:
    """Reads catalogues alone. Raises AccessRefused, BadSetting or Unreachable."""
    dsn = plan.database.pinned()
    with source_session(dsn, NAME) as connection:
        [row] = rows(connection, "SELECT clock_timestamp() AS at")
        ahead = row["at"] - clock()
        own = labelled_tables(connection)
        part = left_out(connection, plan, own).left_out
        excluded = (*own, *part.tables)
        problems = preflight.database_problems(connector(dsn), dsn.host, dsn.port, excluded, part.rows)
        return DatabaseFacts(
            place=dsn.place,
            role=dsn.user,
            version=str(connection.get_parameter_status("server_version")).split(" ")[0],
            major=connection.server_version // 10_000,
            expected_size=estimated_plain_size(connection, (*excluded, *part.rows)),
            ahead=ahead,
            problems=(*problems, *prepared_locks(connection, excluded)),
        )


def database_line(answer: Answer[DatabaseFacts]) -> Line:
    """Whether it can be backed up. Pure."""
    if answer.value is None:
        return Line(_DATABASE, "failed", answer.problem, "Until it answers, nothing is backed up.")
    if answer.value.problems:
        return Line(_DATABASE, "failed", " ".join(answer.value.problems), "Until then every backup is refused.")
    facts, size = answer.value, human_bytes(answer.value.expected_size)
    return Line(
        _DATABASE,
        "ok",
        f"{facts.place} is PostgreSQL {facts.version}; role {facts.role} can read all of it (about {size}).",
    )


def uncovered_line(answer: Answer[list[str]]) -> Line:
    """Whether a plan backs up each database of the server. Pure."""
    if answer.value is None:
        return Line(_UNCOVERED, "warning", f"Not known: {answer.problem}", "Solve that first.")
    if not answer.value:
        return Line(_UNCOVERED, "ok", "None.")
    return Line(
        _UNCOVERED,
        "warning",
        f"{len(answer.value)} on this server: {_first(answer.value)}.",
        "Make a plan for each (backups plan add), or one whose databases mean them.",
    )


def meant_line(answer: Answer[Databases], plan: Plan, known: Collection[str]) -> Line:
    """Which databases the plan of a server means; `known` are its plans that have been backed up. Pure."""
    if answer.value is None:
        return Line(_MEANT, "failed", answer.problem, "Until it answers, nothing is backed up.")
    meant = [database_plan(plan.name, name) for name in answer.value.meant_by(plan)]
    if not meant:
        return Line(_MEANT, "failed", "The server has none that the plan means.", "Correct databases in the plan.")
    new = [name for name in meant if name not in known]
    if new:
        what = f"{len(meant)} are meant, {len(new)} of them never backed up so far: {_first(new)}."
        return Line(
            _MEANT,
            "warning",
            what,
            "The next backup of the plan makes their first; where it does not, see its runs in the Prefect UI.",
        )
    return Line(_MEANT, "ok", f"{len(meant)} are meant, and all of them have been backed up.")


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def connector(dsn: Dsn) -> Callable[[], Connection]:
    """What opens connections for the preflight's questions."""
    return lambda: within_pg_catalog(dsn.connect(NAME))


def ask_kept(plan: Plan) -> list[Kept]:
    """The kept databases of the plan, newest first. Raises AccessRefused, BadSetting or Unreachable."""
    database = plan.database.pinned()
    with maintenance(database).session(NAME) as server:
        return of_plan(server, plan.name, database.dbname)


def kept_line(answer: Answer[list[Kept]], now: datetime, days: int) -> Line:
    """Whether databases are still there that cleanup should have dropped. Pure."""
    if answer.value is None:
        return Line(_REPLACED, "warning", f"They could not be looked for: {answer.problem}", "Solve that first.")
    if not answer.value:
        return Line(_REPLACED, "ok", "None.")
    overdue = due(answer.value, now, days)
    if overdue:
        return Line(
            _REPLACED,
            "warning",
            f"{len(overdue)} of {len(answer.value)} {_are(overdue)} older than {days} days and "
            f"still there ({_size(overdue)}): {', '.join(database.name for database in overdue[:5])}.",
            "The next backup drops them; cleanup/clean-up-now does so now.",
        )
    return Line(
        _REPLACED,
        "ok",
        f"{len(answer.value)} kept for undo-restore ({_size(answer.value)}); each goes after {days} days.",
    )


def _are(databases: Sequence[Kept]) -> str:
    return "is" if len(databases) == 1 else "are"


def _size(databases: Sequence[Kept]) -> str:
    known = [database.size for database in databases if database.size is not None]
    size = human_bytes(sum(known))
    return size if len(known) == len(databases) else f"at least {size}"
