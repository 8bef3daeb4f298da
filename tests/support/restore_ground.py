"""A backed-up shop to which a bad day has come, behind a store that fails on demand: what restores are tried on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.sample import fill
from flows.backup import backup
from flows.restore import restore
from tasks.postgres.dsn import parse
from tests.support import eventually
from tests.support.faulty_store import FaultyStore, Request
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import World, plain_dump

PART = 1 << 17
SLOW = pytest.mark.slow
#: Restores' own psql, and none of the other sessions that a restore has.
PSQL = "application_name LIKE 'restore ________-%%'"


@dataclass
class Ground:
    """A backed-up shop to which a bad day has come, behind a store that fails on demand."""

    world: World
    store: FaultyStore
    new: bytes
    old: bytes = b""

    @property
    def live(self) -> str:
        return parse(self.world.database_url).dbname

    def gone_bad(self) -> Ground:
        """The live database is another than the one that was backed up."""
        self.world.sql("DELETE FROM shop.order_items WHERE quantity > 1")
        self.old = self.dump()
        return self

    def dump(self) -> bytes:
        return plain_dump(self.world.cluster, self.world.database_url)

    def restore(self, mode: str = "swap", **more: Any) -> Any:
        """Runs the flow; returns its state."""
        given = {"mode": mode, "confirm": self.live if mode == "in_place" else "", **more}
        return restore(**given, return_state=True)  # type: ignore[call-overload]

    def in_the_middle(self, act: Callable[[], Any], part: int = 3) -> list[Any]:
        """`act` is done once, when psql has had what stands before this part; returns where its result will be."""
        done: list[Any] = []
        lock = threading.Lock()

        def rule(request: Request) -> None:
            if request.start == part * PART and not done:
                with lock:
                    if not done:
                        assert eventually(lambda: self.world.restorers() != [])
                        time.sleep(0.3)
                        done.append(act())

        self.store.rule = rule
        return done

    def cut(self) -> int:
        """Ends psql's sessions, as an administrator may; returns how many there were."""
        return len(self.world.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {PSQL}"))

    def gets(self, part: int) -> int:
        """How often a part was asked for."""
        return sum(one.method == "GET" and one.start == part * PART for one in self.store.requests)

    def check_restored(self, state: Any, mode: str = "swap") -> None:
        assert state.is_completed(), state.message
        assert self.dump() == self.new
        assert self.world.events()[-1] == ("restore", "completed")
        if mode == "in_place":
            assert [row.backup_type for row in self.world.rows()].count("pre_restore") == 1
        self.check_nothing_left()

    def check_untouched(self, state: Any, *said: str, outcome: str = "failed") -> str:
        """The run failed with one sentence that holds these words, and the live database is as it was."""
        message = str(state.message)
        assert state.is_failed()
        for words in said:
            assert words in message, message
        assert "\n" not in message.removeprefix("Flow run encountered an exception: ").strip()
        assert self.dump() == self.old
        assert self.world.events()[-1] == ("restore", outcome)
        self.check_nothing_left()
        return message

    def check_nothing_left(self) -> None:
        """No scratch, spool, session or psql."""
        assert self.world.databases("%__restoring_") == []
        assert self.world.spools() == []
        assert eventually(lambda: self.world.restore_sessions() == []), self.world.restore_sessions()
        assert eventually(lambda: self.world.restorers() == [])


def make_ground(
    make_world: WorldFactory, store: FaultyStore, cluster: PostgresCluster | None = None, **more: Any
) -> Ground:
    """A world of a MiB in eight parts, of which the spool holds one unless told otherwise."""
    settings = {"S3_ENDPOINT_URL": store.endpoint_url, **more.pop("settings", {})}
    world = make_world(cluster, mebibytes=0, settings=settings, **{"spool_limit": PART, **more})
    fill(world.database_url, 1)
    new = plain_dump(world.cluster, world.database_url)
    backup()
    store.requests.clear()
    return Ground(world, store, new).gone_bad()


@pytest.fixture
def ground(make_world: WorldFactory, faulty_store: FaultyStore) -> Ground:
    return make_ground(make_world, faulty_store)
