"""The backups of a run of backup-all while they go on: starts them, a few at a time, and waits for all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime

import httpx

from tasks.admin_page.steps import publish_backups
from tasks.backup_all.runs_api import BackupRuns
from tasks.backup_all.start_order import (
    COMPLETED,
    NOT_STARTED,
    Ended,
    Job,
    Lane,
    Started,
    not_begun,
    startable,
    starving,
)
from tasks.errors import Unreachable
from tasks.runs.other_runs import key_for_child
from tasks.runs.reporting import now, say, warn

POLL_SECONDS = 1.0
#: A server that does not answer for so long, while the backups go on, is given up.
OUTAGE_SECONDS = 3600.0
#: The admin page is rewritten this often meanwhile, but for a tenth of the time at most.
PAGE_SECONDS = 60.0
PAGE_SHARE = 10


@dataclass(frozen=True)
class Chosen:
    """What to do: the jobs, how many at once, how many in which lane, and the plans that cannot be started."""

    jobs: tuple[Job, ...]
    at_once: int
    rooms: dict[Lane, int]
    refused: tuple[Ended, ...]


class BackupsUnderWay:
    """The jobs that wait, the runs that have not ended (by id), and what became of the others."""

    def __init__(self, runs: BackupRuns, chosen: Chosen, requested_by: str) -> None:
        self._runs, self._chosen, self._requested_by = runs, chosen, requested_by
        self._waiting = list(chosen.jobs)
        self._started: dict[str, Started] = {}
        self._ended: list[Ended] = []
        self._alive_at: dict[Lane, datetime] = {}
        self._page_due = time.monotonic() + PAGE_SECONDS

    def finish(self) -> tuple[Ended, ...]:
        """Starts everything and waits for all of it. Raises Unreachable when the server does not come back."""
        answered = time.monotonic()
        while self._waiting or self._started:
            try:
                self._look()
                self._start()
                self._give_up_starving()
                self._rewrite_page()
            except httpx.HTTPError as error:
                if time.monotonic() - answered > OUTAGE_SECONDS:
                    raise Unreachable(
                        f"The Prefect server gave no answer for an hour ({type(error).__name__}); the "
                        "backups that were begun go on without it."
                    ) from None
            else:
                answered = time.monotonic()
            if self._waiting or self._started:
                time.sleep(POLL_SECONDS)
        return (*self._chosen.refused, *self._ended)

    @contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """An error in the `with` block, a cancellation too, cancels the runs that no worker has begun."""
        try:
            yield
        except BaseException:
            with suppress(httpx.HTTPError):
                self._look()
                idle = [run_id for run_id, run in self._started.items() if not run.begun]
                self._runs.give_up(idle, "backup-all ended before a worker had begun this.")
            left = [run.job.plan for run in self._started.values() if run.begun]
            warn(f"backup-all ends early. Backups that go on: {', '.join(left) or 'none'}.")
            raise

    def _look(self) -> None:
        for run_id, seen in self._runs.seen(self._started.values()).items():
            if seen.begun:
                self._started[run_id] = replace(self._started[run_id], begun=True)
                self._alive_at[self._started[run_id].job.lane] = now()
            if seen.ended:
                del self._started[run_id]
                self._note(seen.ended)

    def _start(self) -> None:
        running = [run.job for run in self._started.values()]
        for job in startable(self._waiting, running, self._chosen.at_once, self._chosen.rooms):
            run_id = self._runs.start(job, self._requested_by, key_for_child(job.plan))
            if run_id:
                self._waiting.remove(job)
                self._started[run_id] = Started(job, run_id, now())
            else:
                self._refuse(
                    job,
                    f"The deployment {job.deployment} refused it: see whether it takes the parameters "
                    "plan and requested_by.",
                )

    def _give_up_starving(self) -> None:
        for lane in starving(self._started.values(), self._alive_at, now()):
            if self._runs.is_working(lane):
                self._alive_at[lane] = now()
                continue
            idle = [run_id for run_id, run in self._started.items() if run.job.lane == lane]
            self._runs.give_up(idle, not_begun(lane))
            for run_id in idle:
                plan = self._started.pop(run_id).job.plan
                self._note(Ended(plan, NOT_STARTED, not_begun(lane), run_id))
            for job in [job for job in self._waiting if job.lane == lane]:
                self._refuse(job, not_begun(lane))

    def _refuse(self, job: Job, reason: str) -> None:
        self._waiting.remove(job)
        self._note(Ended(job.plan, NOT_STARTED, reason))

    def _note(self, ended: Ended) -> None:
        self._ended.append(ended)
        left = len(self._waiting) + len(self._started)
        if ended.outcome == COMPLETED:
            say(f"Plan {ended.plan} is backed up; {left} to go.")
        else:
            warn(f"Plan {ended.plan} {ended.outcome}: {ended.reason} ({left} to go)")

    def _rewrite_page(self) -> None:
        """The backups leave that to this run, so that it is not done for each of them."""
        if time.monotonic() > self._page_due:
            began = time.monotonic()
            publish_backups.fn()
            took = time.monotonic() - began
            self._page_due = time.monotonic() + max(PAGE_SECONDS, PAGE_SHARE * took)
