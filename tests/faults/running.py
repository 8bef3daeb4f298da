"""One fault from its beginning to the judge's words."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.faults.fault import Fault
from tests.faults.judge import broken_promises
from tests.faults.laboratory import Laboratory
from tests.faults.strikes import armed
from tests.support.faulty_store import Request
from tests.support.world import kill

#: Seconds after which a process that was to be killed is killed anyway.
_PATIENCE = 40


def check(lab: Laboratory, fault: Fault, request: pytest.FixtureRequest) -> None:
    """The fault strikes while its operation runs; then the judge looks, and the record is written."""
    lab.begin(fault.operation)
    began = time.monotonic()
    states, hits = (
        _killed(lab, fault)
        if fault.how.startswith("kill ") and fault.how[5:] in ("before", "after")
        else _struck(lab, fault)
    )
    seconds = time.monotonic() - began
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
    print(f"{fault.name} struck {hits} times, ended {ended} after {seconds:.1f} s. {said}")
    assert hits or fault.where == "clock", f"{fault.name} struck nothing: {fault.operation} has no such request"
    assert not broken, f"{' '.join(broken)} Repeat it: make faults FAULT='{fault.name}' SEED={fault.seed}"


def _struck(lab: Laboratory, fault: Fault) -> tuple[list[Any], int]:
    with armed(lab, fault) as strike:
        state = lab.run(fault.operation)
    return [state, *strike.states], strike.hits


def _killed(lab: Laboratory, fault: Fault) -> tuple[list[Any], int]:
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
    if fault.how == "kill before":
        lab.store.rule = strike
    else:
        lab.store.after = lambda request: strike(request) and None
    process.wait(_PATIENCE)
    kill(process)
    lab.calm()
    return [], hits
