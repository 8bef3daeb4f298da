"""Programs that run detached: started with a log file, found again by pid and birth, stopped for good."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import psutil

from deployments.quick_start.private import private_directory, write_private
from deployments.quick_start.processes import (
    MARK,
    birth_of,
    children_of,
    end_all,
    marked_processes,
    send,
    wait_for_end,
)
from tasks.errors import BadSetting


def answer(url: str, *, auth: tuple[str, str] | None = None, body: object = None) -> httpx.Response | None:
    """What a server on this machine answers to a GET, or with a body to a POST; None while it does not answer."""
    try:
        with httpx.Client(trust_env=False, timeout=5.0, auth=auth) as client:
            return client.get(url) if body is None else client.post(url, json=body)
    except httpx.TransportError:
        return None


class Service:
    """One detached program; `directory` keeps its log and its pid file.

    `owned=True` ties its life to the process that starts it, as far as the system can do so (tests).
    """

    def __init__(self, name: str, directory: Path, *, owned: bool = False) -> None:
        self.name = name
        self.directory = directory
        self.log_file = directory / f"{name}.log"
        self._pid_file = directory / f"{name}.pid"
        self._owned = owned
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> psutil.Process | None:
        """The running program, or None. A pid that now belongs to another program is never taken for it."""
        try:
            noted = json.loads(self._pid_file.read_text(encoding="utf-8"))
            process = psutil.Process(noted["pid"])
            if birth_of(process.pid) != noted["birth"] or process.status() == psutil.STATUS_ZOMBIE:
                return None
        except (FileNotFoundError, ValueError, KeyError, psutil.NoSuchProcess):
            return None
        return process

    @property
    def is_running(self) -> bool:
        """True while the program lives; says nothing of whether it answers."""
        return self.process is not None

    def start(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        answers: Callable[[], bool],
        seconds: float = 60.0,
        prefix: Sequence[str] = (),
    ) -> None:
        """The program runs in `directory` and `answers()`. Nothing happens if it runs already.

        `arguments` are seen by every user of the machine: secrets go into `environment`.
        Raises BadSetting with the end of its log when it ends early or is silent for `seconds`.
        """
        if self.is_running:
            return
        private_directory(self.directory)
        log_from = self.log_file.stat().st_size if self.log_file.exists() else 0
        child = self._child = self._launch([*prefix, *self._tie(), *arguments], environment, directory)
        give_up = time.monotonic() + seconds
        while True:
            if child.poll() is not None:
                raise BadSetting(f"{self.name} did not start. {self._log_end(log_from)}")
            if answers():
                return
            if time.monotonic() > give_up:
                self.stop(patience=1.0)
                raise BadSetting(
                    f"{self.name} did not answer for {seconds:.0f} seconds and was stopped. {self._log_end(log_from)}"
                )
            time.sleep(0.1)

    def stop(self, signals: Sequence[signal.Signals] = (signal.SIGTERM,), patience: float = 10.0) -> None:
        """Neither the program nor anything that it started runs.

        The program is sent each signal in turn with `patience` seconds to end, then it is killed; whatever it
        leaves behind is asked to end, then killed.
        """
        process = self.process
        if process is not None:
            family = children_of(process)
            for number in signals:
                send([process], number)
                if not wait_for_end([process], patience):
                    break
            send([process], signal.SIGKILL)
            end_all([process, *family], patience)
        end_all(marked_processes(self.directory), patience)
        if self._child is not None:
            self._child.poll()
        self._pid_file.unlink(missing_ok=True)

    def _launch(
        self, arguments: Sequence[str], environment: Mapping[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        log = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # Without its cache of compiled modules a Python program here takes ten seconds more to start.
        inherited = {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
        try:
            with _interruptible_children():
                child = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=directory,
                    env={**inherited, MARK: str(self.directory.resolve())},
                    start_new_session=True,
                    umask=0o077,
                )
        except OSError as error:
            raise BadSetting(f"{self.name} cannot be started: {arguments[0]}: {error.strerror}.") from error
        finally:
            os.close(log)
        write_private(self._pid_file, json.dumps({"pid": child.pid, "birth": birth_of(child.pid)}))
        return child

    def _tie(self) -> list[str]:
        return ["setpriv", "--pdeathsig", "TERM", "--"] if self._owned and shutil.which("setpriv") else []

    def _log_end(self, start: int, lines: int = 5) -> str:
        with self.log_file.open("rb") as log:
            log.seek(start)
            said = log.read().decode("utf-8", "replace").strip().splitlines()
        end = " / ".join(line.strip() for line in said[-lines:])
        return f"Its log {self.log_file} ends: {end}" if end else f"Its log {self.log_file} is empty."


class HasService(ABC):
    """What every service of the quick start can do."""

    service: Service

    @property
    def is_running(self) -> bool:
        return self.service.is_running

    @abstractmethod
    def stop(self) -> None:
        """It does not run; its data stay."""


@contextlib.contextmanager
def _interruptible_children() -> Iterator[None]:
    """Children heed SIGINT even when this process was told to ignore it, as a shell does for `command &`."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
