# ruff: noqa: F401, F811 - fixtures are imported
"""What goes wrong beside a restore: it is tried again from a clean beginning, or ends in one sentence with nothing done."""

from __future__ import annotations

import contextvars
import functools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelling
from prefect.task_runners import ThreadPoolTaskRunner

from deployments.embedded.postgres import PostgresCluster
from deployments.embedded.prefect_services import Worker
from deployments.sample import fill
from flows.backup import backup
from flows.restore import restore
from tasks.core.errors import (
    AlreadyRunning,
    BackupDamaged,
    DiskFull,
    Unreachable,
)
from tasks.core.postgres import parse
from tasks.core.restore import in_place
from tasks.core.restore.psql_session import PsqlSession
from tests.conftest import BIN_DIRECTORIES
from tests.flows.conftest import WorldFactory
from tests.flows.faulty_store import FaultyStore, Request
from tests.flows.test_failures import small_disk
from tests.flows.test_killed import state_of, worker
from tests.flows.test_restore_killed import many_parts
from tests.flows.world import CHECKOUT, MIB, Heard, World, plain_dump
from tests.support import ci_skip, eventually

PART = 1 << 17
SLOW = pytest.mark.slow
#: Restores' own psql, and none of the other sessions that a restore has.
PSQL = "application_name LIKE 'restore ________-%%'"

pytestmark = pytest.mark.usefixtures("impatient", "many_parts")


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
            assert [row["backup_type"] for row in self.world.rows()].count("pre_restore") == 1
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


# --- PostgreSQL


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
    ground.store.rule = lambda request: ground.cut() and None if request.start >= 4 * PART else None
    message = ground.check_untouched(ground.restore(), "psql ended with status", "terminating connection")
    assert "everything was rolled back" in message


