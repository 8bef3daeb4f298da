"""Work in threads of its own, with a deadline after which nobody waits for it.

A server that hangs may keep a thread for minutes; the thread ends with the process.
"""

from __future__ import annotations

import contextvars
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import psycopg2

from tasks.errors import BackupSystemError, Unreachable

_AT_ONCE = 8  # jobs of one call that run at the same time
T = TypeVar("T")
Name = TypeVar("Name", bound=Hashable)


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
