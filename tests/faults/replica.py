"""A replica that fails: before the run it has what the plan's bucket has, and afterwards it must have it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.fault import BACKUP, IN_PLACE, MANIFEST, NEW_DATABASE, SWAP, VERIFY, Fault
from tests.faults.laboratory import Laboratory
from tests.faults.small_world import REPLICA_BUCKET, REPLICA_URL
from tests.support.faulty_store import Request

_OWN, _COPIES = "database-backups/", "copies/"


@contextmanager
def with_replica(lab: Laboratory) -> Iterator[None]:
    """The plan has a replica with a copy of everything."""
    _copy_all(lab)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(REPLICA_URL, lab.replica.endpoint_url)
        yield


def own_bucket_has_lost_it(fault: Fault, request: Request) -> int | None:
    """For the store: a restore finds nothing there, and reads the replica."""
    return 404 if fault.operation in (SWAP, NEW_DATABASE, IN_PLACE, VERIFY) and ".sql" in request.key else None


def _copy_all(lab: Laboratory) -> None:
    client = lab.world.s3.client
    for key in _objects(lab):
        client.delete_object(Bucket=REPLICA_BUCKET, Key=key)
    for key in lab.world.objects():
        copy = key.replace(_OWN, _COPIES, 1)
        client.put_object(Bucket=REPLICA_BUCKET, Key=copy, Body=lab.world.download(key))


def _objects(lab: Laboratory) -> list[str]:
    listed = lab.world.s3.client.list_objects_v2(Bucket=REPLICA_BUCKET)
    return [item["Key"] for item in listed.get("Contents", ())]


def broken_in_replica(lab: Laboratory, fault: Fault, is_whole: bool) -> list[str]:
    """What is not as promised. When a run `is_whole`, nothing is lacking and nothing is left of what was removed."""
    found = []
    keys, rows = _objects(lab), lab.world.rows()
    for key in keys:
        if key.endswith(MANIFEST) and _digest(lab, key.removesuffix(MANIFEST)) != _told(lab, key):
            found.append(f"The replica has the manifest {key}, and not its object.")
    for row in rows if is_whole else ():
        copy = f"{row.s3_key.replace(_OWN, _COPIES, 1)}{MANIFEST}"
        if row.status == "completed" and fault.operation == BACKUP and copy not in keys:
            found.append(f"The run completed, and the replica lacks {row.filename}.")
        if row.status in ("deleted", "expired") and any(row.filename in key for key in keys):
            found.append(f"{row.filename} is {row.status}, and the replica still has it.")
    return found


def _digest(lab: Laboratory, key: str) -> str:
    return hashlib.sha256(_content(lab, key)).hexdigest() if key in _objects(lab) else ""


def _told(lab: Laboratory, key: str) -> str:
    return str(json.loads(_content(lab, key))["object"]["sha256"])


def _content(lab: Laboratory, key: str) -> bytes:
    return bytes(lab.world.s3.client.get_object(Bucket=REPLICA_BUCKET, Key=key)["Body"].read())
