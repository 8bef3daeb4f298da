"""The steps of backup-all: which plans, their backups a few at a time, and what is told of them."""

from __future__ import annotations

import httpx
from prefect import task
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from tasks.alarms.tell import arm_new
from tasks.backup_all import start_order as policy
from tasks.backup_all.backups_under_way import Chosen, FanOut
from tasks.backup_all.runs_api import BackupRuns
from tasks.backup_all.start_order import NOT_STARTED, Ended, Job
from tasks.errors import BadSetting, Unreachable
from tasks.plans.find_plan import plan_deployments
from tasks.runs.reporting import created_by, say, warn
from tasks.runs.retries import RETRIED, STEP


@task(name="choose", **RETRIED)
def choose(plans: list[str], at_once: int) -> Chosen:
    """The plans of these names, or all of them. One that cannot be started is told at the end; it stops no other.

    Raises BadSetting when the parameters cannot be meant so, Unreachable when the server does not answer.
    """
    names = policy.checked_names(plans, at_once)
    if not PREFECT_API_URL.value():
        raise BadSetting(
            "Backups of many plans are run by the workers of a Prefect server, and none is in use here: "
            "start it (make up), or back up one plan with python -m flows.backup."
        )
    try:
        with get_client(sync_client=True) as client:
            chosen = _chosen(BackupRuns(client), names, at_once)
            # A run that dies before it begins cannot do so itself.
            arm_new(client, [one.plan for one in chosen.jobs])
            return chosen
    except httpx.HTTPError as error:
        raise Unreachable(f"The Prefect server gave no answer ({type(error).__name__}).") from None


def _chosen(runs: BackupRuns, names: list[str], at_once: int) -> Chosen:
    known = plan_deployments()
    found: list[Job | Ended] = []
    for plan in names or sorted(known):
        refusal = policy.refusal(plan, known.get(plan, ""), known)
        found.append(Ended(plan, NOT_STARTED, refusal) if refusal else runs.job(plan, known[plan]))
    jobs = [one for one in found if isinstance(one, Job)]
    limits = {lane: limit for lane in {one.lane for one in jobs} if (limit := runs.limit(lane))}
    full = {lane: policy.blocked(lane, limit) for lane, limit in limits.items() if not limit.room}
    refused = [one for one in found if isinstance(one, Ended)]
    refused += [Ended(one.plan, NOT_STARTED, full[one.lane]) for one in jobs if one.lane in full]
    rooms = {lane: limit.room for lane, limit in limits.items()}
    return Chosen(tuple(one for one in jobs if one.lane not in full), at_once, rooms, tuple(refused))


@task(name="fan-out", **STEP)
def back_up(chosen: Chosen, requested_by: str) -> tuple[Ended, ...]:
    """What became of every plan. Each has a run of its own on its work pool; one that fails stops no other.

    When this run is cancelled, so are the runs that no worker has begun; those that go on do so without it.
    """
    actor = created_by(requested_by)
    say(f"{len(chosen.jobs)} plans are backed up, {chosen.at_once} at once at most, for {actor}.")
    for one in chosen.refused:
        warn(f"Plan {one.plan}: {one.reason}")
    with get_client(sync_client=True) as client:
        under_way = FanOut(BackupRuns(client), chosen, f"backup-all for {actor}")
        with under_way.abandoned_on_error():
            return under_way.finish()
