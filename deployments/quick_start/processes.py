"""Processes and ports: which is which, what was started from here, how it ends, and what is free."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from deployments.quick_start.private import write_private
from tasks.errors import BadSetting

#: Set in the environment of every program started here to the folder that its state lives in.
MARK = "BACKUP_SYSTEM_STATE"
LOOPBACK = "127.0.0.1"


def birth_of(pid: int) -> str:
    """A text that tells this process from any other that had or will have the same pid.

    Raises psutil.NoSuchProcess when there is none.
    """
    if sys.platform != "linux":
        return f"{psutil.Process(pid).create_time():.0f}"
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}:{stat.rpartition(')')[2].split()[19]}"


def children_of(process: psutil.Process) -> list[psutil.Process]:
    """Every living descendant of `process`."""
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def marked_processes(directory: Path) -> list[psutil.Process]:
    """All that lives and was started from the state folder `directory`, or by something that was.

    The calling process and its ancestors are not among them.
    """
    inside = str(directory.resolve())
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mark = process.environ().get(MARK, "")
            if (mark == inside or mark.startswith(inside + os.sep)) and process.pid not in own:
                found.append(process)
    return found


def end_all(processes: Sequence[psutil.Process], patience: float) -> None:
    """None of `processes` lives: each is asked to end, and killed after `patience` seconds."""
    send(processes, signal.SIGTERM)
    send(wait_for_end(processes, patience), signal.SIGKILL)
    wait_for_end(processes, patience)


def wait_for_end(processes: Sequence[psutil.Process], patience: float) -> list[psutil.Process]:
    """Those of `processes` that still live after `patience` seconds; returns at once when none does.

    One that has ended counts as gone even while its parent has not taken notice of it.
    """
    give_up = time.monotonic() + patience
    while alive := [process for process in processes if _lives(process)]:
        if time.monotonic() > give_up:
            break
        time.sleep(0.05)
    return alive


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def free_port(preferred: int | None = None) -> int:
    """A loopback TCP port that nobody uses now: `preferred` when it is free, else one of the system's."""
    for port in [preferred or 0, 0]:
        with socket.socket() as candidate:
            # A port in TIME_WAIT after a restart counts as free; one that somebody listens on does not.
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                candidate.bind((LOOPBACK, port))
                return int(candidate.getsockname()[1])
    raise BadSetting(f"No TCP port is free on {LOOPBACK}: stop some programs, then try again.")


def remembered_port(file: Path, renew: bool) -> int:
    """The port noted in `file`. With `renew`, another is noted when that one is not free."""
    noted = int(file.read_text(encoding="utf-8")) if file.exists() else None
    if noted is not None and not renew:
        return noted
    port = free_port(noted)
    if port != noted:
        write_private(file, str(port))
    return port
