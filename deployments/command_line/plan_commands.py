"""`backups plan show | set | add`: a plan, its fields, and a new one. Only a call of one of them imports Prefect."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from deployments.command_line.output import PlanFields, print_json
from deployments.command_line.runs import connected

plan = App(name="plan", help="Show, change or add a backup plan.")


@plan.command
def show(
    name: str, /, *, json: Annotated[bool, Parameter(negative=(), help="Print JSON.", show_default=False)] = False
) -> int:
    """Show all fields of a plan. None of them is secret.

    Args:
        name: The name of the plan.
    """
    connected()
    from deployments.set_plan import fields_of, show_or_change

    if json:
        print_json(PlanFields(name=name, fields=fields_of(name)))
        return 0
    return show_or_change(name)


@plan.command(name="set")
def change(name: str, change: str, /, *more: str) -> int:
    """Change fields of a plan: FIELD=VALUE, such as retention_days=21. A list is written with commas.

    Args:
        name: The name of the plan.
        change: FIELD=VALUE.
        more: More of the same.
    """
    connected()
    from deployments.set_plan import show_or_change

    return show_or_change(name, change, *more)


plan.command(
    "deployments.add_plan:add", name="add", help="Add a plan, from a file like .env.example or by its address."
)
