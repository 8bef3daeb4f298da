"""Rebuilds the catalogue from the bucket alone. `python -m flows.rebuild_catalogue` runs it directly."""

from __future__ import annotations

import sys

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.rebuild_catalogue.steps import Rebuilt, rebuild, stored_plans
from tasks.runs.audit import for_each_plan, named_by_plan
from tasks.runs.command_line import run_flow
from tasks.runs.reporting import fails_in_one_sentence


@flow(name="rebuild-catalogue", flow_run_name=named_by_plan("rebuild-catalogue"), persist_result=False)
@fails_in_one_sentence
def rebuild_catalogue(
    plan: str = "default",
    dry_run: bool = False,
    trust: list[str] = [],  # noqa: B006 - never changed; the form of the Prefect UI needs a list
    requested_by: str = "",
) -> tuple[Rebuilt, ...]:
    """Writes the rows of the catalogue anew from what the bucket holds, for when they are lost or wrong.

    With dry_run it writes nothing. The artifact rebuild-<plan> shows what differs.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan); empty means every plan.
        dry_run: Only show how the catalogue differs from the bucket.
        trust: File names, or patterns such as backup_2026-03-* or *, of the backups that you know to be yours. Others
            that the catalogue has not seen made, and that no trusted key of the plan has signed, stay unproved: they
            are shown, not restored, and not removed.
        requested_by: Who asks, for the audit; may stay empty.
    """
    with admin_page_follows():
        return for_each_plan(
            plan,
            "rebuild-catalogue",
            requested_by,
            lambda name: rebuild(name, dry_run, trust, requested_by),
            stored_plans,
        )


def main() -> int:
    """The command `python -m flows.rebuild_catalogue`; returns its exit status."""
    return run_flow(rebuild_catalogue)


if __name__ == "__main__":
    sys.exit(main())
