"""Two steps that run side by side and hand parts of a file to each other through a spool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.futures import PrefectFuture, as_completed, wait
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.errors import (
    Stopped,
)
from tasks.storage.backup_stages import BackupRun
from tasks.storage.spool import Spool, open_spool

#: Runs the tasks of a flow: both of two steps at the same time, whatever Prefect's settings say of threads.
SIDE_BY_SIDE: TaskRunner[PrefectFuture[Any]] = ThreadPoolTaskRunner(max_workers=2)  # type: ignore[assignment]


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
