# ruff: noqa: F401, F811 - fixtures are imported
"""PostgreSQL or psql goes away beside a restore: it is tried again, or ends in one sentence with nothing done."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest
from prefect.task_runners import ThreadPoolTaskRunner

from deployments.quick_start.postgres import PostgresCluster
from deployments.sample import fill
from flows.backup import backup
from flows.restore import restore
from tasks.errors import (
    Unreachable,
)
from tasks.restore.psql_session import PsqlSession
from tasks.restore.stages import Stages
from tests.conftest import BIN_DIRECTORIES
from tests.restore.test_restore_killed import many_parts
from tests.support import ci_skip
from tests.support.faulty_store import FaultyStore, Request
from tests.support.flow_fixtures import WorldFactory
from tests.support.restore_ground import PART, Ground, ground, make_ground
from tests.support.world import Heard, World, paths_below, plain_dump

pytestmark = pytest.mark.usefixtures("impatient", "many_parts")


@pytest.mark.parametrize("mode", ["swap", "in_place"])
def test_a_psql_that_is_cut_off_starts_over_and_the_download_with_it(ground: Ground, heard: Heard, mode: str) -> None:
    cut = ground.in_the_middle(ground.cut)
    state = ground.restore(mode)
    assert cut == [1]
    assert "Retry 1/3 will start" in heard.text and "terminating connection" in heard.text
    assert "Traceback" not in heard.text
    assert ground.gets(0) >= 2
    ground.check_restored(state, mode)


def test_a_psql_that_is_cut_off_again_and_again_fails_the_run(ground: Ground) -> None:
    def rule(request: Request) -> None:
        if request.start >= 4 * PART:
            ground.cut()  # there may be none to cut: psql is asked for the next part before it notices its end

    ground.store.rule = rule
    message = ground.check_untouched(ground.restore(), "psql ended with status", "terminating connection")
    assert "everything was rolled back" in message


@pytest.mark.parametrize("threads", [2, 1])
def test_a_psql_that_is_cut_off_when_it_has_had_everything_starts_over(
    ground: Ground, heard: Heard, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    def finish(stages: Stages) -> None:
        if not cut:
            cut.append(ground.cut())
        real(stages)

    cut: list[int] = []
    real = Stages.finish
    monkeypatch.setattr(Stages, "finish", finish)
    state = restore.with_options(task_runner=ThreadPoolTaskRunner(max_workers=threads))(return_state=True)
    assert cut == [1] and "Retry 1/3 will start" in heard.text
    ground.check_restored(state)


def test_one_thread_is_enough_even_if_psql_starts_over(ground: Ground, heard: Heard) -> None:
    cut = ground.in_the_middle(ground.cut)
    state = restore.with_options(task_runner=ThreadPoolTaskRunner(max_workers=1))(return_state=True)
    assert cut == [1] and "Retry 1/3 will start" in heard.text
    ground.check_restored(state)


def test_the_spool_never_holds_more_than_its_limit_even_if_psql_starts_over(
    make_world: WorldFactory, faulty_store: FaultyStore
) -> None:
    ground = make_ground(make_world, faulty_store, spool_limit=3 * PART)
    cut = ground.in_the_middle(ground.cut, part=6)
    with watched_parts(ground.world) as held:
        state = ground.restore()
    assert cut == [1]
    assert 2 * PART <= max(held) <= 3 * PART
    ground.check_restored(state)
    assert sum(ground.gets(part) for part in range(8)) <= 8 + 8


@contextmanager
def watched_parts(world: World) -> Iterator[list[int]]:
    """The bytes in the spool's parts, whole ones and those on their way, looked at again and again."""
    seen, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.002):
            total = 0
            for path in paths_below(world.spool):
                with suppress(FileNotFoundError):  # not the spool itself, whose name begins with the run's id
                    is_part = path.suffix == ".part" or re.match(r"\.\d", path.name)
                    total += path.stat().st_size if is_part else 0
            seen.append(total)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


