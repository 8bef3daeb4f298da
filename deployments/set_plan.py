"""`python -m deployments.set_plan NAME [FIELD=VALUE …]`: shows a plan, or changes fields of it.

Fields are those of the block Backup Plan: `python -m deployments.set_plan default retention_days=21`.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import httpx
from pydantic import ValidationError

from deployments.set_up_parts.blocks import edit_block
from deployments.set_up_parts.remembered import Memory
from deployments.set_up_parts.schedules import update_schedules
from tasks.errors import BackupSystemError, BadSetting
from tasks.plans.blocks import BackupPlan
from tasks.plans.find_plan import named_block, revealed, stored_block
from tasks.plans.schedules import rule
from tasks.plans.settings import list_text, listed
from tasks.prefect_client import reason
from tasks.runs.arguments import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the plan is shown or changed, else 1 and one sentence on stderr."""
    return run_command(show_or_change, arguments)


def show_or_change(name: str, /, *changes: str) -> int:
    """Show all fields of a plan, or change some of them.

    Parameters
    ----------
    name
        the name of the plan
    changes
        FIELD=VALUE, such as retention_days=21; without any, the fields are shown
    """
    try:
        for line in set_plan(name, changes) if changes else shown(name):
            print(line, flush=True)
    except httpx.HTTPStatusError as error:
        print(f"Prefect answers {reason(error)}", file=sys.stderr)
        return 1
    except BackupSystemError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def shown(name: str) -> list[str]:
    """Every field of a plan, as it can be given again. Raises BadSetting."""
    return [f"{field}={_text(field, value)}" for field, value in fields_of(name).items()]


def fields_of(name: str) -> dict[str, Any]:
    """The fields of a plan, none of which is secret. Raises BadSetting when there is no such plan."""
    return dict(revealed(_plan(name)))


def set_plan(name: str, changes: Sequence[str]) -> Iterator[str]:
    """The fields of a plan have these values; yields a line for each thing that was changed.

    Raises BadSetting, before anything is changed, when a field or a value cannot be used.
    """
    stored = _plan(name)
    before = revealed(stored)
    wanted = {field: value for field, value in _parsed(changes).items() if value != before[field]}
    plan = _checked(name, {**before, **wanted})
    for field in wanted:
        new = getattr(plan, field)
        edit_block(stored, {field: new})
        yield (
            f"Plan {name} was changed: {field} is {_text(field, new) or 'empty'}, it was "
            f"{_text(field, before[field]) or 'empty'}."
        )
    if {"schedule", "schedule_timezone", "restore_only"} & wanted.keys():
        yield from update_schedules(Memory.load())
    if not wanted:
        yield f"Plan {name} is so already."


def _plan(name: str) -> BackupPlan:
    stored = stored_block(BackupPlan, name)
    if stored is None:
        raise BadSetting(f"There is no plan {name!r} on the Prefect server: add it with backups plan add.")
    assert isinstance(stored, BackupPlan)
    return stored


def _parsed(changes: Sequence[str]) -> dict[str, Any]:
    """The values by field. Raises BadSetting."""
    parsed = {}
    for change in changes:
        field, equals, text = change.partition("=")
        if not equals:
            raise BadSetting(f"{change!r} has no value: write FIELD=VALUE, such as retention_days=21.")
        if field not in BackupPlan.model_fields:
            close = difflib.get_close_matches(field, BackupPlan.model_fields, 1)
            raise BadSetting(f"A plan has no field {field!r}" + (f": did you mean {close[0]}?" if close else "."))
        parsed[field] = _value(field, text)
    return parsed


def _value(field: str, text: str) -> Any:
    """A value as pydantic takes it: a list is written as in `.env`, everything else as it is."""
    if BackupPlan.model_fields[field].annotation == list[str]:
        return listed(field, text)
    try:
        return text if isinstance(BackupPlan.model_fields[field].default, str) else json.loads(text)
    except ValueError:
        return text


def _checked(name: str, fields: Mapping[str, Any]) -> BackupPlan:
    """The plan with these fields, which can be used. Raises BadSetting."""
    try:
        plan = BackupPlan(**fields)
    except ValidationError as error:
        said = (f"{one['loc'][0]}: {one['msg']}" for one in error.errors(include_input=False))
        raise BadSetting(f"Plan {name} cannot be so: {'; '.join(said)}.") from None
    rule(plan.schedule, plan.schedule_timezone, f"The schedule of plan {name}")
    plan.resolved(name, partial(named_block, name))
    return plan


def _text(field: str, value: Any) -> str:
    if isinstance(value, list):
        return list_text(field, value)
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())
