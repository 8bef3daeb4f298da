"""Offers a backup for download by a link. `python -m flows.download_backup` runs it directly."""

from __future__ import annotations

import argparse
import sys

from prefect import flow
from prefect.artifacts import Artifact

from tasks.admin_page.steps import admin_page_follows
from tasks.download.steps import ACTION, Offer, offer_download
from tasks.runs.audit import failure_recorded
from tasks.runs.command_line import run_directly


@flow(name="download-backup", flow_run_name="download-{plan}-{backup}", persist_result=False)
def download_backup(
    backup: str = "latest", plan: str = "default", expires_minutes: int = 60, requested_by: str = ""
) -> Offer:
    """Make a link that downloads a backup, with the commands that check, open and restore the file.

    Args:
        backup: latest, or the file name or the id of a completed backup.
        plan: Name of the backup plan (a block of the type Backup Plan).
        expires_minutes: For how many minutes the link works, from 1 to 10080 (seven days). Whoever has it until then
            can download the backup.
        requested_by: Who asks for this link, for the records; may stay empty.
    """
    recorded = failure_recorded(ACTION, plan, requested_by, backup=backup, expires_minutes=expires_minutes)
    with admin_page_follows(), recorded:
        return offer_download(backup, plan, expires_minutes, requested_by)


def main() -> int:
    """`python -m flows.download_backup [--backup …]`: exit status 0, or 1 and one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m flows.download_backup", description="Make a download link.")
    parser.add_argument("--backup", default="latest", help="latest, a file name or an id (default: %(default)s)")
    parser.add_argument("--plan", default="default", help="name of the backup plan (default: %(default)s)")
    parser.add_argument("--expires-minutes", type=int, default=60, help="1 to 10080 (default: %(default)s)")
    parser.add_argument("--requested-by", default="", help="who asks, for the records (default: the user's name)")
    parser.add_argument("--print-link", action="store_true", help="print the link, a secret, on standard output")
    given = parser.parse_args()

    def run() -> None:
        offer = download_backup(given.backup, given.plan, given.expires_minutes, given.requested_by)
        if given.print_link:
            sys.stdout.write(f"{_link_in(offer.artifact)}\n")

    return run_directly(run)


def _link_in(key: str) -> str:
    """The link that the newest artifact of this key holds."""
    artifact = Artifact.get(key)
    return str(getattr(artifact, "data", "")).rpartition("](")[2].removesuffix(")")


if __name__ == "__main__":
    sys.exit(main())
