"""After psql: compare, dress, analyse, and let the restored database take its place."""

from __future__ import annotations

from datetime import datetime

from tasks.errors import BackupSystemError
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, rows, source_session
from tasks.restore import compare as comparing
from tasks.restore.databases import dress
from tasks.restore.kept import kept
from tasks.restore.load import catalogue_relations
from tasks.restore.swap import Swapped, swap
from tasks.restore.values import Comparison, Loaded, Restored, RestoreRun

NAME = "restore: finish"


def compare(plan: Plan, run: RestoreRun, loaded: Loaded) -> Comparison:
    """Every table that was restored has the rows that the manifest says. Raises RowsDiffer.

    In place, they were counted before the COMMIT: counted now, they would be those of the users as well.
    """
    if run.mode == "in_place":
        return Comparison(loaded.counted)
    if run.tables and not run.chosen:  # a partitioned table without partitions has no rows
        return Comparison(())
    return comparing.compare(plan.database.with_dbname(run.scratch), run.backup, run.chosen)


def _targets(run: RestoreRun) -> dict[str, str]:
    """What the database's own settings say to ANALYZE: they are laid down after it, with a connection limit, too."""
    found = (one.partition("=") for own in run.like.settings if own.role is None for one in own.settings)
    return {name: value for name, _, value in found if name == "default_statistics_target" and value.isdecimal()}


def _analyze_in_use(live: Dsn) -> list[str]:
    """ANALYZE when all else is done: whatever goes wrong with it, the restore is no failed one."""
    try:
        return comparing.analyze(live)
    except BackupSystemError as error:
        return [f"ANALYZE of {live.dbname} was broken off: run it by hand, or leave it to autovacuum. {error}"]


def has_taken_its_place(plan: Plan, run: RestoreRun) -> bool:
    """Whether the restored database is `run.database` by now, by what the server says; not for the mode in_place.

    For a run that was interrupted: it had begun, so a scratch that is gone has either been dropped or got its name.
    Raises BackupSystemError when the server cannot be asked.
    """
    with maintenance(plan.database.with_dbname(run.database)).session(NAME) as server:
        if run.live_exists:
            return any(one.run_id == run.run_id for one in kept(server, run.database))
        return bool(rows(server, "SELECT FROM pg_database WHERE datname = %(name)s", name=run.database))


def put_into_place(plan: Plan, run: RestoreRun, loaded: Loaded, compared: Comparison, at: datetime) -> Restored:
    """The restored database is what the run was to bring about; what it replaced is kept.

    Raises SwapFailed, or what else stands in the way: the live database is as it was then.
    """
    live, scratch = plan.database.with_dbname(run.database), plan.database.with_dbname(run.scratch)
    warnings = [*run.warnings, *loaded.warnings]
    swapped = Swapped("", 0.0)
    if run.mode == "in_place":
        warnings += _analyze_in_use(live)
    else:
        if run.analyze == "before":
            warnings += comparing.analyze(scratch.with_options(_targets(run)))
        with maintenance(live).session(NAME) as server:
            warnings += dress(server, run.scratch, run.like)
        carry: tuple[str, ...] = ()
        if run.mode == "swap" and run.live_exists:
            with source_session(live, NAME) as connection:
                carry = catalogue_relations(plan.catalogue, connection)
        swapped = swap(
            live,
            run.database,
            run.scratch,
            at,
            run.run_id,
            carry,
            must_be_new=run.mode == "new_database",
            plan=run.plan,
        )
        if run.analyze == "after":
            warnings += _analyze_in_use(live)
    return Restored(
        database=run.database,
        filename=run.backup.filename,
        mode=run.mode,
        kept=swapped.kept,
        rows=compared.rows,
        tables=len(compared.tables),
        seconds=0.0,
        swap_seconds=swapped.seconds,
        warnings=tuple(warnings),
    )
