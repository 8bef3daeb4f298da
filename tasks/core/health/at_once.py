"""Work in threads of its own with a deadline: whoever does not answer in time is left behind, never waited for."""

from __future__ import annotations

import contextvars
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from tasks.core.errors import BackupSystemError

T = TypeVar("T")


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

    def run() -> None:
        try:
            result = context.run(work)
        except BaseException as error:
            done.set_exception(error)  # handed on to whoever asks for the answer
        else:
            done.set_result(result)

    threading.Thread(target=run, name="health check", daemon=True).start()
    return done


def answer(work: Future[T], deadline: Deadline, who: str) -> Answer[T]:
    """The answer of `who`, waited for until the deadline. Raises nothing that the work has raised."""
    wait([work], timeout=deadline.left)
    if not work.done():
        return Answer(None, f"{who} did not answer within {deadline.seconds:.0f} s.")
    error = work.exception()
    if error is None:
        return Answer(work.result())
    if isinstance(error, BackupSystemError):
        return Answer(None, str(error))
    # The text of a foreign error may repeat what was given, secrets too: its type and its place must do.
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Answer(None, f"The check itself broke ({type(error).__name__} at {Path(last.filename).name}:{last.lineno}).")
