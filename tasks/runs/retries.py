"""When a step is tried again: the type of its error decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg2
from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from tasks.errors import AccessRefused, BackupSystemError, BadSetting, Transient
from tasks.plans.find_plan import plan_named
from tasks.plans.plan import pinned
from tasks.postgres.locks import backup_lock
from tasks.postgres.server_errors import without_values
from tasks.runs.reporting import current_run_id, warn


def may_pass(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether another try can help: the type of the error decides."""
    try:
        state.result()
    except Transient:
        return True
    except BaseException:
        return False
    return False


#: For every task. Results stay in memory: a cached step would do nothing, a persisted one would leave files behind.
STEP: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False, "log_prints": False}
#: For a task whose work may be repeated: three more tries, after 2, 10 and 30 seconds, give or take.
RETRIED: dict[str, Any] = {
    **STEP,
    "retries": 3,
    "retry_delay_seconds": [2, 10, 30],
    "retry_jitter_factor": 0.3,
    "retry_condition_fn": may_pass,
}


def patiently(take: Callable[[], object]) -> None:
    """Takes a lock. A server that does not answer is asked again, as often as any step is tried again."""
    for delay in (*RETRIED["retry_delay_seconds"], None):
        try:
            take()
            return
        except Transient as error:
            if delay is None:
                raise
            warn(f"{error} Trying again in {delay} s.")
            time.sleep(delay)


def reason_of(error: BaseException) -> str:
    """Why a run ended, for the records."""
    if isinstance(error, BackupSystemError):
        return str(error)
    text = without_values(error) if isinstance(error, psycopg2.Error) else str(error)
    return f"{type(error).__name__}: {text}".rstrip(": ")


@contextmanager
def no_restore(plan: str, refusal: str = "") -> Iterator[None]:
    """Restores of the plan's database are refused until the `with` block ends.

    Raises AlreadyRunning while a restore is under way; its text begins with `refusal`, or speaks of a backup. A server
    that does not answer is no error here: the steps say what is wrong with it.
    """
    with ExitStack() as held:
        with suppress(AccessRefused, BadSetting, Transient):
            held.enter_context(backup_lock(pinned(plan_named(plan)).database, f"run {current_run_id()}", refusal))
        yield
