"""What all steps have in common: when a step is tried again, and how two steps run side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, as_completed, wait

from tasks.catalogue.catalogue import Event
from tasks.errors import (
    AccessRefused,
    AlreadyRunning,
    BackupSystemError,
    BackupUnderWay,
    BadSetting,
    Stopped,
    Transient,
)
from tasks.plans.find_plan import plan_named
from tasks.postgres.locks import backup_lock, exclusive
from tasks.runs.reporting import current_run_id, now, say, warn
from tasks.storage.backup_stages import BackupRun
from tasks.storage.spool import Spool, open_spool
from tasks.stored_backups.remove import remove_object


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


@contextmanager
def sole_backup(plan: str) -> Iterator[None]:
    """Holds the plan's lock for the length of a `with` block. Raises BackupUnderWay at once when another run has it."""
    holder = f"run {current_run_id()}"
    with ExitStack() as held:
        try:
            patiently(lambda: held.enter_context(exclusive(plan_named(plan).catalogue.dsn, "backup", plan, holder)))
        except AlreadyRunning as refusal:
            raise BackupUnderWay(str(refusal)) from None
        yield


@contextmanager
def no_restore(plan: str, refusal: str = "") -> Iterator[None]:
    """Nobody restores the plan's database during the `with` block. Raises AlreadyRunning when somebody does so.

    `refusal` is what cannot be done then; without it, a backup.

    A server that does not answer is left to the steps, which say what is wrong with it.
    """
    with ExitStack() as held:
        with suppress(AccessRefused, BadSetting, Transient):
            held.enter_context(backup_lock(plan_named(plan).database, f"run {current_run_id()}", refusal))
        yield


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


@contextmanager
def failed_unless_completed(run: BackupRun) -> Iterator[None]:
    """An error in the `with` block, a cancellation too, takes away what was stored and marks the row `failed`."""
    try:
        yield
    except BaseException as error:
        _give_up(run, error)
        raise


def reason_of(error: BaseException) -> str:
    """Why a run ended, for the records."""
    return str(error) if isinstance(error, BackupSystemError) else f"{type(error).__name__}: {error}".rstrip(": ")


def _give_up(run: BackupRun, error: BaseException) -> None:
    reason = reason_of(error)
    event = Event(
        "backup",
        "failed",
        run.plan,
        run.created_by,
        run.run_id,
        run.backup_id,
        run.filename,
        duration_seconds=(now() - run.started_at).total_seconds(),
        error=reason,
    )
    try:
        plan = plan_named(run.plan)
        if not plan.catalogue.fence(run.backup_id, reason):  # it is completed: nothing is taken away
            return
        remove_object(plan.storage, run.key)
        plan.catalogue.fail(run.backup_id, reason, event)
        say(f"{run.filename}: everything that was stored of it has been removed.")
    except BackupSystemError as problem:
        warn(f"{run.filename}: its remains could not be cleared now; the next backup does that. {problem}")


@contextmanager
def spool(run: BackupRun) -> Iterator[Spool]:
    """The run's spool for the length of a `with` block; leaving the block stops the steps that still use it."""
    with open_spool(Path(run.spool_directory), run.run_id, run.part_size, run.spool_limit, run.most_parts) as parts:
        yield parts


def together(parts: Spool, *steps: PrefectFuture[Any]) -> list[Any]:
    """The results of steps that run side by side. The first failure stops the others, and is what is raised."""
    failure: BaseException | None = None
    try:
        for step in as_completed(list(steps)):
            step.wait()
            if failure is None and not step.state.is_completed():
                failure = _cause(step)
                parts.stop(f"Stopped, because another step failed: {failure}")
    finally:
        parts.stop("The steps have ended.")
        wait(list(steps), timeout=60)
    if failure is not None:
        raise failure
    return [step.result() for step in steps]


def _cause(step: PrefectFuture[Any]) -> BaseException:
    try:
        step.result()
    except BaseException as error:
        return error
    return Stopped("A step ended without a result.")
