"""One fault from its beginning to the judge's words."""

from __future__ import annotations

import subprocess
import time
from contextlib import nullcontext, suppress
from typing import Any

import pytest

from tests.faults.fault import Fault
from tests.faults.judge import broken_promises
from tests.faults.laboratory import Laboratory
from tests.faults.other_workers import run_with_wrong_clock, wrong_clock
from tests.faults.replica import with_replica
from tests.faults.strikes import armed
from tests.support.faulty_store import Request
from tests.support.world import kill

#: Seconds after which a process that was to be killed is killed anyway.
_PATIENCE = 40


def check(lab: Laboratory, fault: Fault, request: pytest.FixtureRequest) -> None:
    """The fault strikes while its operation runs; then the judge looks, and the record is written."""
    lab.begin(fault.operation, history=fault.where == "clock")
    with with_replica(lab) if fault.where == "replica" else nullcontext():
        states, hits, seconds = _meet(lab, fault)
        ended = [state.type.value.lower() for state in states] or ["killed"]
        request.node.user_properties += [
            ("kind", "fault"),
            ("fault", fault.name),
            ("where", fault.where),
            ("operation", fault.operation),
            ("how", fault.how),
            ("seed", fault.seed),
            ("struck", hits),
            ("ended", ended[0]),
        ]
        broken = broken_promises(lab, fault, states, seconds)
    said = "; ".join(str(state.message) for state in states if not state.is_completed())
    print(f"{fault.name} struck {hits} times, ended {ended} after {seconds:.1f} s. {said} {' '.join(broken)}".rstrip())
    assert hits or fault.where == "clock" or fault.how == "few locks", (
        f"{fault.name} struck nothing: {fault.operation} has no such request"
    )
    assert not broken, f"{' '.join(broken)} Repeat it: make faults FAULT='{fault.name}' SEED={fault.seed}"


def _meet(lab: Laboratory, fault: Fault) -> tuple[list[Any], int, float]:
    """The states in which the runs ended, how often the fault struck, and how long the runs took."""
    if fault.how in ("kill before", "kill after"):
        return [], _killed(lab, fault), 0
    if fault.how.startswith("worker "):
        lab.worker(**wrong_clock(fault.how))
        began = time.monotonic()
        return [run_with_wrong_clock(lab, fault)], 1, time.monotonic() - began
    with armed(lab, fault) as strike:
        began = time.monotonic()
        state = lab.run(fault.operation)
        strike.wait()
    return [state, *strike.states], strike.hits, time.monotonic() - began


def _killed(lab: Laboratory, fault: Fault) -> int:
    """The run's own process is killed, before the store has the request, or before the run has the answer."""
    hits = 0

    def strike(request: Request) -> str | None:
        nonlocal hits
        if not fault.strikes(request):
            return None
        hits += 1
        process.kill()
        return "drop"

    process = lab.start(fault.operation)
    store = lab.replica if fault.where == "replica" else lab.store
    if fault.how == "kill before":
        store.rule = strike
    else:
        store.after = lambda request: strike(request) and None
    with suppress(subprocess.TimeoutExpired):
        process.wait(_PATIENCE)
    kill(process)
    lab.calm()
    return hits
