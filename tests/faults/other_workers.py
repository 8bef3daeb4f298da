"""Operations in processes of their own: two workers at once, and workers and servers whose clocks are wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.fault import Fault
from tests.faults.laboratory import Laboratory
from tests.support import ci_skip

_UNITS = {"min": "m", "h": "h", "days": "d"}


@contextmanager
def waiting_workers(lab: Laboratory, fault: Fault) -> Iterator[Callable[[], list[Callable[[], Any]]]]:
    """Processes that wait for the fault's other operations. The value begins these; each result waits for one's end."""
    waiting = [lab.worker(number) for number, _ in enumerate(fault.others)]

    def begin() -> list[Callable[[], Any]]:
        for process, operation in zip(waiting, fault.others, strict=True):
            lab.call(process, operation)
        return [lambda process=process: lab.ended(process) for process in waiting]  # type: ignore[misc]

    yield begin


def run_with_wrong_clock(lab: Laboratory, fault: Fault) -> Any:
    """The operation in a process whose clock is wrong from its first moment, as `worker 25 h ahead` says; its state."""
    process = lab.worker(**wrong_clock(fault.how))
    lab.call(process, fault.operation)
    return lab.ended(process)


@contextmanager
def server_with_wrong_clock(lab: Laboratory, how: str) -> Iterator[None]:
    """PostgreSQL's own clock is wrong, as `server 25 h ahead` says."""
    with pytest.MonkeyPatch.context() as patch:
        lab.keeper.submit(lab.world.cluster.stop).result()
        for name, value in wrong_clock(how).items():
            patch.setenv(name, value)
        lab.keeper.submit(lab.world.cluster.start).result()
    try:
        yield
    finally:
        lab.restart()


def wrong_clock(how: str) -> dict[str, str]:
    """What a program's environment needs for that: libfaketime, which stands between a program and its clock."""
    _, number, unit, direction = how.split()
    libraries = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), *Path("/usr/lib/faketime").glob("*.so.1")]
    if not libraries:
        ci_skip("libfaketime is not installed (Debian: apt-get install faketime)")
    sign = "+" if direction == "ahead" else "-"
    return {
        "LD_PRELOAD": os.pathsep.join(map(str, libraries[:1])),
        "FAKETIME": f"{sign}{number}{_UNITS[unit]}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
