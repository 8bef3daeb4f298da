"""Opens a backup: looks for everything that could stand in its way, clears debris, and writes the row `in_progress`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg2.extensions import connection as Connection

from tasks.backup import preflight
from tasks.backup.dead_runs import clear_dead_runs
from tasks.backup.dump_errors import prepared_locks
from tasks.backup.left_out import Resolved, left_out
from tasks.backup.row_readers import possible_jobs, wanted_jobs
from tasks.backup.source import estimated_plain_size
from tasks.backup.upload import part_size_for
from tasks.errors import AccessRefused, Problems
from tasks.names import FULL, backup_filename, base_of
from tasks.plans.plan import Plan, check_backs_up, pinned
from tasks.postgres import tools
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import source_session, within_pg_catalog
from tasks.postgres.tools import Tool
from tasks.storage.backup_stages import BackupRun
from tasks.storage.backup_values import NOTHING_LEFT_OUT, LeftOut
from tasks.storage.s3_client import SMALLEST_PART
from tasks.storage.spool import clear_dead_spools
from tasks.stored_backups.store_facts import known_facts

NAME = "backup preflight"


@dataclass(frozen=True)
class Surveyed:
    """What a preflight without a problem returns."""

    tool: Tool
    excluded: tuple[str, ...]
    expected_size: int
    jobs: int
    said: tuple[str, ...] = ()
    left_out: LeftOut = NOTHING_LEFT_OUT


def open_backup(
    plan: Plan,
    run_id: str,
    created_by: str,
    started_at: datetime,
    say: Callable[[str], None],
    backup_type: str = FULL,
) -> BackupRun:
    """Returns a backup whose row is `in_progress`, after a look for everything that could stand in its way.

    `say` gets a line for everything that was cleared. Raises, before there is a row, PreflightFailed with every
    problem, or Unreachable when all of them may pass; BadSetting when no backups are made of the plan.
    """
    if backup_type == FULL:
        check_backs_up(plan)
    else:  # what is about to be replaced is secured whole
        plan = replace(plan, only_schemas=(), exclude_tables=(), exclude_rows=())
    for dead in clear_dead_spools(plan.spool_directory):
        say(f"The spool of the dead run {dead} was removed.")
    surveyed = survey(plan)
    store = known_facts(plan.catalogue, plan.name, plan.storage, plan.prefix, run_id, started_at)
    for line in surveyed.said:
        say(line)
    for line in clear_dead_runs(pinned(plan), run_id, created_by):
        say(line)
    return begin_run(
        plan,
        run_id,
        created_by,
        started_at,
        backup_type,
        most_parts=store.most_parts,
        expected_size=surveyed.expected_size,
        pg_dump=surveyed.tool.path,
        pg_dump_version=surveyed.tool.version_text,
        excluded_tables=surveyed.excluded,
        jobs=surveyed.jobs,
        left_out=surveyed.left_out,
    )


def begin_run(
    plan: Plan,
    run_id: str,
    created_by: str,
    started_at: datetime,
    backup_type: str,
    *,
    most_parts: int,
    expected_size: int,
    **found: Any,
) -> BackupRun:
    """Writes the row `in_progress`; returns the run that is to fill it.

    `most_parts` is what the store takes for one object, and `found` are the fields that the source of the rows decides.
    """
    most_parts = min(plan.most_parts, most_parts)
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
        codec=plan.codec,
        encrypted=bool(plan.recipients),
        recipients=plan.recipients,
        part_size=part_size_for(expected_size, most_parts),
        most_parts=most_parts,
        expected_size=expected_size,
        spool_directory=str(plan.spool_directory),
        spool_limit=plan.spool_limit,
        backup_type=backup_type,
        **found,
    )


@contextmanager
def _with_way_out(plan: Plan) -> Iterator[None]:
    """A database of a server that the role may not read can be left out by the plan: the error says how."""
    try:
        yield
    except AccessRefused as error:
        server = base_of(plan.name)
        if server == plan.name:
            raise
        raise AccessRefused(
            f"{error} Give role {plan.database.user} the right, or leave the database out: add !{plan.database.dbname} "
            f"to databases of plan {server}. If it was dropped while the plan ran, the next run does without it."
        ) from None


def survey(plan: Plan) -> Surveyed:
    """Looks at database, tools, catalogue, bucket and disk, changing nothing. Raises as `open_backup`."""
    problems = Problems()
    with problems:
        plan.catalogue.check()
        with problems:
            plan.catalogue.check_clock()
        problems.add(
            preflight.pooler_problems(_connect(plan.catalogue.dsn), plan.catalogue.dsn.host, plan.catalogue.dsn.port)
        )
    with problems:
        plan.storage.check_writable(plan.prefix)
    surveyed = None
    with problems, _with_way_out(plan):
        surveyed = _survey_database(pinned(plan), problems)
    problems.raise_any(f"Plan {plan.name} cannot be backed up")
    assert surveyed is not None
    return surveyed


def _survey_database(plan: Plan, problems: Problems) -> Surveyed:
    with source_session(plan.database, NAME) as connection:
        excluded: tuple[str, ...] = ()
        with problems:
            excluded = plan.catalogue.own_tables_in(connection)
        part = Resolved()
        with problems:
            part = left_out(connection, plan, excluded)
        not_dumped, emptied = (*excluded, *part.left_out.tables), part.left_out.rows
        with problems:
            problems.add(
                preflight.database_problems(
                    _connect(plan.database), plan.database.host, plan.database.port, not_dumped, emptied
                )
            )
        problems.add(prepared_locks(connection, not_dumped), may_pass=True)
        expected = estimated_plain_size(connection, (*not_dumped, *emptied))
        problems.add(preflight.spool_problems(plan.spool_directory, min(plan.spool_limit, expected + SMALLEST_PART)))
        version = connection.get_parameter_status("server_version")
        at_hand = tools.installed("pg_dump", plan.tools_directory)
        tool = tools.choose(at_hand, connection.server_version // 10_000, version)
        jobs, said = possible_jobs(connection, wanted_jobs(plan.jobs, expected), tool.path)
        return Surveyed(tool, excluded, expected, jobs, (*part.unmatched, *said), part.left_out)


def _connect(dsn: Dsn) -> Callable[[], Connection]:
    return lambda: within_pg_catalog(dsn.connect(NAME))
