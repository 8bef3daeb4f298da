"""The steps that let databases take each other's place. Neither is ever tried again by itself."""

from __future__ import annotations

from dataclasses import replace

from prefect import task

from tasks.plans.find_plan import plan_named
from tasks.restore import put_into_place as finishing
from tasks.restore import undo as undoing
from tasks.restore.values import Comparison, Loaded, Restored, RestoreRun
from tasks.runs.reporting import current_run_id, now, run_started_at, say, warn
from tasks.runs.retries import STEP


@task(name="swap", **STEP)
def swap(run: RestoreRun, loaded: Loaded, compared: Comparison) -> Restored:
    """The restored database gets owner, grants and settings of the old one, then its name, in one transaction."""
    done = finishing.put_into_place(plan_named(run.plan), run, loaded, compared, run.started_at)
    done = replace(done, seconds=(now() - run.started_at).total_seconds())
    for warning in done.warnings:
        warn(warning)
    if done.kept:
        say(
            f"{done.database} is the restored database; it took no connections for {done.swap_seconds * 1000:.0f} ms. "
            f"The one before it is kept as {done.kept}; undo-restore brings it back."
        )
    return done


@task(name="undo", **STEP)
def undo(plan: str, target: str) -> Restored:
    """The database that the last restore replaced takes its place again, in one transaction."""
    done = undoing.undo(plan_named(plan), target, current_run_id(), run_started_at())
    say(
        f"{done.database} is what it was before the restore; it took no connections for "
        f"{done.swap_seconds * 1000:.0f} ms. The restored one is kept as {done.kept}."
    )
    return done
