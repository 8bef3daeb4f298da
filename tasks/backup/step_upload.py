"""The step that uploads."""

from __future__ import annotations

import time

from prefect import task

from tasks.backup.upload import Shipper
from tasks.plans.find_plan import plan_named
from tasks.runs.reporting import human_bytes, now, progress, say
from tasks.runs.retries import RETRIED
from tasks.storage.backup_stages import BackupRun, StoredObject
from tasks.storage.spool import POLL_SECONDS, Spool


@task(name="upload", **RETRIED)
def upload(run: BackupRun, parts: Spool) -> StoredObject:
    """Ships the parts while the dump still writes them. Another try sends only what the store has not acknowledged."""
    parts.announce_upload()
    storage = plan_named(run.plan).storage
    show = progress(f"Uploading {run.filename}", run.expected_size)
    while True:
        with parts.sole_shipper() as mine:
            if mine:
                stored = Shipper(parts, storage, run.key).ship(now, show)
                break
        parts.check_stopped()
        time.sleep(POLL_SECONDS)
    say(
        f"Stored {human_bytes(stored.size)} in {len(stored.parts)} parts as s3://{storage.bucket}/{stored.key}, "
        "and confirmed it."
    )
    return stored
