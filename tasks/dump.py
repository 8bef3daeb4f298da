"""The step that dumps."""

from __future__ import annotations

from prefect import task

from tasks.core import dump as core
from tasks.core.spool import Spool
from tasks.core.upload import Shipper, read_journal
from tasks.core.values import BackupRun, Dump
from tasks.plans import plan_named
from tasks.reporting import human_bytes, now, progress, say
from tasks.steps import RETRIED


@task(name="dump", **RETRIED)
def dump(run: BackupRun, parts: Spool) -> Dump:
    """Runs pg_dump into the spool. Another try starts over, and the upload with it."""
    plan = plan_named(run.plan)
    show = progress(f"Dumping {run.filename}", run.expected_size)
    relief = _Relief(parts, Shipper(parts, plan.storage, run.key))
    done = core.dump(run, parts, plan.database, now, show, relief.ship_one)
    seconds = (done.finished_at - done.started_at).total_seconds()
    say(
        f"Dumped {len(done.tables)} tables, {done.rows:,} rows, {human_bytes(done.plain_size)} of SQL in {seconds:.1f} s "
        f"({done.plain_size / max(seconds, 0.001) / 1e6:.0f} MB/s)."
    )
    return done


class _Relief:
    """Ships parts from within the dump when the spool is full and no upload runs beside it (one task thread)."""

    def __init__(self, parts: Spool, shipper: Shipper) -> None:
        self._parts, self._shipper, self._alone = parts, shipper, False

    def ship_one(self) -> bool:
        """Ships one part if nobody else does; says whether it did."""
        with self._parts.sole_shipper() as free:
            if not free or not (self._alone or read_journal(self._parts) is None):
                return False
            self._alone = True
            return self._shipper.ship_one()
