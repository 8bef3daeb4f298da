"""Large tables are read by several sessions at once, and the dump is what pg_dump alone would have written."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest

from tasks.backup import row_readers
from tasks.backup.dump import dump
from tasks.backup.large_tables import JoiningScanner
from tasks.backup.open_backup import open_backup
from tasks.backup.row_readers import possible_jobs
from tasks.errors import BackupSystemError, DumpFailed
from tasks.postgres.dsn import parse
from tasks.postgres.server import source_session
from tasks.storage.spool import open_spool
from tests.conftest import BIN_DIRECTORIES
from tests.support import eventually
from tests.support.every_kind import make_every_kind
from tests.support.scene import Scene, SceneFactory, now
from tests.support.world import masked

EACH_MAJOR = pytest.mark.parametrize(
    "postgres_server", list(BIN_DIRECTORIES), indirect=True, ids=lambda major: f"pg{major}"
)
#: Rows whose text could be taken for something else, and columns that COPY leaves out, or must quote.
ODD = r"""
    CREATE TABLE odd (i int GENERATED ALWAYS AS IDENTITY, gone int, "Größe ""x"", y" text, "order" text, twice int
        GENERATED ALWAYS AS (i * 2) STORED, t timestamptz, f float8, b bytea);
    ALTER TABLE odd DROP COLUMN gone;
    INSERT INTO odd ("Größe ""x"", y", "order", t, f, b)
      SELECT E'\\.\n\\.\tline\r\n' || repeat('x', i % 300), CASE WHEN i % 3 > 0 THEN E'-- Name: a; Type: INDEX; Schema: b\n' END,
             '2026-03-01'::timestamptz + i * interval '1 hour', i / 3.0, decode(md5(i::text), 'hex')
        FROM generate_series(1, 4000) i;
    DELETE FROM odd WHERE i % 7 = 0;
    CREATE TABLE "order" AS SELECT i AS "select", repeat(md5(i::text), 400) AS long FROM generate_series(1, 300) i;
    CREATE INDEX ON odd ("order"); ALTER TABLE "order" ADD PRIMARY KEY ("select");
    CREATE TABLE empty_large (i int); INSERT INTO empty_large SELECT generate_series(1, 9000); DELETE FROM empty_large;
    CREATE TABLE heirs (n text) INHERITS (empty_large); INSERT INTO heirs VALUES (1, 'x');
    CREATE TABLE no_columns (); INSERT INTO no_columns DEFAULT VALUES;
"""
#: The text of a COPY of one table, from its comment to the empty lines behind it.
TABLE_DATA = re.compile(rb"--\n-- Data for Name: [^\n]*; Type: TABLE DATA; .*?\n\\\.\n\n\n", re.DOTALL)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly every table is a large one, of many units."""
    monkeypatch.setattr("tasks.backup.large_tables.LARGE", 1)
    monkeypatch.setattr("tasks.backup.large_tables.UNIT_PAGES", 2)


def apart(dump: bytes) -> tuple[Counter[bytes], bytes]:
    """The rows of each table, and the text without them."""
    text = masked(dump)
    return Counter(TABLE_DATA.findall(text)), TABLE_DATA.sub(b"", text)


def plain(scene: Scene, jobs: int) -> tuple[bytes, object]:
    """The text of a backup with so many sessions, and what is recorded of it."""
    backup = scene.with_plan(jobs=jobs).back_up()
    return scene.stored(backup)[0], backup


@EACH_MAJOR
@pytest.mark.parametrize("jobs", [2, 4])
def test_the_dump_is_that_of_pg_dump_but_for_the_order_of_the_tables(
    scene: SceneFactory, small: None, jobs: int
) -> None:
    made = scene()
    make_every_kind(made.url, made.cluster)
    made.sql(ODD)
    alone, by_one = plain(made, 1)
    together, by_many = plain(made, jobs)
    assert apart(together) == apart(alone)
    assert apart(alone)[0] == apart(made.dumped())[0]
    assert len(TABLE_DATA.findall(together)) > 10 and together != alone, "no large table was found"
    assert (by_one.rows, by_one.tables, by_one.plain_size) == (by_many.rows, by_many.tables, by_many.plain_size)  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["swap", "in_place"])
