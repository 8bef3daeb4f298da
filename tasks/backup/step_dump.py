"""The step that dumps."""

from __future__ import annotations

from prefect import task

from tasks.backup import dump as core
from tasks.backup.upload import Shipper
from tasks.plans.find_plan import plan_named
from tasks.runs.reporting import human_bytes, now, progress, say
from tasks.runs.retries import RETRIED
from tasks.storage.backup_stages import BackupRun, Dump
from tasks.storage.spool import Spool


@task(name="dump", **RETRIED)
def dump(run: BackupRun, parts: Spool) -> Dump:
    """Runs pg_dump into the spool. Another try starts over, and the upload with it."""
    plan = plan_named(run.plan)
    show = progress(f"Dumping {run.filename}", run.expected_size)
    shipper = Shipper(parts, plan.storage, run.key)
    done = core.dump(run, parts, plan.database, now, show, lambda: _ship_if_nobody_does(parts, shipper))
    seconds = (done.finished_at - done.started_at).total_seconds()
    say(
        f"Dumped {len(done.tables)} tables, {done.rows:,} rows, {human_bytes(done.plain_size)} of SQL "
        f"in {seconds:.1f} s ({done.plain_size / max(seconds, 0.001) / 1e6:.0f} MB/s)."
    )
    return done


def _ship_if_nobody_does(parts: Spool, shipper: Shipper) -> bool:
    """Ships one part from within the dump when the spool is full and no upload has begun: one task thread for both."""
    with parts.sole_shipper() as mine:
        return mine and not parts.has_upload() and shipper.ship_one()
