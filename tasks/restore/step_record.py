"""The steps that record a restore, and its undoing."""

from __future__ import annotations

from prefect import task
from prefect.events import emit_event

from tasks.catalogue.events import Event
from tasks.plans.find_plan import plan_named
from tasks.restore.step_surround import recorded
from tasks.restore.values import Comparison, Restored, RestoreRun
from tasks.runs.audit import audit
from tasks.runs.markdown import cell
from tasks.runs.reporting import created_by, current_run_id, publish, say
from tasks.runs.retries import RETRIED

_ROWS_SHOWN = 1000


@task(name="record", **RETRIED)
def record_restore(run: RestoreRun, compared: Comparison, done: Restored) -> Restored:
    """Writes the audit, tells Prefect's events, and publishes the result with every table's rows."""
    details = {
        **run.details(),
        "kept": done.kept,
        "rows": done.rows,
        "table_count": done.tables,
        "swap_seconds": round(done.swap_seconds, 4),
        "warnings": list(done.warnings),
    }
    audit(
        plan_named(run.plan).catalogue,
        Event(
            "restore",
            "completed",
            run.plan,
            run.actor,
            run.run_id,
            run.backup.backup_id,
            run.backup.filename,
            done.seconds,
            run.backup.size,
            details=details,
        ),
    )
    recorded(run)
    _tell("restore.completed", run.plan, done)
    publish(f"restore-{run.plan}", f"Restore of {run.backup.filename}", summary(run, compared, done))
    say(f"{done.filename} is restored as {done.database}.")
    return done


@task(name="record", **RETRIED)
def record_undo(plan: str, done: Restored, requested_by: str) -> Restored:
    """Writes the audit and the result of an undone restore."""
    audit(
        plan_named(plan).catalogue,
        Event(
            "undo-restore",
            "completed",
            plan,
            created_by(requested_by),
            current_run_id(),
            duration_seconds=done.seconds,
            details={"target": done.database, "kept": done.kept},
        ),
    )
    _tell("restore.undone", plan, done)
    publish(f"restore-{plan}", f"Undone restore of {cell(done.database)}", undo_summary(done))
    return done


def summary(run: RestoreRun, compared: Comparison, done: Restored) -> str:
    """A restore as markdown: what, from where, and the rows of every table, expected and found. Pure."""
    facts = {
        "Database": cell(done.database),
        "Backup": f"`{run.backup.filename}` of {run.backup.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "Mode": done.mode,
        "Rows": f"{compared.rows:,} in {len(compared.tables):,} tables, all as backed up",
        "Duration": f"{done.seconds:.1f} s",
    }
    if done.kept:
        facts["Kept"] = f"{cell(done.kept)}: what was there before; undo-restore brings it back"
        facts["No connections for"] = f"{done.swap_seconds * 1000:.0f} ms"
    lines = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    notes = "".join(f"\n- {cell(warning)}" for warning in done.warnings)
    shown = sorted(compared.tables, key=lambda table: (-table.expected, table.name))
    rows = "\n".join(f"| {cell(one.name)} | {one.expected:,} | {one.found:,} |" for one in shown[:_ROWS_SHOWN])
    more = f"\n\n… and {len(shown) - _ROWS_SHOWN:,} tables more." if len(shown) > _ROWS_SHOWN else ""
    return (
        f"# Restored\n\n| | |\n|---|---|\n{lines}\n{notes and f'{chr(10)}What to know:{chr(10)}{notes}{chr(10)}'}"
        f"\n| table | rows expected | rows found |\n|---|---:|---:|\n{rows}{more}\n"
    )


def undo_summary(done: Restored) -> str:
    """An undone restore as markdown. Pure."""
    return (
        f"# Restore undone\n\n{cell(done.database)} is what it was before the restore. It took no connections for "
        f"{done.swap_seconds * 1000:.0f} ms. The restored database is kept as {cell(done.kept)}.\n"
    )


def _tell(event: str, plan: str, done: Restored) -> None:
    emit_event(
        event=event,
        resource={"prefect.resource.id": f"backup-plan.{plan}", "prefect.resource.name": plan},
        payload={"database": done.database, "filename": done.filename, "mode": done.mode, "rows": done.rows},
    )