def test_what_several_sessions_read_is_restored_as_it_was(scene: SceneFactory, small: None, mode: str) -> None:
    made = scene(jobs=3, codec="zstd")
    made.sql(ODD)
    before = made.dumped()
    made.back_up()
    made.sql('DROP TABLE odd, "order"')
    restored = made.restore(mode=mode, compare="content")
    assert restored
    assert made.dumped() == before


def test_each_table_is_found_at_its_place(scene: SceneFactory, small: None) -> None:
    made = scene(jobs=3)
    made.sql(ODD)
    made.back_up()
    made.sql("TRUNCATE odd")
    made.restore(mode="in_place", tables=["public.odd"])
    assert made.sql("SELECT count(*) FROM odd")[0][0] == 4000 - 4000 // 7


@pytest.mark.parametrize("jobs", [1, 4])
def test_sums_hold_while_sessions_move_money_and_change_tables(scene: SceneFactory, small: None, jobs: int) -> None:
    made = scene(jobs=jobs)
    made.sql(
        "CREATE TABLE a AS SELECT i, 100 AS money FROM generate_series(1, 2000) i;"
        "CREATE TABLE b AS SELECT i, 100 AS money FROM generate_series(1, 2000) i"
    )
    ended = threading.Event()

    def move(share: int) -> None:  # rows of its own: two that change the same ones would lock each other out
        with closing(psycopg2.connect(made.url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not ended.is_set():
                cursor.execute(
                    f"BEGIN; UPDATE a SET money = money - 1 WHERE i % 50 = {share};"
                    f"UPDATE b SET money = money + 1 WHERE i % 50 = {share}; COMMIT"
                )

    def rebuild() -> None:
        with closing(psycopg2.connect(made.url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("SET lock_timeout = 50")
            while not ended.is_set():
                for statement in (
                    "VACUUM FULL a",
                    "VACUUM FULL b",
                    "TRUNCATE c; INSERT INTO c SELECT generate_series(1, 999)",
                ):
                    try:
                        cursor.execute("CREATE TABLE IF NOT EXISTS c (i int)")
                        cursor.execute(statement)
                    except psycopg2.Error:
                        pass
                    time.sleep(0.02)

    threads = [threading.Thread(target=move, args=(share,)) for share in (0, 1)]
    threads.append(threading.Thread(target=rebuild))
    for thread in threads:
        thread.start()
    whole = 0
    try:
        for _ in range(8):
            try:
                backup = made.back_up()
            except BackupSystemError as error:
                assert isinstance(error, DumpFailed), error
                continue
            whole += 1
            text = made.stored(backup)[0]
            sums = [
                sum(int(line.split(b"\t")[1]) for line in rows.splitlines() if b"\t" in line)
                for rows in re.findall(rb"COPY public\.[ab] \(i, money\) FROM stdin;\n(.*?)\\\.\n", text, re.DOTALL)
            ]
            assert sum(sums) == 400_000 and len(sums) == 2, sums
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert whole, "no backup was made at all"


def test_a_session_that_is_ended_ends_the_dump_with_its_reason(
    scene: SceneFactory, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene(jobs=2)
    made.sql(ODD)
    answers = row_readers._Asking.answers

    def ended(self: object, commands: str) -> object:
        return answers(self, commands.replace("WHERE c.oid", "WHERE pg_terminate_backend(pg_backend_pid()) AND c.oid"))  # type: ignore[arg-type]

    monkeypatch.setattr(row_readers._Asking, "answers", ended)
    with pytest.raises(DumpFailed, match="terminating connection"):
        made.back_up()


def test_rows_that_end_in_an_error_are_never_taken_for_all_of_them(scene: SceneFactory, small: None) -> None:
    made = scene(jobs=2)
    made.sql(
        "CREATE TYPE mood AS ENUM ('ok', 'gone');"
        "CREATE TABLE moods AS SELECT i, (CASE WHEN i = 1900 THEN 'gone' ELSE 'ok' END)::mood AS m"
        " FROM generate_series(1, 2000) i"
    )
    made.sql("DELETE FROM pg_enum WHERE enumlabel = 'gone'", superuser=True)
    with pytest.raises(DumpFailed, match=r"psql of .* invalid internal value for enum"):
        made.back_up()
    assert made.plan.catalogue.completed(made.plan.name) == []


def test_a_run_that_is_killed_while_sessions_read_leaves_none_of_them(scene: SceneFactory, small: None) -> None:
    made = scene(jobs=3)
    made.sql("CREATE TABLE slow AS SELECT i FROM generate_series(1, 3000000) i")
    mine = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'backup %' AND query LIKE 'COPY (%'"
    run = os.fork()
    if run == 0:
        made.back_up()
        os._exit(0)
    assert eventually(lambda: len(made.sql(mine)) == 3)
    os.kill(run, signal.SIGKILL)
    os.waitpid(run, 0)
    assert eventually(lambda: made.sql(mine) == [])
    assert made.back_up().rows == 3_000_000, "the next backup clears what is left"
    assert list(made.plan.spool_directory.iterdir()) == []


def test_another_try_reads_everything_by_pg_dump_alone(
    scene: SceneFactory, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene(jobs=2)
    made.sql(ODD)
    monkeypatch.setattr(row_readers.Session, "arguments", ["false"])  # no session can be had
    run = open_backup(made.plan, str(uuid4()), "tester", now(), lambda _: None)
    with open_spool(Path(run.spool_directory), run.run_id, run.part_size, run.spool_limit) as spool:
        with pytest.raises(DumpFailed):
            dump(run, spool, made.plan.database, now, lambda _: None)
        dumped = dump(run, spool, made.plan.database, now, lambda _: None)
    assert {table.name for table in dumped.tables} >= {"public.odd", 'public."order"'}


def test_a_table_that_another_session_waits_to_lock_ends_the_try_and_is_not_waited_for(
    scene: SceneFactory, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene(jobs=2)
    made.sql(ODD)
    answers, altering = row_readers._Asking.answers, Once(alter, made)

    def after_alter(self: object, commands: str) -> object:
        if "LOCK TABLE" in commands:
            altering.start()
            assert eventually(lambda: bool(made.sql(WAITING)))
        return answers(self, commands)  # type: ignore[arg-type]

    monkeypatch.setattr(row_readers._Asking, "answers", after_alter)
    began = time.monotonic()
    with pytest.raises(DumpFailed, match="Another session waits to lock a table"):
        made.back_up()
    assert time.monotonic() - began < 30
    altering.join()
    assert made.sql("SELECT late FROM odd LIMIT 1") == [(None,)]


class Once(threading.Thread):
    """A thread that several may start."""

    def __init__(self, work: Callable[..., object], *given: object) -> None:
        super().__init__(target=work, args=given)
        self._lock = threading.Lock()

    def start(self) -> None:
        with self._lock:
            if self.ident is None:
                super().start()


def alter(made: Scene) -> None:
    """Waits for the dump to end, and no longer."""
    made.sql("SET lock_timeout = '60s'; ALTER TABLE odd ADD COLUMN late int")


WAITING = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'odd'::regclass AND NOT granted"


@pytest.mark.parametrize("statement", ["TRUNCATE odd", "DROP TABLE odd", "ALTER TABLE odd ALTER t TYPE timestamp"])
def test_no_row_is_lost_when_a_table_is_emptied_while_it_is_read(
    scene: SceneFactory, small: None, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pg_dump itself is done, and its locks are gone, before the first row has been read."""
    made = scene(jobs=2)
    made.sql(ODD)
    rows, emptying = made.sql("SELECT count(*) FROM odd")[0][0], Once(made.sql, statement)
    answers, join, joining = row_readers._Asking.answers, JoiningScanner._join, threading.Event()

    def after_statement(self: object, commands: str) -> object:
        if "COPY (" in commands:
            assert joining.wait(30)  # pg_dump has locked the tables and written all that comes before their rows
            emptying.start()
            assert eventually(lambda: bool(made.sql(WAITING)))
            assert eventually(lambda: not made.sql(DUMPING))
        return answers(self, commands)  # type: ignore[arg-type]

    monkeypatch.setattr(row_readers._Asking, "answers", after_statement)
    monkeypatch.setattr(JoiningScanner, "_join", lambda self, at: joining.set() or join(self, at))
    text = made.stored(made.back_up())[0]
    emptying.join()
    [copied] = re.findall(rb"COPY public\.odd [^\n]*\n(.*?)\n\\\.\n", text, re.DOTALL)
    assert copied.count(b"\n") + 1 == rows


#: The session of pg_dump itself, which reads the catalogue by prepared statements.
DUMPING = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'backup %' AND query LIKE 'EXECUTE %'"


def test_no_more_sessions_than_the_server_has_free(scene: SceneFactory) -> None:
    made = scene(owner=True)
    role = parse(made.url).parameters["user"]
    pg_dump = str(made.cluster.bin_directory / "pg_dump")
    with source_session(parse(made.url), "test") as connection:
        assert possible_jobs(connection, 4, pg_dump) == (4, ())
        made.sql(f'ALTER ROLE "{role}" CONNECTION LIMIT 7', superuser=True)
        try:
            jobs, said = possible_jobs(connection, 4, pg_dump)
        finally:
            made.sql(f'ALTER ROLE "{role}" CONNECTION LIMIT -1', superuser=True)
        assert jobs == 2 and "has 6 free connections" in said[0]
        assert possible_jobs(connection, 4, "/nowhere/pg_dump")[0] == 1
        assert possible_jobs(connection, 1, pg_dump) == (1, ())


def test_memory_holds_a_bounded_share_of_a_table(scene: SceneFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit of large values is far larger than its pages: what waits for its turn is bounded all the same."""
    monkeypatch.setattr("tasks.backup.large_tables.LARGE", 1)
    monkeypatch.setattr(row_readers, "AHEAD", 2 << 20)
    made = scene(jobs=2)
    made.sql(
        "CREATE TABLE wide AS SELECT i, (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 4000) WHERE i > 0)"
        " AS text FROM generate_series(1, 300) i"
    )
    most = 0
    put = row_readers.Readers._put

    def counted(self: object, chunks: object, chunk: object) -> None:
        nonlocal most
        put(self, chunks, chunk)  # type: ignore[arg-type]
        most = max(most, chunks.qsize())  # type: ignore[attr-defined]

    monkeypatch.setattr(row_readers.Readers, "_put", counted)
    backup = made.back_up()
    assert backup.rows == 300 and most <= 2


def test_units_cover_every_page_once(scene: SceneFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.backup.large_tables.LARGE", 1)
    made = scene(jobs=2)
    made.sql("CREATE TABLE t AS SELECT i, repeat('x', 500) FROM generate_series(1, 3000) i")
    expected = sorted(made.sql("SELECT i FROM t"))
    for pages in (1, 3, 7, 1000):
        monkeypatch.setattr("tasks.backup.large_tables.UNIT_PAGES", pages)
        text = made.stored(made.back_up())[0]
        [rows] = re.findall(rb"COPY public\.t [^\n]*\n(.*?)\\\.\n", text, re.DOTALL)
        assert [(int(line.split(b"\t")[0]),) for line in rows.splitlines()] == expected
