"""Work in threads of its own with a deadline: whoever does not answer in time is left behind, never waited for.

A server that is stopped, not down, may keep a thread for minutes; it dies with the process.
"""

from __future__ import annotations

import contextvars
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

import psycopg2

from tasks.errors import BackupSystemError, Unreachable

_AT_ONCE = 8  # threads that share the jobs of one call
T = TypeVar("T")
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What came of some work: its result, or the sentence that says why there is none."""

    value: T | None
    problem: str = ""


class Deadline:
    """A moment in the future; `seconds` is how far it was when it was set."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until then; 0 when it is past."""
        return max(0.0, self._at - time.monotonic())


def begin(work: Callable[[], T]) -> Future[T]:
    """`work` goes on in a thread that dies with the process; it sees the context of its caller."""
    done: Future[T] = Future()
    context = contextvars.copy_context()
    threading.Thread(target=lambda: _fulfil(done, lambda: context.run(work)), name="at once", daemon=True).start()
    return done


def answer(work: Future[T], deadline: Deadline, who: str) -> Answer[T]:
    """The answer of `who`, waited for until the deadline. Raises nothing that the work has raised."""
    wait([work], timeout=deadline.left)
    if not work.done():
        return Answer(None, f"{who} did not answer within {deadline.seconds:.0f} s.")
    error = work.exception()
    if error is None:
        return Answer(work.result())
    return Answer(None, str(error) if isinstance(error, BackupSystemError) else f"The check itself {_broke(error)}")


def asked_at_once(jobs: Mapping[Name, Callable[[], object]], seconds: float) -> dict[Name, object]:
    """What each job returns, or the error that it raised; Unreachable for one that takes longer than `seconds`.

    A few threads share the jobs. An error that is neither ours nor psycopg2's is told by its type and place alone.
    """
    answers: dict[Name, Future[object]] = {name: Future() for name in jobs}
    waiting: SimpleQueue[Name] = SimpleQueue()
    for name in jobs:
        waiting.put(name)

    def work_off() -> None:
        while (name := _next(waiting)) is not None:
            _fulfil(answers[name], jobs[name])

    for _ in range(min(_AT_ONCE, len(jobs))):
        begin(work_off)
    wait(answers.values(), timeout=seconds)
    return {name: _outcome(one, seconds) for name, one in answers.items()}


def _next(waiting: SimpleQueue[Name]) -> Name | None:
    try:
        return waiting.get_nowait()
    except Empty:
        return None


def _fulfil(done: Future[T], work: Callable[[], T]) -> None:
    try:
        result = work()
    except BaseException as error:
        done.set_exception(error)  # handed on to whoever asks for the answer
    else:
        done.set_result(result)


def _outcome(one: Future[object], seconds: float) -> object:
    if not one.done():
        return Unreachable(f"No answer within {seconds:.0f} s.")
    error = one.exception()
    if error is None:
        return one.result()
    return error if isinstance(error, BackupSystemError | psycopg2.Error) else BackupSystemError(f"It {_broke(error)}")


def _broke(error: BaseException) -> str:
    """The text of a foreign error may repeat what was given, secrets too: its type and its place must do."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"broke ({type(error).__name__} at {Path(last.filename).name}:{last.lineno})."
