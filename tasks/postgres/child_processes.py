"""Child processes that end with this one, cannot block on a full stderr, and inherit no stdio.

A child that inherits stdout or stderr hides the death of its parent from the Prefect worker.
"""

from __future__ import annotations

import fcntl
import functools
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO

STDERR_LINES = 25
LONGEST_LINE = 4096  # bytes: what is longer counts as several lines
CHUNK = 1 << 20  # bytes: the size of a large pipe
_SET_PIPE_SIZE = 1031  # fcntl F_SETPIPE_SZ, Linux


class Child:
    """A running program; `stdout` is a pipe with its output, `complaints()` the end of its stderr."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None and process.stderr is not None
        self.stdout: IO[bytes] = process.stdout
        self._process = process
        self._stdin = process.stdin
        self._lines: deque[str] = deque(maxlen=STDERR_LINES)
        self._drain = threading.Thread(target=self._read_stderr, args=(process.stderr,), daemon=True)
        self._drain.start()

    def _read_stderr(self, stderr: IO[bytes]) -> None:
        with stderr:
            while line := stderr.readline(LONGEST_LINE):
                self._lines.append(line.decode(errors="replace").replace("\0", " ").rstrip())

    def send(self, data: bytes | memoryview) -> None:
        """Writes to its standard input. Raises BrokenPipeError when the child has ended."""
        assert self._stdin is not None
        self._stdin.write(data)

    def flush(self) -> None:
        """Hands over all that was sent. Raises BrokenPipeError when the child has ended."""
        assert self._stdin is not None
        self._stdin.flush()

    def end_of_input(self) -> None:
        """Closes its standard input. Raises BrokenPipeError when the child has ended."""
        assert self._stdin is not None
        self._stdin.close()

    def kill(self) -> None:
        """Ends the child now; no error when it has ended."""
        self._process.kill()

    def wait(self) -> int:
        """Waits for the end of the child and of its stderr; returns the exit status."""
        status = self._process.wait()
        self._drain.join(timeout=5)
        return status

    def close(self) -> None:
        """Closes the pipes of a child that has ended."""
        self.stdout.close()
        if self._stdin is not None:
            with suppress(BrokenPipeError):
                self._stdin.close()

    def complaints(self) -> str:
        """The last 25 lines of its stderr."""
        return "\n".join(self._lines)


@contextmanager
def child(arguments: Sequence[str], environment: Mapping[str, str], with_input: bool = False) -> Iterator[Child]:
    """Runs the program `arguments` for the length of a `with` block, and kills it at the end if it still runs.

    Its standard input is empty, or with `with_input` what `send` writes. On Linux the kernel kills the child when the
    thread that started it dies, in whichever way.
    """
    process = subprocess.Popen(
        [*_dies_with_parent(), *arguments],
        env=dict(environment),
        stdin=subprocess.PIPE if with_input else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=-1,
    )
    running = Child(process)
    try:
        yield running
    finally:
        process.kill()
        running.wait()
        running.close()


@contextmanager
def killed_when(running: Child, condition: Callable[[], bool]) -> Iterator[None]:
    """Kills the child as soon as `condition` is true during the block, even while the child waits for a server."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            if condition():
                running.kill()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def widen(pipe: IO[bytes]) -> None:
    """Lets the child run ahead by `CHUNK` bytes, where the system allows it."""
    if sys.platform == "linux":
        with suppress(OSError):  # the user's limit of pipe memory is reached: the usual 64 KiB must do
            fcntl.fcntl(pipe, _SET_PIPE_SIZE, CHUNK)


@functools.cache
def _dies_with_parent() -> tuple[str, ...]:
    """The arguments before a command that make the kernel kill it with its parent (PR_SET_PDEATHSIG, prctl(2))."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    if setpriv is None:
        return ()
    words = (setpriv, "--pdeathsig", "KILL")
    tried = subprocess.run([*words, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return words if tried.returncode == 0 else ()
