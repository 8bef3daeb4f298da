"""Runs a throw-away server, and removes it when the process that wanted it has ended, in whichever way.

A program of its own, with Python's library alone. The first line of its input says what to do (JSON): `directory`,
`commands`, each of which must end well before the next, and `remove`, what is gone at the end. The end of the input is
the sign to end.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

_LOOKS_EVERY = 0.05  # seconds
_PATIENCE = 5.0  # seconds


def main() -> int:
    """0 when all is removed, 1 when a command has ended by itself: then everything stays for a look."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    orders = json.loads(_first_line())
    directory = Path(orders["directory"])
    running: subprocess.Popen[bytes] | None = None
    try:
        for command in orders["commands"]:
            with (directory / "log").open("ab") as log:
                running = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, start_new_session=True
                )
            status = _status(running)
            if status is None:
                break
            if status or command is orders["commands"][-1]:
                return 1
    except BaseException:
        _remove(running, directory, orders["remove"])
        raise
    _remove(running, directory, orders["remove"])
    return 0


def end_processes_in(directory: Path) -> bool:
    """Kills what works in the directory or below, as every process of a server does; says whether nothing is left."""
    give_up = time.monotonic() + _PATIENCE
    while found := _processes_in(directory):
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > give_up:
            return False
        time.sleep(_LOOKS_EVERY)
    return True


def _processes_in(directory: Path) -> list[int]:
    """Only where the system has /proc."""
    found, place = [], directory.resolve()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(process.name) != os.getpid() and (process / "cwd").readlink().is_relative_to(place):
                found.append(int(process.name))
    return found


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def _status(running: subprocess.Popen[bytes]) -> int | None:
    """The exit status of the command once it ends; None as soon as the input ends."""
    while running.poll() is None:
        ready, _, _ = select.select([0], [], [], _LOOKS_EVERY)
        if ready and not os.read(0, 1):
            return None
    return running.returncode


def _remove(running: subprocess.Popen[bytes] | None, directory: Path, others: list[str]) -> None:
    if running is not None:
        with suppress(ProcessLookupError):
            running.send_signal(signal.SIGQUIT)
        with suppress(subprocess.TimeoutExpired):
            running.wait(_PATIENCE)
        running.kill()
    end_processes_in(directory)
    for path in others:
        shutil.rmtree(path, ignore_errors=True)
        if Path(path).is_file() and not directory.exists():
            Path(path).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
