"""Tables that others empty, write anew, or rename between the snapshot of a dump and the locks of pg_dump, and later.

pg_dump alone says that all is well, and writes a table without rows, or with those of another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg2
import pytest

from tasks.backup import dump as dumping
from tasks.backup.large_tables import JoiningScanner
from tasks.errors import DumpFailed
from tasks.storage.backup_stages import Backup
from tests.support import eventually
from tests.support.scene import Scene, SceneFactory

#: `Tür` is never large to several sessions, `a` is.
TABLES = """
CREATE SCHEMA s; CREATE SCHEMA z;
CREATE TABLE public."Tür" AS SELECT i, -i AS j FROM generate_series(1, 100) i;
CREATE TABLE public.other AS SELECT 0 AS i, 0 AS j;
CREATE TABLE s.a AS SELECT i, 'of s ' || repeat('s', 100) AS t FROM generate_series(1, 40000) i;
CREATE TABLE z.a AS SELECT i, 'of z ' || repeat('z', 100) AS t FROM generate_series(1, 40000) i;
"""
CHANGES = {
    "emptied and filled": """TRUNCATE "Tür"; INSERT INTO "Tür" SELECT i, -i FROM generate_series(1, 100) i""",
    "written anew": 'ALTER TABLE "Tür" ALTER i TYPE bigint',
    "exchanged": 'ALTER TABLE "Tür" RENAME TO x; ALTER TABLE other RENAME TO "Tür"; ALTER TABLE x RENAME TO other',
    "columns exchanged": 'ALTER TABLE "Tür" RENAME i TO x; ALTER TABLE "Tür" RENAME j TO i; ALTER TABLE "Tür" RENAME x TO j',
    "schemas exchanged": "LOCK other; ALTER SCHEMA s RENAME TO x; ALTER SCHEMA z RENAME TO s; ALTER SCHEMA x RENAME TO z",
}
WAITING = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation IS NOT NULL"


@contextmanager
def under_way(made: Scene, change: str) -> Iterator[None]:
    """The change ends when the backup of the block, which has its snapshot, waits for a table."""
    with closing(psycopg2.connect(made.url)) as connection, ThreadPoolExecutor(1) as pool:
        connection.cursor().execute(change)

        def end() -> None:
            try:
                assert eventually(lambda: bool(made.sql(WAITING)))
            finally:
                connection.commit()

        ending = pool.submit(end)
        yield
        ending.result()


def rows(made: Scene, backup: Backup) -> Counter[bytes]:
    """Each row of the backup with the table and the columns that it is for."""
    found: Counter[bytes] = Counter()
    table = b""
    for line in made.stored(backup)[0].splitlines():
        if line.startswith(b"COPY "):
            table = line
        elif line == b"\\.":
            table = b""
        elif table:
            found[table + line] += 1
    return found


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_before_pg_dump_has_its_locks_is_in_the_backup_as_it_is_then(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch, change: str, jobs: int
) -> None:
    monkeypatch.setattr("tasks.backup.large_tables.LARGE", 1)
    made = scene(jobs=jobs)
    made.sql(TABLES)
    with under_way(made, CHANGES[change]):
        backup = made.back_up()
    assert rows(made, backup) == rows(made, made.back_up())
    assert backup.rows == 80101


def test_tables_that_change_each_time_are_locked_before_the_next_snapshot(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene()
    made.sql(TABLES)
    arguments = dumping.pg_dump_arguments

    def after_truncate(*given: Any) -> list[str]:
        """Between snapshot and locks; a table that is locked already is not waited for."""
        with suppress(psycopg2.errors.LockNotAvailable):
            made.sql("SET lock_timeout = 100; TRUNCATE other; INSERT INTO other VALUES (0, 0)")
        return arguments(*given)

    monkeypatch.setattr(dumping, "pg_dump_arguments", after_truncate)
    assert made.back_up().rows == 80101


@pytest.mark.parametrize("jobs", [1, 3])
def test_schemas_that_exchange_their_names_while_rows_are_read_end_the_try(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    """pg_dump locks no schema, and asks for the rows of each table by its name."""
    monkeypatch.setattr("tasks.backup.large_tables.LARGE", 1 << 30 if jobs == 1 else 1)
    made = scene(jobs=jobs)
    made.sql(TABLES)
    feed, exchanges = JoiningScanner.feed, ["ALTER SCHEMA s RENAME TO x; ALTER SCHEMA z RENAME TO s"]

    def exchanged(self: JoiningScanner, text: memoryview) -> None:
        """Within the rows of the first table: those of the other are as many bytes as pipes and buffers hold, and more."""
        while exchanges:
            made.sql(f"{exchanges.pop()}; ALTER SCHEMA x RENAME TO z")
        feed(self, text)

    monkeypatch.setattr(JoiningScanner, "feed", exchanged)
    with pytest.raises(DumpFailed, match="Renamed while they were dumped: the schemas s, z: another try"):
        made.back_up()
    assert made.plan.catalogue.completed(made.plan.name) == []
    assert made.back_up().rows == 80101


@pytest.mark.parametrize("change", ["exchanged", "dropped"])
def test_a_large_table_that_gives_its_name_away_before_it_is_locked_ends_the_try(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr("tasks.backup.large_tables.LARGE", 1)
    made = scene(jobs=2)
    made.sql(TABLES)
    lock = dumping.lock_tables
    changes = [
        "ALTER TABLE s.a RENAME TO b; CREATE TABLE s.a AS SELECT 1 AS i, 'new' AS t"
        if change == "exchanged"
        else "DROP TABLE s.a"
    ]

    def changed(*given: Any) -> None:
        while changes:
            made.sql(changes.pop())
        lock(*given)

    monkeypatch.setattr(dumping, "lock_tables", changed)
    with pytest.raises(DumpFailed, match="when the dump began"):
        made.back_up()
    assert rows(made, made.back_up()).total() == (80102 if change == "exchanged" else 40101)
