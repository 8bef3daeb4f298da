"""Makes a backup of a dump that this system did not make. `python -m flows.adopt_backup --key …` runs it directly."""

from __future__ import annotations

import sys

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.adopt.steps import AdoptedBackup, make_adopted
from tasks.backup.steps import sole_backup
from tasks.runs.at_once import SIDE_BY_SIDE
from tasks.runs.command_line import run_flow
from tasks.runs.reporting import fails_in_one_sentence


@flow(name="adopt-backup", flow_run_name="adopt-{plan}", persist_result=False, task_runner=SIDE_BY_SIDE)
@fails_in_one_sentence
def adopt_backup(key: str, plan: str = "default", requested_by: str = "") -> AdoptedBackup:
    """Makes a backup of a dump in the plan's bucket that this system did not make, such as one of an older script.

    The object is read once and stays as it is: text or an archive of pg_dump, also compressed (gzip, zstd) or encrypted
    for the plan (age). What is cut, or is no dump, is refused. The backup is unproved: no restore takes it before
    verify-backup has restored it into a scratch database. Retention counts its age from now on. No backup of the plan
    can be made meanwhile.

    Args:
        key: Key of the object in the plan's bucket, such as old/shop.dump.
        plan: Name of the backup plan (a block of the type Backup Plan).
        requested_by: Your name, for the records. May stay empty.
    """
    with admin_page_follows(), sole_backup(plan):
        return make_adopted(key, plan, requested_by)


def main() -> int:
    """The command `python -m flows.adopt_backup`; returns its exit status."""
    return run_flow(adopt_backup)


if __name__ == "__main__":
    sys.exit(main())
