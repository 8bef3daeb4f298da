"""Makes a link that downloads a backup. `python -m flows.download_backup` runs this directly."""

from __future__ import annotations

import sys

from prefect import flow
from prefect.artifacts import Artifact

from tasks.admin_page.steps import admin_page_follows
from tasks.download.steps import ACTION, Offer, offer_download
from tasks.runs.audit import failure_recorded
from tasks.runs.command_line import run_flow
from tasks.runs.reporting import fails_in_one_sentence


@flow(name="download-backup", flow_run_name="download-{plan}-{backup}", persist_result=False)
@fails_in_one_sentence
def download_backup(
    backup: str = "latest", plan: str = "default", expires_minutes: int = 60, requested_by: str = ""
) -> Offer:
    """Makes a link that downloads a backup, and shows the commands that check, open and restore the file.

    The artifact download-<plan> holds the link. Whoever has the link can download the backup until it expires.

    Args:
        backup: latest, or the file name or the id of a completed backup.
        plan: Name of the backup plan (a block of the type Backup Plan).
        expires_minutes: How many minutes the link works, from 1 to 10080 (seven days).
        requested_by: Who asks for this link, for the audit; may stay empty.
    """
    recorded = failure_recorded(ACTION, plan, requested_by, backup=backup, expires_minutes=expires_minutes)
    with admin_page_follows(), recorded:
        return offer_download(backup, plan, expires_minutes, requested_by)


def main() -> int:
    """The command `python -m flows.download_backup`; returns its exit status."""
    return run_flow(
        download_backup, text=_link, text_option=("print_link", "Print the link, a secret, on standard output.")
    )


def _link(offer: Offer) -> str:
    """The link that the newest artifact of the offer's key holds."""
    artifact = Artifact.get(offer.artifact)
    return str(getattr(artifact, "data", "")).rpartition("](")[2].removesuffix(")")


if __name__ == "__main__":
    sys.exit(main())
