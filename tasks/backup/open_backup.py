"""Opens a backup: looks for everything that could stand in its way, clears debris, and writes the row `in_progress`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from psycopg2.extensions import connection as Connection

from tasks.backup import preflight
from tasks.backup.dead_runs import clear_dead_runs
from tasks.backup.source import estimated_plain_size
from tasks.backup.upload import part_size_for
from tasks.names import FULL, backup_filename
from tasks.plans.plan import Plan
from tasks.postgres import tools
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import source_session, within_pg_catalog
from tasks.postgres.tools import Tool
from tasks.runs.problems import Problems
from tasks.storage.backup_stages import BackupRun
from tasks.storage.s3 import SMALLEST_PART
from tasks.storage.spool import clear_dead_spools

NAME = "backup preflight"


@dataclass(frozen=True)
class Ground:
    """What a preflight without a problem has found out."""

    tool: Tool
    excluded: tuple[str, ...]
    expected_size: int


def open_backup(
    plan: Plan,
    run_id: str,
    created_by: str,
    started_at: datetime,
    say: Callable[[str], None],
    backup_type: str = FULL,
) -> BackupRun:
    """A backup whose row is `in_progress`; nothing that could be known beforehand stands in its way.

    `say` is told what was cleared away. Raises PreflightFailed with every problem at once, before there is a row, or
    Unreachable when all that is wrong may pass.
    """
    for dead in clear_dead_spools(plan.spool_directory):
        say(f"The spool of the dead run {dead} was removed.")
    ground = survey(plan)
    for line in clear_dead_runs(plan, run_id, created_by):
        say(line)
    filename = backup_filename(plan.name, run_id, started_at, plan.codec, bool(plan.recipients))
    key = plan.key(filename)
    backup_id = plan.catalogue.open(filename, key, plan.name, run_id, created_by, started_at, backup_type)
    return BackupRun(
        backup_id=backup_id,
        plan=plan.name,
        run_id=run_id,
        filename=filename,
        key=key,
        created_by=created_by,
        started_at=started_at,
        pg_dump=ground.tool.path,
        pg_dump_version=ground.tool.version_text,
        codec=plan.codec,
        encrypted=bool(plan.recipients),
        recipients=plan.recipients,
        part_size=part_size_for(ground.expected_size, plan.most_parts),
        most_parts=plan.most_parts,
        expected_size=ground.expected_size,
        excluded_tables=ground.excluded,
        spool_directory=str(plan.spool_directory),
        spool_limit=plan.spool_limit,
        backup_type=backup_type,
    )


def survey(plan: Plan) -> Ground:
    """Looks at database, tools, catalogue, bucket and disk, changing nothing. Raises as `open_backup`."""
    found = Problems()
    with found:
        plan.catalogue.check()
        found.add(
            preflight.pooler_problems(_connect(plan.catalogue.dsn), plan.catalogue.dsn.host, plan.catalogue.dsn.port)
        )
    with found:
        plan.storage.check_writable(plan.prefix)
    ground = None
    with found:
        ground = _survey_database(plan, found)
    found.raise_any(f"Plan {plan.name} cannot be backed up")
    assert ground is not None
    return ground


def _survey_database(plan: Plan, found: Problems) -> Ground:
    with source_session(plan.database, NAME) as connection:
        excluded: tuple[str, ...] = ()
        with found:
            excluded = plan.catalogue.own_tables_in(connection)
        with found:
            found.add(
                preflight.database_problems(_connect(plan.database), plan.database.host, plan.database.port, excluded)
            )
        expected = estimated_plain_size(connection, excluded)
        found.add(preflight.spool_problems(plan.spool_directory, min(plan.spool_limit, expected + SMALLEST_PART)))
        version = connection.get_parameter_status("server_version")
        at_hand = tools.installed("pg_dump", plan.tools_directory)
        return Ground(tools.choose(at_hand, connection.server_version // 10_000, version), excluded, expected)


def _connect(dsn: Dsn) -> Callable[[], Connection]:
    return lambda: within_pg_catalog(dsn.connect(NAME))
