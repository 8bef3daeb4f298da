"""The step that restores with psql."""

from __future__ import annotations

from prefect import task

from tasks.plans.find_plan import plan_named
from tasks.restore.load import load
from tasks.restore.step_surround import went_live
from tasks.restore.values import Loaded, RestoreRun
from tasks.runs.markdown import human_bytes
from tasks.runs.reporting import progress, say, warn
from tasks.runs.retries import RETRIED
from tasks.storage.spool import Spool


@task(name="psql", **RETRIED)
def psql(run: RestoreRun, parts: Spool) -> Loaded:
    """Feeds the proved text to psql, in one transaction. Another try begins anew, with nothing left of this one."""
    with progress(f"Restoring {run.backup.filename}", run.backup.plain_size) as show:
        loaded = load(plan_named(run.plan), run, parts, show, say)
    if run.mode == "in_place":
        went_live(run)
    for warning in loaded.warnings:
        warn(f"The server said: {warning}")
    say(
        f"Restored {human_bytes(loaded.plain_size)} of SQL into {run.scratch} in {loaded.seconds:.1f} s "
        f"({loaded.plain_size / max(loaded.seconds, 0.001) / 1e6:.0f} MB/s), in one transaction."
    )
    return loaded
