# ruff: noqa: F401, F811 - fixtures are imported
"""Clients, other runs and people beside a restore: nothing is half done, and each is told what stands in its way."""

from __future__ import annotations

import contextvars
import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg2
import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelling

from deployments.quick_start.prefect_services import Worker
from flows.backup import backup
from flows.restore import restore
from tasks.errors import (
    AlreadyRunning,
)
from tasks.restore import in_place
from tests.backup.test_killed import state_of, worker
from tests.restore.test_restore_killed import many_parts
from tests.support import eventually
from tests.support.faulty_store import Request
from tests.support.restore_ground import PART, Ground, ground
from tests.support.world import CHECKOUT

pytestmark = pytest.mark.usefixtures("impatient", "many_parts")


def test_a_client_that_holds_a_lock_is_waited_for_and_named(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_place, "removal", functools.partial(in_place.removal, lock_wait=3))
    with ground.world.transaction() as cursor:
        cursor.execute("SELECT count(*) FROM shop.orders")
        began = time.monotonic()
        state = ground.restore("in_place")
        assert time.monotonic() - began < 30
        ground.check_untouched(state, "lock timeout", "shop.orders", "(test, process", "end what holds the lock")


def test_clients_that_come_back_and_one_idle_in_a_transaction_do_not_hold_up_a_swap(ground: Ground) -> None:
    ended, gaps = threading.Event(), [0.0]

    def come_back() -> None:
        seen = time.monotonic()
        while not ended.is_set():
            with suppress(psycopg2.OperationalError, psycopg2.InterfaceError):
                while not ended.is_set():
                    assert ground.world.sql("SELECT count(*) > 0 FROM shop.orders") == [(True,)]
                    gaps.append(time.monotonic() - seen)
                    seen = time.monotonic()

    idle = psycopg2.connect(ground.world.database_url)
    idle.cursor().execute("UPDATE shop.orders SET id = id")
    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(come_back) for _ in range(3)]
        try:
            state = ground.restore()
        finally:
            ended.set()
        for client in clients:
            client.result()
    idle.close()
    # Some milliseconds and the time of a connection, with room for a slow machine:
    assert state.result().swap_seconds < 5.0
    assert max(gaps) < 6.0
    ground.check_restored(state)


@pytest.mark.parametrize("second", ["restore", "backup"])
def test_while_a_restore_runs_another_and_a_backup_are_refused(ground: Ground, second: str) -> None:
    def rival() -> Any:
        flow = {"restore": restore, "backup": backup}[second]
        return contextvars.Context.run(context, flow, return_state=True)

    context = contextvars.copy_context()
    answers = ground.in_the_middle(rival)
    ground.check_restored(ground.restore())
    [state] = answers
    message = str(state.message)
    assert f"Database {ground.live} cannot be " in message and "by run " in message and " since " in message
    assert "wait for it to end" in message and "\n" not in message.strip()
    with pytest.raises(AlreadyRunning):
        state.result()
    assert second == "backup" or ("restore", "refused") in ground.world.events()


def test_while_a_backup_runs_a_restore_is_refused(ground: Ground) -> None:
    context, answers = contextvars.copy_context(), list[Any]()

    def rule(request: Request) -> None:
        if request.part and not answers:
            answers.append(context.run(functools.partial(restore, return_state=True)))

    ground.store.rule = rule
    state = backup(return_state=True)
    assert state.is_completed()
    [refused] = answers
    assert f"Database {ground.live} cannot be restored now" in refused.message and "by run " in refused.message
    assert ("restore", "refused") in ground.world.events()
    assert ground.dump() == ground.old


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["swap", "in_place"])
def test_a_run_that_is_cancelled_while_psql_runs_ends_as_cancelled_with_nothing_done(
    ground: Ground, worker: Worker, mode: str
) -> None:
    stalled, released = threading.Event(), threading.Event()

    def rule(request: Request) -> None:
        if request.start == 3 * PART:
            stalled.set()
            released.wait(120)

    ground.store.rule = rule
    worker.start()
    source: Any = restore.from_source(source=str(CHECKOUT), entrypoint="flows/restore.py:restore")
    deployed = source.deploy(name="killed", work_pool_name="killed", build=False, push=False, print_next_steps=False)
    given = {"mode": mode, "confirm": ground.live if mode == "in_place" else ""}
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(deployed, parameters=given)
        assert stalled.wait(120)
        assert eventually(lambda: ground.world.restorers() != [])
        client.set_flow_run_state(run.id, Cancelling())
    assert eventually(lambda: ground.world.restorers() == [], 60), "the flow was not told"
    released.set()  # a request that is under way is waited for
    assert eventually(lambda: state_of(run) == "CANCELLED", 60), state_of(run)
    assert ground.dump() == ground.old
    assert eventually(lambda: ground.world.events()[-1] == ("restore", "failed"))
    ground.check_nothing_left()
    ground.store.rule = lambda request: None
    ground.check_restored(ground.restore())