@pytest.fixture(scope="module")
def own_server(servers_directory: Path) -> Iterator[tuple[PostgresCluster, Callable[[], None]]]:
    """A server of these tests' own, with prepared transactions, and what restarts it."""
    if not BIN_DIRECTORIES:
        ci_skip("no PostgreSQL server is installed")
    cluster = PostgresCluster(
        servers_directory / "restarted", next(iter(BIN_DIRECTORIES.values())), durable=False, owned=True
    )
    with ThreadPoolExecutor(1) as keeper:  # it dies with the thread that starts it

        def restart() -> None:
            keeper.submit(cluster.stop).result()
            time.sleep(0.5)
            keeper.submit(cluster.start).result()

        keeper.submit(cluster.start).result()
        connection = psycopg2.connect(cluster.url())
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("ALTER SYSTEM SET max_prepared_transactions = 5")
        connection.close()
        restart()
        yield cluster, restart
        cluster.stop(immediate=True)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["swap", "in_place"])
def test_a_server_that_restarts_in_the_middle_costs_a_retry(
    make_world: WorldFactory,
    faulty_store: FaultyStore,
    own_server: tuple[PostgresCluster, Callable[[], None]],
    mode: str,
    heard: Heard,
) -> None:
    cluster, restart = own_server
    ground = make_ground(make_world, faulty_store, cluster)
    ground.in_the_middle(restart)
    state = ground.restore(mode)
    assert "Retry" in heard.text
    ground.check_restored(state, mode)


@pytest.mark.parametrize("mode", ["swap", "in_place"])
def test_a_prepared_transaction_is_named_and_stands_in_the_way(
    make_world: WorldFactory,
    faulty_store: FaultyStore,
    own_server: tuple[PostgresCluster, Callable[[], None]],
    mode: str,
) -> None:
    ground = make_ground(make_world, faulty_store, own_server[0])
    ground.world.sql("BEGIN; UPDATE shop.orders SET id = id WHERE id = 1; PREPARE TRANSACTION 'half done'")
    ground.check_untouched(ground.restore(mode), "'half done'", outcome="refused")
    ground.world.sql("ROLLBACK PREPARED 'half done'")
    ground.check_restored(ground.restore(mode), mode)


def test_an_error_of_the_server_in_the_middle_of_the_dump_ends_it_with_psqls_own_words(
    make_world: WorldFactory, faulty_store: FaultyStore, heard: Heard
) -> None:
    world = make_world(mebibytes=0, settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url})
    fill(world.database_url, 1)
    world.sql("CREATE ROLE needed_once")
    world.sql(
        "CREATE FUNCTION refuses(i int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN"
        " IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'needed_once') THEN"
        " RAISE EXCEPTION 'no such role any more'; END IF; RETURN true; END $$"
    )
    world.sql("CREATE TABLE picky (i int CHECK (public.refuses(i))); INSERT INTO picky VALUES (1), (2)")
    new = plain_dump(world.cluster, world.database_url)
    backup()
    world.sql("DROP ROLE needed_once")
    ground = Ground(world, faulty_store, new).gone_bad()
    ground.check_untouched(ground.restore("in_place"), "raise exception (SQLSTATE P0001)", "everything was rolled back")
    state = ground.restore()
    assert "TABLE DATA public.picky: raise exception (SQLSTATE P0001)" in str(state.message)
    assert ground.dump() == ground.old and ground.world.events()[-1] == ("restore", "failed")
    assert "no such role any more" not in heard.text  # the message of a function may hold a value of a row
    assert "Retry" not in heard.text and "Traceback" not in heard.text


def test_a_commit_of_which_nobody_can_tell_is_never_repeated_in_place(
    ground: Ground, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server took the COMMIT, and psql died before it could say so; then the server did not answer."""

    def commit(session: PsqlSession) -> None:
        session._send(b"COMMIT;\nSELECT pg_sleep(0.2);\n")
        time.sleep(0.1)
        session._psql.kill()
        real(session)

    def unheard(session: PsqlSession) -> bool:
        raise Unreachable("Nobody answers.")

    real = PsqlSession.commit
    monkeypatch.setattr(PsqlSession, "commit", commit)
    monkeypatch.setattr(PsqlSession, "_was_committed", unheard)
    state = ground.restore("in_place")
    assert state.is_failed() and "look at it" in str(state.message), state.message
    assert "Retry" not in heard.text
    assert ground.dump() == ground.new
    monkeypatch.undo()


def test_a_commit_whose_answer_is_lost_counts_when_the_server_knows_of_it(
    ground: Ground, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(session: PsqlSession) -> None:
        session._send(b"COMMIT;\n")
        time.sleep(0.5)
        session._psql.kill()
        real(session)

    real = PsqlSession.commit
    monkeypatch.setattr(PsqlSession, "commit", commit)
    ground.check_restored(ground.restore("in_place"), "in_place")
    assert "Retry" not in heard.text
