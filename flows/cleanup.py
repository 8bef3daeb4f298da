"""Applies retention now."""

from __future__ import annotations

from prefect import flow

from tasks.core.removal import CleanUp
from tasks.retention import apply_retention


@flow(name="cleanup", flow_run_name="cleanup-{plan}", persist_result=False)
def cleanup(plan: str = "default", dry_run: bool = False, requested_by: str = "") -> CleanUp:
    """Remove the backups that are due by the plan's retention, or only show which would be.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan).
        dry_run: Only show what would be removed, and why; remove nothing.
        requested_by: Who asks, for the records; may stay empty.
    """
    return apply_retention(plan, requested_by, dry_run)
