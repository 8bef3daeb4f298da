"""Where a run restores to: the plan with the server of that place."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tasks.plans.plan import Plan, pinned
from tasks.restore.throw_away import address
from tasks.restore.values import Place


def at(plan: Plan, place: Place) -> Plan:
    """The plan, whose database is an address of the server that a run restores to, the same to the end of the run.

    With another server than its own, the plan's own is not asked for anything. Raises as `Dsn.pinned`, and
    ServerNotStarted when a server of the worker's own is gone.
    """
    if place.kind == "worker":
        tools = os.pathsep.join(filter(None, [plan.tools_directory, place.programs]))
        return replace(plan, database=address(Path(place.directory)), tools_directory=tools)
    if place.kind == "block":
        assert plan.drill_database is not None
        return pinned(replace(plan, database=plan.drill_database))
    return pinned(plan)
