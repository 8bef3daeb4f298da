"""One backup of a plan at a time, wherever it runs; a lock of a dead holder frees itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import AccessRefused, AlreadyRunning, Unreachable
from tasks.postgres import locks
from tasks.postgres.dsn import Dsn, parse
from tasks.postgres.locks import backup_lock, exclusive, is_held, lock_key, restore_lock
from tests.conftest import DatabaseFactory
from tests.support import eventually, whole_story

CHECKOUT = Path(__file__).parents[2]
#: Names whose keys have either sign, as PostgreSQL stores them in two halves.
PLANS = ("default", "shop", "a", "b", "shop-eu-1", "x" * 63)


@pytest.fixture
def catalogue(postgres_server: PostgresCluster, fresh_database: DatabaseFactory) -> Dsn:
    return parse(fresh_database(postgres_server))


def test_keys_differ_by_kind_and_name_and_fit_into_a_bigint() -> None:
    keys = {lock_key(kind, name) for kind in ("backup", "restore") for name in PLANS}
    assert len(keys) == 2 * len(PLANS)
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert any(key < 0 for key in keys) and any(key > 0 for key in keys)


@pytest.mark.parametrize("plan", PLANS)
def test_a_second_holder_is_refused_at_once_and_told_who_has_it(catalogue: Dsn, plan: str) -> None:
    with exclusive(catalogue, "backup", plan, "run 4711"):
        began = time.monotonic()
        with pytest.raises(AlreadyRunning) as refused, exclusive(catalogue, "backup", plan, "run 4712"):
            pytest.fail("two runs hold one lock")
        assert time.monotonic() - began < 10, "it does not wait, with room for a slow machine"
    said = str(refused.value)
    assert f"A backup of {plan} is under way already by run 4711 since 20" in said and "\n" not in said


def test_whoever_has_the_lock_keeps_it_when_another_was_refused(catalogue: Dsn) -> None:
    with exclusive(catalogue, "backup", "p", "first"):
        for _ in range(3):
            with pytest.raises(AlreadyRunning), exclusive(catalogue, "backup", "p", "second"):
                pass


def test_the_lock_is_free_after_the_block_and_after_an_error_in_it(catalogue: Dsn) -> None:
    with exclusive(catalogue, "backup", "p", "first"):
        pass
    with pytest.raises(ZeroDivisionError), exclusive(catalogue, "backup", "p", "second"):
        raise ZeroDivisionError
    with exclusive(catalogue, "backup", "p", "third"):
        pass


def test_different_plans_and_different_kinds_do_not_block_each_other(catalogue: Dsn) -> None:
    with (
        exclusive(catalogue, "backup", "app", "one"),
        exclusive(catalogue, "backup", "app-prod", "two"),
        exclusive(catalogue, "restore", "app", "three"),
    ):
        pass


def test_a_lock_in_another_catalogue_is_another_lock(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, catalogue: Dsn
) -> None:
    other = parse(fresh_database(postgres_server))
    with exclusive(catalogue, "backup", "p", "one"), exclusive(other, "backup", "p", "two"):
        pass


def test_of_many_that_ask_at_the_same_moment_exactly_one_gets_the_lock(catalogue: Dsn) -> None:
    barrier, done = threading.Barrier(8), threading.Event()
    outcomes: list[str] = []

    def ask(number: int) -> None:
        barrier.wait()
        try:
            with exclusive(catalogue, "backup", "p", f"run {number}"):
                outcomes.append("held")
                done.wait(30)
        except AlreadyRunning:
            outcomes.append("refused")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    give_up = time.monotonic() + 30
    while len(outcomes) < 8 and time.monotonic() < give_up:
        time.sleep(0.02)
    done.set()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held"] + ["refused"] * 7


_HOLDER = """
import os, time
from tasks.postgres.locks import exclusive
from tasks.postgres.dsn import parse
with exclusive(parse(os.environ["CATALOGUE"]), "backup", "p", "the dead one"):
    print("held", flush=True)
    time.sleep(300)
