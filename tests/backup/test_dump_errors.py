"""What stands in the way of a dump is named with what to do: a prepared transaction, a standby, a row, the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.backup import dump as dumping
from tasks.backup.open_backup import open_backup
from tasks.errors import BadSetting, DumpFailed, DumpRefused, Unreachable
from tasks.postgres.dsn import parse
from tasks.storage.spool import Spool, open_spool
from tests.conftest import BIN_DIRECTORIES, DatabaseFactory
from tests.restore.test_odd_databases import check_every_mode
from tests.support import eventually
from tests.support.faulty_store import FaultyStore
from tests.support.flow_fixtures import WorldFactory
from tests.support.scene import Scene, SceneFactory, make_scene, now
from tests.support.servers import pair_of
from tests.support.world import MIB, Heard


def dumped(scene: Scene, spool_limit: int = 64 * MIB, meanwhile: Callable[[Spool], Any] = lambda spool: None) -> None:
    """pg_dump runs into a spool, which is emptied when `meanwhile` has ended."""
    run = open_backup(scene.plan, "4711", "tester", now(), lambda _: None)
    with open_spool(Path(run.spool_directory), run.run_id, MIB, spool_limit) as parts:
        threading.Thread(target=lambda: then_emptied(parts, meanwhile), daemon=True).start()
        dumping.dump(run, parts, scene.plan.database, now, lambda _: None)


def then_emptied(parts: Spool, meanwhile: Callable[[Spool], Any]) -> None:
    """When `meanwhile` has ended, takes every part as soon as it is there, as an upload does."""
    try:
        meanwhile(parts)
    finally:
        while not parts.is_stopped():
            for part in parts.ready(1):
                parts.discard(1, part)
            time.sleep(0.02)


# --- locks


@pytest.fixture(scope="module", params=list(BIN_DIRECTORIES), ids=lambda major: f"pg{major}")
def with_prepared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresCluster]:
    """A server that takes prepared transactions."""
    directory = tmp_path_factory.mktemp("prepared")
    server = PostgresCluster(directory / "server", BIN_DIRECTORIES[request.param], durable=False, owned=True)
    server.start()
    run(server.url(), "ALTER SYSTEM SET max_prepared_transactions = 5")
    server.stop(immediate=True)
    server.start()
    yield server
    server.stop(immediate=True)


def run(url: str, *statements: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def prepared_scene(
    with_prepared: PostgresCluster,
    fresh_database: DatabaseFactory,
    s3_server: S3Server,
    s3_bucket: Callable[[], str],
    tmp_path: Path,
) -> Iterator[Scene]:
    url, catalogue_url = (fresh_database(with_prepared) for _ in range(2))
    run(url, "CREATE TABLE free ()", 'CREATE TABLE "Held" (i int)', "CREATE TABLE too (i int)")
    yield make_scene(with_prepared, url, catalogue_url, s3_server, s3_bucket(), tmp_path / "spool")
    for (gid,) in run(url, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
        run(url, f"ROLLBACK PREPARED '{gid}'")


LOCK = "BEGIN; LOCK TABLE \"Held\", too; PREPARE TRANSACTION 'order 12'"


def test_a_prepared_transaction_that_locks_tables_is_named_before_there_is_a_row(prepared_scene: Scene) -> None:
    one = prepared_scene
    run(one.url, LOCK)
    with pytest.raises(Unreachable) as refused:  # it may pass: somebody commits it
        one.back_up()
    assert (
        "The prepared transaction 'order 12' has locked public.\"Held\", public.too: run COMMIT PREPARED 'order 12' "
        "or ROLLBACK PREPARED 'order 12' in this database."
    ) in str(refused.value)
    assert one.plan.catalogue.rows("shop") == []
    run(one.url, "COMMIT PREPARED 'order 12'")
    assert one.back_up().tables == 3


def test_a_prepared_transaction_that_locks_no_table_does_not_hinder(prepared_scene: Scene) -> None:
    one = prepared_scene
    run(one.url, "BEGIN; INSERT INTO too VALUES (1); PREPARE TRANSACTION 'order 13'")
    assert one.back_up().rows == 0
    run(one.url, "COMMIT PREPARED 'order 13'")
    assert one.back_up().rows == 1


def test_one_that_locks_a_table_while_the_dump_begins_is_named_too(
    prepared_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumping, "LOCK_WAIT", 1)
    monkeypatch.setattr(dumping, "source_facts", then(dumping.source_facts, lambda: run(prepared_scene.url, LOCK)))
    with pytest.raises(DumpFailed, match=r"LOCK TABLE.*The prepared transaction 'order 12' has locked public.\"Held\""):
        dumped(prepared_scene)


def test_a_session_that_locks_a_table_is_named_with_its_role(
    prepared_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumping, "LOCK_WAIT", 1)
    with closing(psycopg2.connect(prepared_scene.url, application_name="billing")) as other, other.cursor() as cursor:
        holding = then(dumping.source_facts, lambda: cursor.execute("LOCK TABLE too"))
        monkeypatch.setattr(dumping, "source_facts", holding)
        process = other.info.backend_pid
        with pytest.raises(DumpFailed) as refused:
            dumped(prepared_scene)
    sentence = f"Process {process} of role postgres (billing) has locked public.too: have it end"
    assert sentence in str(refused.value)


def then(first: Callable[..., Any], second: Callable[[], Any]) -> Callable[..., Any]:
    def both(*arguments: Any) -> Any:
        answer = first(*arguments)
        second()
        return answer

    return both


# --- a standby


@pytest.mark.parametrize("major", list(BIN_DIRECTORIES))
def test_a_standby_that_cancels_the_dump_is_told_what_to_set(
    major: int, fresh_database: DatabaseFactory, s3_server: S3Server, s3_bucket: Callable[[], str], tmp_path: Path
) -> None:
    with pair_of(BIN_DIRECTORIES[major], tmp_path / "pair") as (primary, standby):
        run(standby.url(), "ALTER SYSTEM SET max_standby_streaming_delay = 0", "SELECT pg_reload_conf()")
        url, catalogue_url = fresh_database(primary), fresh_database(primary)
        run(url, "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 30) x FROM generate_series(1, 40000) i")
        name = parse(url).dbname
        assert eventually(lambda: has_all_rows(standby, name), 60)
        one = make_scene(primary, standby.url(name), catalogue_url, s3_server, s3_bucket(), tmp_path / "spool")

        def vacuum(parts: Spool) -> None:
            assert eventually(lambda: len(parts.ready(1)) > 1, 30)
            run(url, "DELETE FROM t WHERE i % 2 = 0")
            for _ in range(3):  # until nothing of the primary's own needs the rows any more
                run(url, "VACUUM t")
                time.sleep(1)

        with pytest.raises(DumpFailed) as failed:
            dumped(one, 2 * MIB, vacuum)
    assert "conflict with recovery" in str(failed.value)
    for words in ("hot_standby_feedback = on", "max_standby_streaming_delay", "back up the primary"):
        assert words in str(failed.value)


def has_all_rows(standby: PostgresCluster, name: str) -> bool:
    try:
        return run(standby.url(name), "SELECT count(*) FROM t") == [(40000,)]
    except psycopg2.Error:
        return False


# --- a row


@pytest.mark.slow
def test_a_value_that_is_too_large_to_be_written_is_refused_once_with_its_table(scene: SceneFactory) -> None:
    one = scene()
    one.sql(
        'CREATE SCHEMA "My"; CREATE TABLE "My"."Files" (id int, content bytea); INSERT INTO "My"."Files" VALUES (1, \'x\')'
    )
    one.sql("INSERT INTO \"My\".\"Files\" SELECT 2, convert_to(repeat('x', 540 * 1024 * 1024), 'SQL_ASCII')")
    with pytest.raises(
        DumpRefused, match=r'^A row of table "My"."Files" is too large: .*Store such values as large objects'
    ):
        dumped(one)


# --- limits of the role


LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout")


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["ROLE {0}", "DATABASE {1}"])
def test_limits_of_role_or_database_hinder_no_backup_and_no_restore(scene: SceneFactory, whose: str) -> None:
    one = scene(owner=True)
    one.sql("CREATE TABLE t (i int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)")
    one.sql("CREATE TABLE slow (i int CHECK (pg_sleep(0.8) IS NOT NULL)); INSERT INTO slow VALUES (1)")
    role = one.plan.database.user
    with limits(one, whose.format(role, one.name)):
        check_every_mode(
            one,
            lambda: one.sql("BEGIN READ WRITE; SET LOCAL statement_timeout = 0; CREATE TABLE later (); COMMIT"),
            f"new {one.name}",
        )


@contextmanager
def limits(scene: Scene, whose: str) -> Iterator[None]:
    for name, value in (*((name, "400ms") for name in LIMITS), ("default_transaction_read_only", "on")):
        scene.sql(f"ALTER {whose} SET {name} = '{value}'", "postgres")
    try:
        yield
    finally:
        if whose.startswith("ROLE"):
            scene.sql(f"ALTER {whose} RESET ALL", "postgres")


# --- the store


def test_a_store_that_takes_fewer_parts_is_told_from_other_refusals(
    make_world: WorldFactory, faulty_store: FaultyStore, heard: Heard
) -> None:
    from flows.backup import backup

    world = make_world(mebibytes=8, settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url})
    faulty_store.rule = lambda request: 400 if request.part > 3 else None
    with pytest.raises(BadSetting, match=r"The store refused UploadPart .*enter that number as Most parts in the plan"):
        backup()
    assert "Retry" not in heard.text
    faulty_store.rule = lambda request: 400 if request.part else None
    with pytest.raises(BadSetting) as refused:
        backup()
    assert "Most parts" not in str(refused.value)
    world.check_no_debris()
