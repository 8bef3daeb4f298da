"""One judge for all faults: which promises an operation broke, in sentences. None means that all were kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from tasks.plans.find_plan import plan_named
from tasks.stored_backups.find_backup import recorded_row
from tests.faults.fault import BACKUP, CLEANUP, DELETE, IN_PLACE, NEW_DATABASE, SWAP, Fault
from tests.faults.laboratory import MARKER, Laboratory
from tests.faults.replica import broken_in_replica

#: Seconds within which every run ends, whatever fails.
MOST_SECONDS = 60
_INTO_LIVE = {SWAP, IN_PLACE}


def most_seconds() -> float:
    """The same where programs of others want the cores as well: as much longer as a program waits for its turn."""
    return MOST_SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def broken_promises(lab: Laboratory, fault: Fault, states: Sequence[Any], seconds: float) -> list[str]:
    """What is not as promised, after a run that ended in these states; none when it was killed."""
    found = [f"It took {seconds:.0f} s."] if seconds > most_seconds() else []
    found += [problem for state in states for problem in _of_state(lab, state)]
    if states and fault.ends != "either" and not getattr(states[0], f"is_{fault.ends}")():
        found.append(f"It ended as {states[0].type.value}, not {fault.ends}: {states[0].message}")
    found += _of_log(lab)
    found += _of_live(lab, fault, states)
    found += _of_stored(lab)
    if fault.operation == BACKUP and states and states[0].is_completed():
        found += [] if lab.world.statuses()[:1] == ["completed"] else ["The run completed, and its row did not."]
    found += _of_clocks(lab, fault)
    return found + _of_next_run(lab, fault) + _of_replica(lab, fault, states)


def _of_state(lab: Laboratory, state: Any) -> list[str]:
    """A run is completed, or failed with one sentence."""
    if state.is_completed():
        return []
    message = str(state.message)
    if not state.is_failed():
        return [f"It ended as {state.type.value}: {message}"]
    said = "The message is not one sentence of ours"
    foreign = "Flow run encountered an exception" in message or "\n" in message.strip()
    return [f"{said}: {message}"] if foreign or not message.rstrip().endswith((".", ")")) else []


def _of_log(lab: Laboratory) -> list[str]:
    """No log, no row of the records and no event repeats a secret or a value of a row."""
    kept = lab.world.sql(
        "SELECT error, details::text FROM backup_events ORDER BY id DESC LIMIT 10", url=lab.world.catalogue_url
    )
    text = "\n".join([lab.heard.text, str(kept), *(str(row.error) for row in lab.world.rows())])
    found = ["A traceback is in the log."] if "Traceback" in text else []
    secrets = {"the database's password": lab.world.cluster.password, "the store's key": lab.world.s3.secret_access_key}
    return found + [f"The log holds {name}." for name, value in {**secrets, "a row": MARKER}.items() if value in text]


def _of_live(lab: Laboratory, fault: Fault, states: Sequence[Any]) -> list[str]:
    """The live database is as it was, or exactly what was backed up."""
    operations = [fault.operation, *fault.others]
    live = lab.dump()
    if live not in (lab.old, lab.new):
        return ["The live database is neither the old one nor the backed-up one."]
    found = []
    if live == lab.new and not _INTO_LIVE.intersection(operations):
        found.append("The live database was changed by an operation that must not change it.")
    if len(states) == 1 and operations[0] in _INTO_LIVE:
        told = states[0].is_completed()
        if told != (live == lab.new) and "look at it" not in str(states[0].message):
            found.append(f"The run is {states[0].type.value}, and the live database is {'new' if not told else 'old'}.")
    if operations[0] == NEW_DATABASE and states and states[0].is_completed() and lab.dump(lab.target) != lab.new:
        found.append("The new database is not what was backed up.")
    return found


def _of_stored(lab: Laboratory) -> list[str]:
    """Every completed row has its intact object, and what was to stay is there."""
    found = []
    try:
        lab.world.check_completed_are_intact()
    except Exception as error:
        found.append(f"A completed row has no intact object: {type(error).__name__} {str(error)[:200]}")
    statuses = {row.filename: row.status for row in lab.world.rows()}
    lost = [name for name in (lab.base, *lab.young) if statuses.get(name) != "completed"]
    found += [f"{name}, which was to stay, is {statuses.get(name)}." for name in lost]
    kept = [row for row in lab.world.rows() if row.kept and row.status != "completed"]
    return found + [f"{row.filename}, which is kept for ever, is {row.status}." for row in kept]


def _of_clocks(lab: Laboratory, fault: Fault) -> list[str]:
    """Whatever the clocks say, the newest backup is the one that was made last."""
    if fault.where != "clock":
        return []
    before = {lab.base, *lab.young, *lab.due}
    made = [row.filename for row in lab.world.rows() if row.status == "completed" and row.filename not in before]
    newest, last = recorded_row(plan_named(lab.world.plan), "latest"), (made or [lab.base])[0]
    said = newest.filename if newest else "none"
    return [] if said == last else [f"The newest backup is said to be {said}, and it is {last}."]


def _of_next_run(lab: Laboratory, fault: Fault) -> list[str]:
    """What is left is cleared by the next run of the same operation, without help."""
    left = lab.debris()
    if not left:
        return []
    if fault.operation == NEW_DATABASE:
        lab.target += "_next"
    state = lab.run(CLEANUP if fault.operation == DELETE else fault.operation)
    found = [] if state.is_completed() else [f"After {left}, the next run failed: {state.message}"]
    return found + [f"The next run left {what}." for what in lab.debris()]


def _of_replica(lab: Laboratory, fault: Fault, states: Sequence[Any]) -> list[str]:
    """A manifest in a replica means a whole copy; and a run that completed has done there what it says, or the next does."""
    if fault.where != "replica":
        return []
    is_whole = bool(states) and states[0].is_completed()
    found = broken_in_replica(lab, fault, is_whole)
    if is_whole or fault.operation not in (BACKUP, CLEANUP, DELETE):
        return found
    state = lab.run(CLEANUP if fault.operation == DELETE else fault.operation)
    found += [] if state.is_completed() else [f"With the replica back, the next run failed: {state.message}"]
    return found + broken_in_replica(lab, fault, True)