"""


def _url(dsn: Dsn, cluster: PostgresCluster) -> str:
    return cluster.url(dsn.dbname)


def _eventually_free(dsn: Dsn, seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        with contextlib.suppress(AlreadyRunning), exclusive(dsn, "backup", "p", "the next one"):
            return True
        time.sleep(0.05)
    return False


def test_the_lock_of_a_run_that_was_killed_frees_itself(catalogue: Dsn, postgres_server: PostgresCluster) -> None:
    environment = {**os.environ, "CATALOGUE": _url(catalogue, postgres_server)}
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER], cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(AlreadyRunning, match="by the dead one"), exclusive(catalogue, "backup", "p", "the next one"):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert _eventually_free(catalogue, seconds=30)


def test_the_server_looks_for_a_vanished_holder_within_a_minute(catalogue: Dsn) -> None:
    with contextlib.closing(catalogue.connect("x")) as connection, connection.cursor() as cursor:
        locks._notice_dead_clients(connection, cursor)
        names = [f"tcp_keepalives_{name}" for name in ("idle", "interval", "count")]
        cursor.execute(f"SELECT {', '.join(f'current_setting({name!r})::int' for name in names)}")
        idle, interval, count = cursor.fetchone()
    assert 0 < idle + interval * count <= 60


def test_a_role_that_owns_nothing_can_hold_and_see_locks(postgres_server: PostgresCluster, catalogue: Dsn) -> None:
    with contextlib.closing(psycopg2.connect(**catalogue.parameters)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("DROP ROLE IF EXISTS mere_locker")
            cursor.execute("CREATE ROLE mere_locker LOGIN PASSWORD 'pw'")
    mere = parse(postgres_server.url(catalogue.dbname, "mere_locker", "pw"))
    for holder, said in ((mere, "by run 1 since"), (catalogue, "under way already")):
        with (
            exclusive(holder, "backup", "p", "run 1"),
            pytest.raises(AlreadyRunning, match=said),
            exclusive(mere, "backup", "p", "run 2"),
        ):
            pass


def test_a_short_idle_timeout_of_the_role_does_not_take_the_lock_away(
    postgres_server: PostgresCluster, catalogue: Dsn
) -> None:
    if postgres_server.major < 14:
        pytest.skip("idle_session_timeout exists from 14 on")
    with contextlib.closing(psycopg2.connect(**catalogue.parameters)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("DROP ROLE IF EXISTS hasty")
            cursor.execute("CREATE ROLE hasty LOGIN PASSWORD 'pw'")
            cursor.execute("ALTER ROLE hasty SET idle_session_timeout = '300ms'")
    hasty = parse(postgres_server.url(catalogue.dbname, "hasty", "pw"))
    with exclusive(hasty, "backup", "p", "run 1"):
        time.sleep(1)
        with pytest.raises(AlreadyRunning), exclusive(catalogue, "backup", "p", "run 2"):
            pass


def test_a_catalogue_that_cannot_be_reached_is_told_as_such(postgres_server: PostgresCluster, catalogue: Dsn) -> None:
    wrong = parse(postgres_server.url(catalogue.dbname, "postgres", "wrong mArKeR"))
    with pytest.raises(AccessRefused) as refused, exclusive(wrong, "backup", "p", "run 1"):
        pass
    assert "mArKeR" not in whole_story(refused.value)
    with pytest.raises(Unreachable), exclusive(parse("postgresql://u@127.0.0.1:1/d"), "backup", "p", "run 1"):
        pass


# --- the lock of a database: backups share it, a restore has it alone


@pytest.mark.parametrize("name", ["locked", 'Sh\'op "x" 100% ü', "ü" * 31])
def test_backups_of_a_database_go_side_by_side_and_a_restore_has_it_alone(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, name: str
) -> None:
    dsn = parse(fresh_database(postgres_server, name))

    def is_free() -> bool:
        """A server notices a moment later that a session has ended."""
        with contextlib.closing(dsn.connect("looks")) as connection:
            return not is_held(connection, locks.DATABASE, name)

    with backup_lock(dsn, "backup 1"), backup_lock(dsn, "backup 2"):
        with pytest.raises(AlreadyRunning, match=r"cannot be restored now.* by backup 1 since 20"):
            with restore_lock(dsn, "restore 1"):
                pytest.fail("a restore during a backup")
        with backup_lock(dsn, "backup 3"):
            pass
    assert eventually(is_free)
    with restore_lock(dsn, "restore 1"):
        with pytest.raises(AlreadyRunning, match=r"cannot be backed up now.* by restore 1 since 20"):
            with backup_lock(dsn, "backup 4"):
                pytest.fail("a backup during a restore")
        with pytest.raises(AlreadyRunning, match=r"cannot be restored now.* by restore 1 since 20"):
            with restore_lock(dsn, "restore 2"):
                pytest.fail("two restores")
    assert eventually(is_free)
    with restore_lock(dsn, "restore 3"), restore_lock(dsn.with_dbname("another"), "restore 4"):
        pass


def test_the_lock_of_a_database_leaves_no_session_in_it(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    dsn = parse(fresh_database(postgres_server))
    with backup_lock(dsn, "x"), contextlib.closing(dsn.connect("looks")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        assert cursor.fetchone() == (1,)


def test_the_lock_of_a_database_outlives_a_change_of_its_name(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    dsn = parse(fresh_database(postgres_server, "renamed"))
    with restore_lock(dsn, "restore 1"), contextlib.closing(parse(postgres_server.url()).connect("x")) as connection:
        with connection.cursor() as cursor:
            cursor.execute("ALTER DATABASE renamed RENAME TO renamed_2")
            with pytest.raises(AlreadyRunning), backup_lock(dsn, "backup"):
                pass
            cursor.execute("ALTER DATABASE renamed_2 RENAME TO renamed")


def test_a_maintenance_database_has_a_lock_too(postgres_server: PostgresCluster) -> None:
    dsn = parse(postgres_server.url())
    with restore_lock(dsn, "restore 1"), pytest.raises(AlreadyRunning), backup_lock(dsn, "backup 1"):
        pass
