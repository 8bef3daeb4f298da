"""The flow `verify-backup` on the worker: an upgrade is rehearsed, the live server sees none of it, nothing is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deployments.quick_start.postgres import PostgresCluster
from flows.backup import backup
from flows.verify_backup import verify_backup
from tasks.errors import BackupUnverifiable, VerifyImpossible
from tasks.restore.throw_away import clear_dead_servers
from tests.conftest import BIN_DIRECTORIES, DatabaseFactory
from tests.support import ci_skip, eventually
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import World, go
from tests.verify.test_drill_on import nothing_left
from tests.verify.test_verify_backup import artifact, details, flip

OLDEST, NEWEST = min(BIN_DIRECTORIES, default=0), max(BIN_DIRECTORIES, default=0)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[PostgresCluster]:
    """A server of the oldest version for the live database alone."""
    if OLDEST == NEWEST:
        ci_skip("a rehearsal needs two major versions of PostgreSQL")
    cluster = PostgresCluster(tmp_path / "live", BIN_DIRECTORIES[OLDEST], durable=False, owned=True)
    cluster.start()
    yield cluster
    cluster.stop(immediate=True)


@pytest.fixture
def world(
    make_world: WorldFactory,
    live: PostgresCluster,
    any_postgres: PostgresCluster,
    fresh_database: DatabaseFactory,
) -> World:
    catalogue = fresh_database(any_postgres)
    made = make_world(live, mebibytes=1, settings={"CATALOG_URL": catalogue, "DRILL_ON": "worker"})
    made = World(**{**vars(made), "catalogue_url": catalogue})
    made.catalogue.prepare()
    return made


def test_an_upgrade_is_rehearsed_and_the_live_server_sees_nothing_of_it(
    world: World, live: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = backup()
    log = Path(live.service.log_file)
    world.sql("ALTER SYSTEM SET log_connections = on")
    world.sql("SELECT pg_reload_conf()")
    assert eventually(lambda: [world.sql("SELECT 1")] and "connection received" in log.read_text())
    before = log.read_text().count("connection received")
    done = verify_backup(major=NEWEST, requested_by="Ada")
    assert log.read_text().count("connection received") == before, "the admin page asks nothing either"
    live.stop(immediate=True)  # what is not there cannot be asked
    row = world.rows()[0]
    assert row.verified_at == done.at and done.rows == 1024
    words = f"restored on PostgreSQL {NEWEST}, made on {OLDEST}"
    assert words in row.metadata["verification"]["where"] and words in artifact()
    assert details(world)["verification"]["drilled_on"] == "worker"
    assert nothing_left(world.spool)

    monkeypatch.setenv("CHECKS", "false")
    with pytest.raises(VerifyImpossible, match=r"says nothing about the backup: \(restored on .*check 1 of 1 is false"):
        verify_backup(major=NEWEST)
    monkeypatch.delenv("CHECKS")
    with pytest.raises(VerifyImpossible, match="This worker has no PostgreSQL 99 to restore into"):
        verify_backup(major=99)
    row = world.rows()[0]
    assert row.verified_at == done.at, "a rehearsal that fails takes nothing from the backup"
    assert verify_backup().where == "a server of the worker's own"
    flip(world, saved.key)
    with pytest.raises(BackupUnverifiable, match="is not verified: part 1 of 1"):
        verify_backup()
    assert nothing_left(world.spool)


@pytest.mark.parametrize("moment", [0.3, 1.0, 2.5])
def test_a_drill_that_is_killed_leaves_nothing(world: World, moment: float) -> None:
    backup()
    process = world.start_drill(
        "import tasks.restore.stages as stages, time",
        "add = stages.Stages._add",
        "stages.Stages._add = lambda self, entry, text: (time.sleep(3), add(self, entry, text))[1]",
    )
    go(process)
    assert eventually(lambda: any(world.spool.glob("*.drill")), 60)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    drills = [*world.spool.glob("*.drill")]

    def is_gone() -> bool:
        at_work = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
        return not any(world.spool.glob("*.drill*")) and not [c for c in at_work if str(world.spool) in " ".join(c)]

    assert eventually(is_gone, 60), drills
    assert clear_dead_servers(world.spool) == []
