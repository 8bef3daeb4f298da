"""The step that compares what was restored with the manifest."""

from __future__ import annotations

from prefect import task

from tasks.plans.find_plan import plan_named
from tasks.restore import put_into_place as finishing
from tasks.restore.values import Comparison, Loaded, RestoreRun
from tasks.runs.reporting import say
from tasks.runs.retries import RETRIED


@task(name="compare", **RETRIED)
def compare(run: RestoreRun, loaded: Loaded) -> Comparison:
    """Counts the rows of every restored table. Raises RowsDiffer; the live database is as it was."""
    compared = finishing.compare(plan_named(run.plan), run, loaded)
    say(f"{len(compared.tables)} tables have the {compared.rows:,} rows that they must have.")
    return compared
