"""Applies retention now."""

from __future__ import annotations

import argparse
import sys

from prefect import flow

from tasks.core.removal import CleanUp
from tasks.direct import run_directly
from tasks.retention import apply_retention
from tasks.steps import no_restore


@flow(name="cleanup", flow_run_name="cleanup-{plan}", persist_result=False)
def cleanup(plan: str = "default", dry_run: bool = False, requested_by: str = "") -> CleanUp:
    """Remove the backups and replaced databases that are due, or only show which would be.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan).
        dry_run: Only show what would be removed, and why; remove nothing.
        requested_by: Who asks, for the records; may stay empty.
    """
    with no_restore(plan):
        return apply_retention(plan, requested_by, dry_run)


def main() -> int:
    """`python -m flows.cleanup [--plan NAME] [--dry-run]`: exit status 0, or 1 and one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m flows.cleanup", description="Apply one plan's retention now.")
    parser.add_argument("--plan", default="default", help="name of the backup plan (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be removed, and why")
    parser.add_argument("--requested-by", default="", help="who asks, for the records (default: the user's name)")
    given = parser.parse_args()
    return run_directly(lambda: cleanup(given.plan, given.dry_run, given.requested_by))


if __name__ == "__main__":
    sys.exit(main())
