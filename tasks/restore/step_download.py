"""The step that downloads."""

from __future__ import annotations

from prefect import task

from tasks.plans.find_plan import plan_named
from tasks.restore.load import parts_of
from tasks.restore.values import RestoreRun
from tasks.runs.markdown import human_bytes
from tasks.runs.reporting import progress, say
from tasks.runs.retries import RETRIED
from tasks.storage.spool import Spool


@task(name="download", **RETRIED)
def download(run: RestoreRun, parts: Spool) -> int:
    """Fetches and proves part after part while psql reads them. Another try fetches only what psql still needs."""
    incoming = parts_of(plan_named(run.plan), run, parts)
    with progress(f"Downloading {run.backup.filename}", incoming.size) as show:
        fetched = incoming.prefetch(show)
    say(f"Downloaded {human_bytes(fetched)}; every part is what was stored.")
    return fetched