@pytest.mark.parametrize("threads", [2, 1])
def test_a_psql_that_is_cut_off_when_it_has_had_everything_starts_over(
    ground: Ground, heard: Heard, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    def commit(session: PsqlSession) -> None:
        if not cut:
            cut.append(ground.cut())
        real(session)

    cut: list[int] = []
    real = PsqlSession.commit
    monkeypatch.setattr(PsqlSession, "commit", commit)
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
            for path in world.spool.glob("*.spool/*"):
                with suppress(FileNotFoundError):
                    total += path.stat().st_size if path.suffix == ".part" or path.name[1:2].isdigit() else 0
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
    world.sql("CREATE FUNCTION refuses(i int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN"
              " IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'needed_once') THEN"
              " RAISE EXCEPTION 'no such role any more'; END IF; RETURN true; END $$")  # fmt: skip
    world.sql("CREATE TABLE picky (i int CHECK (public.refuses(i))); INSERT INTO picky VALUES (1), (2)")
    new = plain_dump(world.cluster, world.database_url)
    backup()
    world.sql("DROP ROLE needed_once")
    ground = Ground(world, faulty_store, new).gone_bad()
    for mode in ("swap", "in_place"):
        message = ground.check_untouched(ground.restore(mode), "no such role any more", "everything was rolled back")
        assert "picky" in message
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


# --- the store


@pytest.mark.parametrize("fate", [500, "drop", "short", "wrong"])
def test_a_store_that_fails_for_a_while_costs_time_alone(ground: Ground, fate: int | str) -> None:
    failures = {2 * PART: 5 if fate == 500 else 1, 5 * PART: 2}  # a client tries four times

    def rule(request: Request) -> int | str | None:
        time.sleep(0.05)
        with ground.store.lock:
            if failures.get(request.start, 0) > 0:
                failures[request.start] -= 1
                return fate
        return None

    ground.store.rule = rule
    ground.check_restored(ground.restore())
    assert ground.gets(3) == 1, "a part that arrived is not fetched again"


@pytest.mark.parametrize(("fate", "error", "said"), [
    ("wrong", BackupDamaged, "part 4 of"),
    pytest.param(500, Unreachable, "500", marks=SLOW),
    pytest.param("short", Unreachable, "", marks=SLOW),
])  # fmt: skip
def test_a_store_that_fails_for_good_ends_the_run_with_nothing_done(
    ground: Ground, fate: int | str, error: type[Exception], said: str
) -> None:
    ground.store.rule = lambda request: fate if request.start == 3 * PART else None
    state = ground.restore()
    ground.check_untouched(state, said)
    with pytest.raises(error):
        state.result()


def test_an_object_that_goes_in_the_middle_ends_the_run_with_nothing_done(ground: Ground) -> None:
    world, key = ground.world, ground.world.rows()[0]["s3_key"]
    ground.in_the_middle(lambda: world.s3.client.delete_object(Bucket=world.bucket, Key=key))
    ground.check_untouched(ground.restore(), "is gone from bucket", "restore another backup")


# --- disks


def test_a_full_disk_of_the_spool_ends_the_run_in_one_sentence(
    make_world: WorldFactory,
    faulty_store: FaultyStore,
    small_disk: Path,
    heard: Heard,
) -> None:
    ground = make_ground(make_world, faulty_store, settings={"SPOOL_DIRECTORY": str(small_disk / "spool")})
    ground.in_the_middle(lambda: fill_up(small_disk))
    state = ground.restore()
    assert list((small_disk / "spool").iterdir()) == []
    ground.check_untouched(state, "The disk of the spool", "is full")
    with pytest.raises(DiskFull):
        state.result()
    assert "Retry" not in heard.text and "Traceback" not in heard.text
    (small_disk / "filler").unlink()
    ground.check_restored(ground.restore())


def fill_up(disk: Path) -> None:
    """No byte is free on a disk any more."""
    with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(b"\0" * 4096)


@pytest.fixture
def small_tablespace(any_postgres: PostgresCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a tablespace `small` on a disk of its own of 40 MiB."""
    if os.geteuid() != 0:
        ci_skip("a small disk can be mounted by root alone")
    disk = any_postgres.directory / "small-disk"
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={40 * MIB}", "tmpfs", str(disk)]
    if (tried := subprocess.run(mount, capture_output=True, text=True, check=False)).returncode != 0:
        ci_skip(f"a small disk cannot be mounted here: {tried.stderr.strip()}")
    place = disk / "tablespace"
    place.mkdir(mode=0o700)
    status = any_postgres.data_directory.stat()
    os.chown(place, status.st_uid, status.st_gid)
    as_superuser(any_postgres, f"CREATE TABLESPACE small LOCATION '{place}'")
    yield disk
    (disk / "filler").unlink(missing_ok=True)
    for name in as_superuser(any_postgres, "SELECT datname FROM pg_database d JOIN pg_tablespace t"
                                           " ON t.oid = d.dattablespace WHERE spcname = 'small'"):  # fmt: skip
        as_superuser(any_postgres, f'DROP DATABASE "{name[0]}" WITH (FORCE)')
    as_superuser(any_postgres, "DROP TABLESPACE small")
    subprocess.run(["umount", "-l", str(disk)], check=True)


def as_superuser(cluster: PostgresCluster, statement: str) -> list[Any]:
    connection = psycopg2.connect(cluster.url())
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def test_a_full_disk_of_the_server_ends_the_run_with_nothing_done(
    make_world: WorldFactory, faulty_store: FaultyStore, any_postgres: PostgresCluster, small_tablespace: Path,
    heard: Heard,
) -> None:  # fmt: skip
    ground = make_ground(make_world, faulty_store)
    as_superuser(any_postgres, f"ALTER DATABASE {ground.live} SET TABLESPACE small")
    ground.in_the_middle(lambda: fill_up(small_tablespace))
    ground.check_untouched(ground.restore(), "No space left on device", "make room on the server's disk")
    assert "Retry" not in heard.text
    fill_up(small_tablespace)
    ground.check_untouched(ground.restore(), "make room", outcome="refused")


# --- psql


def fake_psql(directory: Path, *lines: str, version: str = "18.6") -> dict[str, str]:
    """Settings with a psql of the test's own, in a directory beside the true pg_dump."""
    directory.mkdir()
    for program in next(iter(BIN_DIRECTORIES.values())).iterdir():
        if program.name != "psql":
            (directory / program.name).symlink_to(program)
    script = directory / "psql"
    body = f'if [ "$1" = --version ]; then echo "psql (PostgreSQL) {version}"; exit 0; fi'
    script.write_text("\n".join(["#!/bin/sh", body, *lines]) + "\n")
    script.chmod(0o755)
    return {"PG_BIN_DIRECTORY": str(directory)}


@pytest.mark.parametrize(("lines", "said"), [
    (("exit 3",), "psql ended with status 3"),
    (("echo 'psql: error: cannot breathe' >&2", "exit 1"), "psql: error: cannot breathe"),
    (("read line", "exit 0"), "psql ended with status 0"),
])  # fmt: skip
def test_a_psql_that_dies_at_once_ends_the_run_with_its_last_words(
    make_world: WorldFactory, faulty_store: FaultyStore, tmp_path: Path, lines: tuple[str, ...], said: str
) -> None:
    major = next(iter(BIN_DIRECTORIES))
    settings = fake_psql(tmp_path / "bin", *lines, version=f"{major}.90")
    ground = make_ground(make_world, faulty_store, settings=settings)
    ground.check_untouched(ground.restore(), said)


def test_a_psql_that_is_missing_or_too_old_is_refused(
    make_world: WorldFactory, faulty_store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = make_ground(make_world, faulty_store)
    monkeypatch.setattr("tasks.core.tools._path", lambda: [])
    monkeypatch.setattr("tasks.core.tools._expand", lambda patterns: [])
    for number, version in enumerate(("9.6.24", "14.2")):
        settings = fake_psql(tmp_path / f"bin-{number}", version=version)
        monkeypatch.setenv("PG_BIN_DIRECTORY", settings["PG_BIN_DIRECTORY"])
        ground.check_untouched(ground.restore(), version, "Install", outcome="refused")
    (tmp_path / "bin-0" / "psql").unlink()
    monkeypatch.setenv("PG_BIN_DIRECTORY", str(tmp_path / "bin-0"))
    ground.check_untouched(ground.restore(), "found: none", "Install", outcome="refused")


# --- other clients


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
    assert state.result().swap_seconds < 1.0
    assert max(gaps) < 3.0
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
            released.wait(60)

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
    time.sleep(5)  # meanwhile the flow has been told
    released.set()  # a request that is under way is waited for
    assert eventually(lambda: state_of(run) == "CANCELLED", 60), state_of(run)
    assert ground.dump() == ground.old
    assert eventually(lambda: ground.world.events()[-1] == ("restore", "failed"))
    ground.check_nothing_left()
    ground.store.rule = lambda request: None
    ground.check_restored(ground.restore())
