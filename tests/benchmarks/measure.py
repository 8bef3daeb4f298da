"""Runs a command and says how long it took and how much memory its process tree needed at most."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Measured:
    """Wall time in seconds, peak of the tree's resident memory in bytes, and what was printed."""

    seconds: float
    peak: int
    output: str


def measured(arguments: Sequence[str], environment: dict[str, str], discard: bool = False) -> Measured:
    """Runs to the end. Raises CalledProcessError when it fails."""
    began = time.perf_counter()
    out = subprocess.DEVNULL if discard else subprocess.PIPE
    process = subprocess.Popen(
        arguments, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
    )
    peak, ended = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), peak, ended), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - began
    ended.set()
    watcher.join()
    text = (output or b"").decode(errors="replace")
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, list(arguments), text)
    return Measured(seconds, peak[0], text)


def _watch(root: psutil.Process, peak: list[int], ended: threading.Event) -> None:
    while not ended.wait(0.5):  # a look at every process costs milliseconds of a core
        total = 0
        try:
            for process in (root, *root.children(recursive=True)):
                total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        peak[0] = max(peak[0], total)
