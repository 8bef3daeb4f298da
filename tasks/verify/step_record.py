"""The step that records a drill which has proved its backup."""

from __future__ import annotations

from prefect import task
from prefect.events import emit_event

from tasks.errors import BackupSystemError
from tasks.plans.find_plan import plan_named
from tasks.restore.values import Comparison, Loaded, RestoreRun
from tasks.runs.markdown import cell, human_bytes
from tasks.runs.reporting import now, publish, say, warn
from tasks.runs.retries import STEP, patiently
from tasks.verify.drill import Subject
from tasks.verify.verdict import Verified, record_verified, verified

_ROWS_SHOWN = 1000


@task(name="record", **STEP)
def record_verification(subject: Subject, run: RestoreRun, loaded: Loaded, compared: Comparison) -> Verified:
    """Writes `verified_at` and the audit, tells Prefect's events, and publishes what was proved.

    A catalogue that does not know the backup, or does not answer, costs a warning: the backup has passed all the same.
    """
    done = verified(run, loaded, compared, now())
    recorded = _recorded(subject, done)
    _tell(done, recorded)
    publish(f"verification-{done.plan}", f"Drill of {done.filename}", summary(done, recorded))
    say(
        f"{done.filename} is verified: {done.rows:,} rows in {len(done.tables):,} tables are as backed up; psql "
        f"restored them in {done.restore_seconds:.1f} s."
    )
    return done


def _recorded(subject: Subject, done: Verified) -> bool:
    found: list[bool] = []
    try:
        patiently(lambda: found.append(record_verified(plan_named(done.plan).catalogue, subject, done)))
    except BackupSystemError as problem:
        warn(f"{done.filename} is verified, which could not be recorded: {problem}")
        return False
    if found != [True]:
        warn(f"{done.filename} is verified, which could not be recorded: the catalogue has no completed row of it.")
    return found == [True]


def _tell(done: Verified, recorded: bool) -> None:
    emit_event(
        event="backup.verified",
        resource={"prefect.resource.id": f"backup-plan.{done.plan}", "prefect.resource.name": done.plan},
        payload={
            "filename": done.filename,
            "rows": done.rows,
            "tables": len(done.tables),
            "seconds": done.seconds,
            "restore_seconds": done.restore_seconds,
            "recorded": recorded,
        },
    )


def summary(done: Verified, recorded: bool) -> str:
    """A drill that has passed, as markdown: what was proved, and the rows of every table. Pure."""
    speed = done.plain_size / max(done.restore_seconds, 0.001) / 1e6
    facts = {
        "Backup": f"`{done.filename}` of {done.created_at:%Y-%m-%d %H:%M:%S} UTC, {human_bytes(done.size)}",
        "Verified": f"{done.at:%Y-%m-%d %H:%M:%S} UTC" + ("" if recorded else ", which could not be recorded"),
        "Rows": f"{done.rows:,} in {len(done.tables):,} tables, all as backed up",
        "Large objects": "" if done.large_objects is None else f"{done.large_objects:,}, all as backed up",
        "Restore": f"{done.restore_seconds:.1f} s for {human_bytes(done.plain_size)} of SQL ({speed:.0f} MB/s)",
        "Whole drill": f"{done.seconds:.1f} s",
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in facts.items() if value)
    notes = "".join(f"- {cell(warning)}\n" for warning in done.warnings)
    proofs = "".join(f"- {proof}\n" for proof in proved(done))
    rows = "\n".join(f"| {cell(one.name)} | {one.expected:,} | {one.found:,} |" for one in done.tables[:_ROWS_SHOWN])
    more = f"\n\n… and {len(done.tables) - _ROWS_SHOWN:,} tables more." if len(done.tables) > _ROWS_SHOWN else ""
    return (
        f"# Verified\n\n| | |\n|---|---|\n{lines}\n\n{notes and f'What to know:{chr(10) * 2}{notes}{chr(10)}'}"
        f"What was proved:\n\n{proofs}\n| table | rows expected | rows found |\n|---|---:|---:|\n{rows}{more}\n"
    )


def proved(done: Verified) -> list[str]:
    """What a drill that has passed proves, one sentence each. Pure."""
    recorded = done.backup_id is not None
    major = done.server_version // 10_000
    return [
        "The manifest is the one that the catalogue recorded."
        if recorded
        else "The manifest is whole; the catalogue could not say whether it is the recorded one.",
        f"Every part in bucket {cell(done.bucket)} has the SHA-256 of the manifest.",
        *([f"The file decodes ({done.decoded}) without an error."] if done.decoded else []),
        "The SQL has the size and the SHA-256 of what pg_dump wrote, to its last line.",
        f"psql {cell(done.psql_version)} ran all of it on PostgreSQL {major} without an error, as one transaction.",
        "Every table has the rows that were backed up.",
        "The scratch database that it was restored into was the drill's own; the live database was not touched.",
    ]
