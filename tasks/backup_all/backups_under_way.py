"""The backups of a run of backup-all while they go on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime

import httpx
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound

from tasks.admin_page.steps import publish_backups
from tasks.backup_all import start_order as policy
from tasks.backup_all.runs_api import BackupRuns
from tasks.backup_all.start_order import NOT_STARTED, Ended, Job, Lane, Started
from tasks.backup_all.summary import COMPLETED
from tasks.errors import Unreachable
from tasks.runs.parent_run import key_of
from tasks.runs.reporting import current_run_id, now, say, warn

POLL_SECONDS = 1.0
#: A server that does not answer for so long, while the backups go on, is waited for no longer.
OUTAGE_SECONDS = 3600.0
#: The admin page is rewritten so often meanwhile, but for a tenth of the time at most.
PAGE_SECONDS = 60.0
PAGE_SHARE = 10


@dataclass(frozen=True)
class Chosen:
    """What is to be done: the jobs, how many at once, in which lane how many, and what cannot be started at all."""

    jobs: tuple[Job, ...]
    at_once: int
    rooms: dict[Lane, int]
    refused: tuple[Ended, ...]


@dataclass
class FanOut:
    """The backups of a run of backup-all while they go on."""

    runs: BackupRuns
    chosen: Chosen
    requested_by: str
    waiting: list[Job] = field(init=False)
    started: dict[str, Started] = field(default_factory=dict)
    """By the id of the run; those alone that have not ended."""
    begun: set[str] = field(default_factory=set)
    ended: list[Ended] = field(default_factory=list)
    alive_at: dict[Lane, datetime] = field(default_factory=dict)
    page_due: float = field(default_factory=lambda: time.monotonic() + PAGE_SECONDS)

    def __post_init__(self) -> None:
        self.waiting = list(self.chosen.jobs)

    def finish(self) -> tuple[Ended, ...]:
        """Starts everything and waits for all of it. Raises Unreachable when the server stays away."""
        answered = time.monotonic()
        while self.waiting or self.started:
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
            if self.waiting or self.started:
                time.sleep(POLL_SECONDS)
        return (*self.chosen.refused, *self.ended)

    @contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """An error in the `with` block, a cancellation too, takes back the runs that no worker has begun."""
        try:
            yield
        except BaseException:
            with suppress(httpx.HTTPError):
                seen = self.runs.seen({run_id: one.job.plan for run_id, one in self.started.items()})
                self.begun |= {run_id for run_id, one in seen.items() if one.begun}
                idle = [run_id for run_id in self.started if run_id not in self.begun]
                self.runs.give_up(idle, "backup-all ended before a worker had begun this.")
            left = [one.job.plan for run_id, one in self.started.items() if run_id in self.begun]
            warn(f"backup-all ends early. Backups that go on: {', '.join(left) or 'none'}.")
            raise

    def _start(self) -> None:
        running = [one.job for one in self.started.values()]
        for job in policy.startable(self.waiting, running, self.chosen.at_once, self.chosen.rooms):
            try:
                run_id = self.runs.start(job, self.requested_by, _key(job))
            except (ObjectNotFound, httpx.HTTPStatusError) as error:
                if isinstance(error, httpx.HTTPStatusError) and not 400 <= error.response.status_code < 500:
                    raise
                self.waiting.remove(job)
                self._refuse(
                    job,
                    f"The deployment {job.deployment} refused it: see whether it takes the parameters "
                    "plan and requested_by.",
                )
            else:
                self.waiting.remove(job)
                self.started[run_id] = Started(job, run_id, now())

    def _look(self) -> None:
        for run_id, seen in self.runs.seen({run_id: one.job.plan for run_id, one in self.started.items()}).items():
            if seen.begun:
                self.begun.add(run_id)
                self.alive_at[self.started[run_id].job.lane] = now()
            if seen.ended:
                del self.started[run_id]
                self._note(seen.ended)

    def _give_up_starving(self) -> None:
        for lane in policy.starving(list(self.started.values()), self.begun, self.alive_at, now()):
            if self.runs.is_working(lane):
                self.alive_at[lane] = now()
                continue
            idle = {run_id: one.job for run_id, one in self.started.items() if one.job.lane == lane}
            self.runs.give_up(idle, policy.not_begun(lane))
            for run_id, job in idle.items():
                del self.started[run_id]
                self._note(Ended(job.plan, NOT_STARTED, policy.not_begun(lane), run_id))
            for job in [one for one in self.waiting if one.lane == lane]:
                self.waiting.remove(job)
                self._refuse(job, policy.not_begun(lane))

    def _refuse(self, job: Job, reason: str) -> None:
        self._note(Ended(job.plan, NOT_STARTED, reason))

    def _note(self, ended: Ended) -> None:
        self.ended.append(ended)
        left = len(self.waiting) + len(self.started)
        if ended.outcome == COMPLETED:
            say(f"Plan {ended.plan} is backed up; {left} to go.")
        else:
            warn(f"Plan {ended.plan} {ended.outcome}: {ended.reason} ({left} to go)")

    def _rewrite_page(self) -> None:
        """The backups leave that to this run, so that it is not done for each of them."""
        if time.monotonic() > self.page_due:
            began = time.monotonic()
            publish_backups.fn()
            took = time.monotonic() - began
            self.page_due = time.monotonic() + max(PAGE_SECONDS, PAGE_SHARE * took)


def _key(job: Job) -> str:
    """The same for the same plan in the same try of the same run: asked twice, the server starts one run."""
    context = FlowRunContext.get()
    tries = context.flow_run.run_count if context and context.flow_run else 0
    return key_of(current_run_id(), tries, job.plan)
