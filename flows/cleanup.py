"""Cleans up now: retention, databases that restores replaced or left, open uploads, orphans."""

from __future__ import annotations

import sys

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.retention.steps import Cleaned, clean
from tasks.runs.audit import for_each_plan, named_by_plan
from tasks.runs.command_line import run_flow
from tasks.runs.reporting import fails_in_one_sentence


@flow(name="cleanup", flow_run_name=named_by_plan("cleanup"), persist_result=False)
@fails_in_one_sentence
def cleanup(
    plan: str = "default",
    dry_run: bool = False,
    remove_orphans: bool = False,
    remove_versions: bool = False,
    confirm: int = 0,
    requested_by: str = "",
) -> tuple[Cleaned, ...]:
    """Removes the backups and the replaced databases that are due, and what dead runs left behind.

    With dry_run it removes nothing. The artifact retention-<plan> shows what stays, what goes, and why.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan); empty means every plan.
        dry_run: Only show what would be removed, and why.
        remove_orphans: Also remove orphans: files in the bucket without a row in the catalogue, such as a file whose
            manifest is lost. Without this they are only listed. A whole backup is never an orphan.
        remove_versions: Also remove older versions, in a bucket that keeps versions, of backups that were removed. They
            cannot be brought back then. Without this they are only counted.
        confirm: How many backups may go now, where more are due than usually go on one day; the artifact names the
            number.
        requested_by: Who asks, for the audit; may stay empty.
    """
    with admin_page_follows():
        return for_each_plan(
            plan,
            "cleanup",
            requested_by,
            lambda name: clean(name, dry_run, remove_orphans, remove_versions, requested_by, confirm),
        )


def main() -> int:
    """The command `python -m flows.cleanup`; returns its exit status."""
    return run_flow(cleanup)


if __name__ == "__main__":
    sys.exit(main())
