"""The steps of a restore and of its undoing, in the order in which the flows take them."""

from __future__ import annotations

from prefect import task

from tasks.alarms.run_reports import report_event
from tasks.errors import Transient
from tasks.plans.find_plan import plan_named
from tasks.plans.plan import pinned
from tasks.restore import put_into_place as placing
from tasks.restore import validate as validation
from tasks.restore.compare import compare_run
from tasks.restore.into import plan_of, receiver_of, refuse_itself, restoring
from tasks.restore.kept_databases import drop_due
from tasks.restore.load import load, parts_of
from tasks.restore.restore_report import restore_report, undo_report
from tasks.restore.safeguards import Milestones, note_outcome
from tasks.restore.values import Comparison, Loaded, Restored, RestoreRequest, RestoreRun, Undone
from tasks.restore.where import at
from tasks.runs.audit import audit, failure_recorded, run_event
from tasks.runs.markdown import cell, human_bytes
from tasks.runs.reporting import created_by, current_run_id, now, progress, publish, run_started_at, say, warn
from tasks.runs.retries import RETRIED, STEP
from tasks.storage.spool import Spool


@task(name="validate", **RETRIED)
def validate(plan: str, request: RestoreRequest, requested_by: str) -> RestoreRun:
    """Finds the backup, proves its manifest, and looks for everything that could stand in the way."""
    actor, receiver = created_by(requested_by), receiver_of(request.into)
    with failure_recorded("restore", receiver or plan, requested_by, but_not=Transient, **request.details()):
        source, settings = plan_named(plan), restoring(plan, request.into)
        refuse_itself(source, settings, request)
        run = validation.validate(
            settings,
            request,
            current_run_id(),
            actor,
            run_started_at(),
            warn,
            source=source,
            receiver=receiver,
        )
    for warning in run.warnings:
        warn(warning)
    say(
        f"{run.backup.filename} of {run.backup.created_at:%Y-%m-%d %H:%M:%S} UTC ({human_bytes(run.backup.size)}, "
        f"{run.backup.rows:,} rows) will be restored as {run.database} (mode {run.mode}) with psql {run.psql_version} "
        f"for {actor}."
    )
    if request.into:
        after = f"; {run.after_restore} statements of its after_restore run before that" if run.after_restore else ""
        say(f"The backup of plan {plan} is restored into {request.into}, at {settings.database.place}{after}.")
    return run


@task(name="download", **RETRIED)
def download(run: RestoreRun, parts: Spool) -> int:
    """Fetches and proves part after part while psql reads them. Another try fetches only what psql still needs."""
    incoming = parts_of(plan_of(run), run, parts)
    with progress(f"Downloading {run.backup.filename}", incoming.size) as show:
        fetched = incoming.prefetch(show)
    say(f"Downloaded {human_bytes(fetched)}; every part has the SHA-256 of the manifest.")
    return fetched


@task(name="psql", **RETRIED)
def psql(run: RestoreRun, parts: Spool, milestones: Milestones | None = None) -> Loaded:
    """Feeds the proved text to psql. Another try begins anew, with nothing left of this one."""
    with progress(f"Restoring {run.backup.filename}", run.backup.plain_size) as show:
        loaded = load(at(plan_of(run), run.place), run, parts, show, say)
    if milestones is not None:
        milestones.committed.set()
    for warning in loaded.warnings:
        warn(f"Message of the server: {warning}")
    say(
        f"Restored {human_bytes(loaded.plain_size)} of SQL into {run.scratch} in {loaded.seconds:.1f} s "
        f"({loaded.plain_size / max(loaded.seconds, 0.001) / 1e6:.0f} MB/s)."
    )
    return loaded


@task(name="compare", **RETRIED)
def compare(run: RestoreRun, loaded: Loaded) -> Comparison:
    """Counts the rows of every restored table. Raises RowsDiffer; the live database is as it was."""
    compared = compare_run(at(plan_of(run), run.place), run, loaded)
    say(f"{len(compared.tables)} tables have the {compared.rows:,} rows that they must have.")
    return compared


@task(name="swap", **STEP)
def swap(run: RestoreRun, loaded: Loaded, compared: Comparison) -> Restored:
    """The restored database gets owner, grants and settings of the old one, then its name, in one transaction."""
    done = placing.put_into_place(pinned(plan_of(run)), run, loaded, compared, now)
    for warning in done.warnings:
        if warning not in run.warnings:  # those are in the log since the beginning
            warn(warning)
    if done.kept:
        say(
            f"{done.database} is the restored database; it took no connections for {done.swap_seconds * 1000:.0f} ms. "
            f"The replaced database is kept as {done.kept}; undo-restore brings it back."
        )
    return done


@task(name="record", **RETRIED)
def record_restore(run: RestoreRun, compared: Comparison, done: Restored, milestones: Milestones) -> Restored:
    """Writes the audit, emits the event, and publishes the result with the rows of every table."""
    note_outcome(run, "completed", done.seconds, done=done)
    milestones.recorded.set()
    payload: dict[str, object] = {
        "database": done.database,
        "filename": done.filename,
        "mode": done.mode,
        "rows": done.rows,
    }
    if run.request.into:
        payload |= {"from": run.plan, "into": run.request.into}
    report_event("restore.completed", run.receiver, run.receiver, **payload)
    publish(f"restore-{run.receiver}", f"Restore of {run.backup.filename}", restore_report(run, compared, done))
    say(f"{done.filename} is restored as {done.database}.")
    if run.into_plan:
        _clear_kept(run)
    return done


def _clear_kept(run: RestoreRun) -> None:
    """What earlier restores have replaced there goes when it is due: that plan may never make a backup."""
    plan = plan_of(run)
    dropped, problems = drop_due(pinned(plan).database, run.receiver, now(), plan.kept_days)
    for name in dropped:
        say(f"{name} was dropped: it was kept for {plan.kept_days} days.")
    for problem in problems:
        warn(problem)


@task(name="undo", **STEP)
def undo(plan: str, target: str) -> Undone:
    """The database that the last restore replaced takes its place again, in one transaction."""
    done = placing.undo(pinned(plan_named(plan)), target, current_run_id(), run_started_at())
    say(
        f"{done.database} is what it was before the restore; it took no connections for "
        f"{done.seconds * 1000:.0f} ms. The restored database is kept as {done.kept}."
    )
    return done


@task(name="record", **RETRIED)
def record_undo(plan: str, done: Undone, requested_by: str) -> Undone:
    """Writes the audit, emits the event, and publishes the result of an undone restore."""
    event = run_event("undo-restore", "completed", plan, requested_by, target=done.database, kept=done.kept)
    audit(plan_named(plan).catalogue, event)
    report_event("restore.undone", plan, plan, database=done.database, kept=done.kept)
    publish(f"restore-{plan}", f"Undone restore of {cell(done.database)}", undo_report(done))
    return done
