"""A run that adopts and is killed: the object stays, and the next backup clears what the run had begun."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import pytest

from deployments.quick_start.postgres import PostgresCluster
from flows.adopt_backup import adopt_backup
from flows.backup import backup
from flows.verify_backup import verify_backup
from tasks.names import MANIFEST_SUFFIX, manifest_key
from tests.adopt.dumps import CUSTOM, dumped, fill
from tests.support.faulty_store import FaultyStore, Request
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import go

pytestmark = pytest.mark.usefixtures("impatient")
KEY = 'old/Zoë\'s "dump".bak'
#: The requests at which the run is killed; each reaches the store all the same.
PLACES: dict[str, Callable[[Request], bool]] = {
    "the object is read": lambda request: request.method == "GET" and request.key.endswith(".bak"),
    "the upload begins": lambda request: request.begins_upload and not request.is_check,
    "the part is sent": lambda request: request.part > 0,
    "the upload is completed": lambda request: request.completes_upload,
    "the manifest is written": lambda request: request.method == "PUT" and request.key.endswith(MANIFEST_SUFFIX),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_adoption_leaves_the_object_and_nothing_that_only_looks_like_a_backup(
    make_world: WorldFactory, any_postgres: PostgresCluster, faulty_store: FaultyStore, place: str
) -> None:
    world = make_world(any_postgres, mebibytes=0)
    fill(any_postgres, world.database_url)
    content = dumped(any_postgres, world.database_url, CUSTOM)
    world.s3.client.put_object(Bucket=world.bucket, Key=KEY, Body=content)
    process = world.start_adoption(KEY, S3_ENDPOINT_URL=faulty_store.endpoint_url)
    victim = psutil.Process(process.pid)

    def strike(request: Request) -> None:
        if PLACES[place](request) and victim.is_running():
            victim.kill()

    faulty_store.rule = strike
    go(process)
    said = process.communicate(timeout=120)
    assert process.returncode == -9, f"the run was not killed when {place}: {said}"

    assert world.statuses() == ["in_progress"]
    done = backup()
    assert [row.status for row in world.rows()] == ["completed", "failed"]
    world.check_completed_are_intact()
    assert world.uploads() == world.spools() == []
    assert sorted(world.objects()) == sorted([KEY, done.key, manifest_key(done.key)])
    assert world.download(KEY) == content

    verify_backup(adopt_backup(KEY).filename)
    assert [row.status for row in world.rows()] == ["completed", "completed", "failed"]
