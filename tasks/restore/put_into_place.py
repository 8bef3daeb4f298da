"""After the comparison: ANALYZE, the properties of the database, and the swap that makes the restored database live."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from tasks.errors import BackupSystemError
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, rows, source_session
from tasks.restore.apply_properties import apply_properties
from tasks.restore.compare import analyze
from tasks.restore.kept_databases import kept
from tasks.restore.load import catalogue_relations
from tasks.restore.swap import Swapped, swap
from tasks.restore.values import Comparison, Loaded, Restored, RestoreRun

NAME = "restore: finish"


def put_into_place(
    plan: Plan, run: RestoreRun, loaded: Loaded, compared: Comparison, now: Callable[[], datetime]
) -> Restored:
    """The restored database has the name that the run was asked for; the database that it replaced is kept.

    Raises SwapFailed, or what else stands in the way: the live database is as it was then.
    """
    live = plan.database.with_dbname(run.database)
    warnings = [*run.warnings, *loaded.warnings]
    if run.mode == "in_place":
        swapped = Swapped("", 0.0)
    else:
        warnings += _prepare(live, run)
        swapped = _swap(plan, live, run)
    if run.mode == "in_place" or run.request.analyze == "after":
        warnings += _analyze_in_use(live)
    return Restored(
        database=run.database,
        filename=run.backup.filename,
        mode=run.mode,
        kept=swapped.kept,
        rows=compared.rows,
        tables=len(compared.tables),
        seconds=(now() - run.started_at).total_seconds(),
        swap_seconds=swapped.seconds,
        warnings=tuple(warnings),
    )


def _prepare(live: Dsn, run: RestoreRun) -> list[str]:
    """Statistics, grants, settings and limits of the scratch database; a sentence for each problem."""
    problems = []
    if run.request.analyze == "before":
        problems += analyze(live.with_dbname(run.scratch).with_options(_statistics_target(run)))
    with maintenance(live).session(NAME) as server:
        return problems + apply_properties(server, run.scratch, run.ground.like)


def _swap(plan: Plan, live: Dsn, run: RestoreRun) -> Swapped:
    carry: tuple[str, ...] = ()
    if run.mode == "swap" and run.ground.live_exists:
        with source_session(live, NAME) as connection:
            carry = catalogue_relations(plan.catalogue, connection)
    must_be_new = run.mode == "new_database"
    return swap(live, run.database, run.scratch, run.started_at, run.run_id, carry, must_be_new, run.plan)


def _statistics_target(run: RestoreRun) -> dict[str, str]:
    """What the database's own settings say to ANALYZE, which runs before they are applied."""
    settings = [
        setting.partition("=") for own in run.ground.like.settings if own.role is None for setting in own.settings
    ]
    return {name: value for name, _, value in settings if name == "default_statistics_target" and value.isdecimal()}


def _analyze_in_use(live: Dsn) -> list[str]:
    """ANALYZE when all else is done: an error in it does not make the restore a failed one."""
    try:
        return analyze(live)
    except BackupSystemError as error:
        return [f"ANALYZE of {live.dbname} was broken off: run it by hand, or leave it to autovacuum. {error}"]


def has_taken_its_place(plan: Plan, run: RestoreRun) -> bool:
    """Whether the restored database is `run.database` by now, by what the server says; not for the mode in_place.

    For a run that was interrupted: it had begun, so a scratch that is gone has either been dropped or got its name.
    Raises BackupSystemError when the server cannot be asked.
    """
    with maintenance(plan.database.with_dbname(run.database)).session(NAME) as server:
        if run.ground.live_exists:
            return any(database.run_id == run.run_id for database in kept(server, run.database))
        return bool(rows(server, "SELECT FROM pg_database WHERE datname = %(name)s", name=run.database))
