"""After the comparison: after_restore, ANALYZE, the properties of the database, and the swap; and its undoing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from tasks.errors import BackupNotFound, BackupSystemError
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, rows, source_session
from tasks.restore.after_restore import run_after_restore
from tasks.restore.apply_properties import apply_properties
from tasks.restore.compare import analyze
from tasks.restore.entries import is_named
from tasks.restore.kept_databases import kept
from tasks.restore.load import catalogue_relations
from tasks.restore.scratch import scratch_dsn
from tasks.restore.swap import Swapped, swap
from tasks.restore.values import Comparison, Loaded, Restored, RestoreRun, Undone

NAME = "restore: finish"


def put_into_place(
    plan: Plan, run: RestoreRun, loaded: Loaded, compared: Comparison, now: Callable[[], datetime]
) -> Restored:
    """The restored database has the name that the run was asked for; the database that it replaced is kept.

    Raises SwapFailed, or what else stands in the way: the live database is as it was then.
    """
    live = plan.database.with_dbname(run.database)
    warnings = [*run.warnings, *loaded.warnings, *(f"{name} was left out." for name in _named(run, loaded))]
    if run.request.schemas:
        warnings.append(f"Of the schemas, only {', '.join(run.request.schemas)} came back, as asked for.")
    warnings += compared.warnings
    if run.mode == "in_place":
        swapped = Swapped("", 0.0)
    else:
        run_after_restore(plan, run)
        warnings += _prepare(plan, live, run)
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


def _named(run: RestoreRun, loaded: Loaded) -> list[str]:
    """The entries that were left out, but those of kinds and schemas that nobody asked for."""
    if run.request.schemas:
        return [name for name in loaded.left_out if is_named(name, run.request.without)]
    unwanted = tuple(f"{kind} " for kind in run.request.kinds_left_out)
    return [name for name in loaded.left_out if not (unwanted and name.startswith(unwanted))]


def _prepare(plan: Plan, live: Dsn, run: RestoreRun) -> list[str]:
    """Statistics, grants, settings and limits of the scratch database; a sentence for each problem."""
    problems = []
    if run.request.analyze == "before":
        problems += analyze(scratch_dsn(plan, run).with_options(_statistics_target(run)))
    with maintenance(live).session(NAME) as server:
        return problems + apply_properties(server, run.scratch, run.ground.like)


def _swap(plan: Plan, live: Dsn, run: RestoreRun) -> Swapped:
    carry: tuple[str, ...] = ()
    if run.mode == "swap" and run.ground.live_exists:
        with source_session(live, NAME) as connection:
            carry = catalogue_relations(plan.catalogue, connection)
    must_be_new = run.mode == "new_database"
    return swap(live, run.database, run.scratch, run.started_at, run.run_id, carry, must_be_new, run.receiver)


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


def undo(plan: Plan, target: str, run_id: str, at: datetime) -> Undone:
    """The newest kept database of `target` (the plan's own when empty) is live again; the live one is kept in turn.

    Raises BackupNotFound when none is kept, else as the swap.
    """
    live = plan.database.with_dbname(target or plan.database.dbname)
    with maintenance(live).session(NAME) as server:
        live_exists = rows(server, "SELECT FROM pg_database WHERE datname = %(name)s", name=live.dbname)
    carry: tuple[str, ...] = ()
    if live_exists:
        with source_session(live, NAME) as connection:
            carry = catalogue_relations(plan.catalogue, connection)
    swapped = swap_back(live, live.dbname, at, run_id, carry, plan.name)
    return Undone(live.dbname, swapped.kept, swapped.seconds)


def swap_back(dsn: Dsn, database: str, at: datetime, run_id: str, carry: Sequence[str] = (), plan: str = "") -> Swapped:
    """The swap that undoes a restore; its parameters are those of `swap`. Raises BackupNotFound when none is kept."""
    with maintenance(dsn).session(NAME) as server:
        newest_first = kept(server, database)
    if not newest_first:
        raise BackupNotFound(
            f"No database is kept that {database} could be swapped back to: cleanup drops replaced databases after "
            "some days. Restore a backup instead."
        )
    return swap(dsn, database, newest_first[0].name, at, run_id, carry, plan=plan, replaced_by="undo-restore")
