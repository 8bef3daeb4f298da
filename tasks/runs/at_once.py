"""What goes on at the same time: questions in threads of their own, with a deadline after which nobody waits for them,
and two steps that hand parts of a file to each other through a spool.

A server that hangs may keep a thread for minutes; the thread ends with the process.
"""

from __future__ import annotations

import contextvars
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import psycopg2
from prefect.futures import PrefectFuture, as_completed
from prefect.futures import wait as wait_for_steps
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.errors import BackupSystemError, Stopped, Unreachable
from tasks.storage.backup_stages import BackupRun
from tasks.storage.spool import Spool, open_spool

_AT_ONCE = 8  # jobs of one call that run at the same time
T = TypeVar("T")
Name = TypeVar("Name", bound=Hashable)
#: Runs the tasks of a flow: both of two steps at the same time, whatever Prefect's settings say of threads.
SIDE_BY_SIDE: TaskRunner[PrefectFuture[Any]] = ThreadPoolTaskRunner(max_workers=2)  # type: ignore[assignment]


@dataclass(frozen=True)
class Answer(Generic[T]):
    """The result of some work, or the sentence that says why there is none."""

    value: T | None
    problem: str = ""


class Deadline:
    """A moment in the future, `seconds` after it was set."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until then; 0 when it is past."""
        return max(0.0, self._at - time.monotonic())


def begin(work: Callable[[], T]) -> Future[T]:
    """Starts `work` in a thread that ends with the process; it sees the context of its caller."""
    done: Future[T] = Future()
    context = contextvars.copy_context()
    threading.Thread(target=lambda: _fulfil(done, lambda: context.run(work)), name="at once", daemon=True).start()
    return done


def answer(work: Future[T], deadline: Deadline, who: str) -> Answer[T]:
    """Waits for the answer of `who` until the deadline. An error of the work becomes a sentence."""
    wait([work], timeout=deadline.left)
    if not work.done():
        return Answer(None, f"{who} did not answer within {deadline.seconds:.0f} s.")
    error = work.exception()
    if error is None:
        return Answer(work.result())
    return Answer(None, str(error) if isinstance(error, BackupSystemError) else f"The check itself {_broke(error)}")


def asked_at_once(jobs: Mapping[Name, Callable[[], object]], seconds: float) -> dict[Name, object]:
    """What each job returns, or the error that it raised; Unreachable for a job that takes longer than `seconds`.

    A few jobs run at the same time. Of an unexpected error only type and place are reported.
    """
    deadline, turns = Deadline(seconds), threading.Semaphore(_AT_ONCE)

    def in_turn(job: Callable[[], object]) -> object:
        with turns:
            return job()

    answers = {name: begin(partial(in_turn, job)) for name, job in jobs.items()}
    wait(answers.values(), timeout=deadline.left)
    return {name: _outcome(work, deadline) for name, work in answers.items()}


def _fulfil(done: Future[T], work: Callable[[], T]) -> None:
    try:
        result = work()
    except BaseException as error:
        done.set_exception(error)  # raised again where the answer is asked for
    else:
        done.set_result(result)


def _outcome(work: Future[object], deadline: Deadline) -> object:
    if not work.done():
        return Unreachable(f"No answer within {deadline.seconds:.0f} s.")
    error = work.exception()
    if error is None:
        return work.result()
    return error if isinstance(error, BackupSystemError | psycopg2.Error) else BackupSystemError(f"It {_broke(error)}")


def _broke(error: BaseException) -> str:
    """Type and place of an unexpected error: its text may repeat what was given, secrets too."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"broke ({type(error).__name__} at {Path(last.filename).name}:{last.lineno})."


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
        wait_for_steps(list(steps), timeout=60)
    if failure is not None:
        raise failure
    return [step.result() for step in steps]


def _cause(step: PrefectFuture[Any]) -> BaseException:
    try:
        step.result()
    except BaseException as error:
        return error
    return Stopped("A step ended without a result.")
