"""The database of a plan: whether it can be reached and wholly read, as the preflight of a backup asks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg2.extensions import connection as Connection

from tasks.backup import preflight
from tasks.backup.source import estimated_plain_size
from tasks.catalogue.schema import labelled_tables
from tasks.health.lines import Line
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import rows, source_session, within_pg_catalog
from tasks.runs.at_once import Answer
from tasks.runs.markdown import human_bytes

NAME = "health check"
CHECK = "Database"


@dataclass(frozen=True)
class DatabaseFacts:
    """What the health check needs to know of a database that answers."""

    version: str
    major: int
    expected_size: int
    """Bytes that a dump will have, about."""
    ahead: timedelta
    """How far its clock is ahead of ours."""
    problems: tuple[str, ...]
    """What stands in the way of a dump: a sentence each."""


def ask_database(dsn: Dsn, clock: Callable[[], datetime]) -> DatabaseFacts:
    """Reads catalogues alone. Raises AccessRefused, BadSetting or Unreachable."""
    with source_session(dsn, NAME) as connection:
        [row] = rows(connection, "SELECT clock_timestamp() AS at")
        ahead = row["at"] - clock()
        excluded = labelled_tables(connection)
        return DatabaseFacts(
            version=str(connection.get_parameter_status("server_version")).split(" ")[0],
            major=connection.server_version // 10_000,
            expected_size=estimated_plain_size(connection, excluded),
            ahead=ahead,
            problems=tuple(preflight.database_problems(connector(dsn), dsn.host, dsn.port, excluded)),
        )


def database_line(dsn: Dsn, answer: Answer[DatabaseFacts]) -> Line:
    """Whether it can be backed up. Pure."""
    if answer.value is None:
        return Line(CHECK, "failed", answer.problem, "Until it answers, nothing is backed up.")
    if answer.value.problems:
        return Line(CHECK, "failed", " ".join(answer.value.problems), "Until then every backup is refused.")
    version, size = answer.value.version, human_bytes(answer.value.expected_size)
    return Line(CHECK, "ok", f"{dsn.place} is PostgreSQL {version}; role {dsn.user} can read all of it (about {size}).")


def connector(dsn: Dsn) -> Callable[[], Connection]:
    """What opens connections for the preflight's questions."""
    return lambda: within_pg_catalog(dsn.connect(NAME))
