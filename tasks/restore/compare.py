"""The rows of every restored table are counted and compared with the manifest, several tables at once.

pg_dump writes the rows of some partitions as COPY of the partitioned table, once for each (those of a hash on an enum,
whose values hash differently in another database). Such entries of one name are added up, and counted over the whole
tree, without the partitions that have an entry of their own.

Also ANALYZE, so that the planner has statistics of the restored tables.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from tasks.errors import RowsDiffer, Unreachable
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import first_row, rows, within_pg_catalog
from tasks.postgres.server_errors import without_values
from tasks.restore.content import compare_content
from tasks.restore.entries import rows_entry
from tasks.restore.scratch import scratch_dsn
from tasks.restore.values import LARGE_OBJECTS, Comparison, Loaded, RestoreRun, TableCount
from tasks.storage.backup_values import StoredBackup, raw_name

#: What `TableCount.found` is for a table that is not there.
MISSING = -1

NAME = "restore: compares"
_AT_ONCE = 3
_NAMED_AT_MOST = 10
#: With these, counting sees all rows and is not interrupted, whatever the settings of the restored database are.
_SETTINGS = (
    "SET row_security = off",
    "SET statement_timeout = 0",
    "SET lock_timeout = '60s'",
    "SET default_transaction_read_only = off",
    "SET max_parallel_workers_per_gather = 2",
)
_TABLE = """
    SELECT format('%%I.%%I', n.nspname, c.relname) AS name,
           c.relforcerowsecurity AND row_security_active(c.oid) AS hides,
           EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.deptype = 'e') AS is_member
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%(table)s)
"""
#: ANALYZE of a partitioned table takes in its partitions. The largest go first, so that all connections end together.
_ANALYSED = """
    SELECT format('%%I.%%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND NOT c.relisshared AND NOT c.relispartition
       AND n.nspname !~ '^pg_toast' AND (n.nspname <> 'pg_catalog' OR pg_has_role(
             (SELECT datdba FROM pg_database WHERE datname = current_database()), 'USAGE'))
       AND (n.nspname = 'pg_catalog' OR pg_has_role(c.relowner, 'USAGE'))
     ORDER BY CASE c.relkind WHEN 'p' THEN (SELECT sum(pg_table_size(relid)) FROM pg_partition_tree(c.oid))
                             ELSE pg_table_size(c.oid) END DESC NULLS LAST, 1
"""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def compare_run(plan: Plan, run: RestoreRun, loaded: Loaded) -> Comparison:
    """Every table that was restored has the rows that the manifest says; where asked for, the content is compared.

    Raises RowsDiffer, ContentDiffers.

    In place, they were counted before the COMMIT: counted now, they would be those of the users as well.
    """
    if run.mode == "in_place":
        return Comparison(loaded.counted)
    if run.tables and not run.chosen:  # a partitioned table without partitions has no rows
        return Comparison(())
    compared = compare(scratch_dsn(plan, run), run.backup, run.chosen, loaded.left_out)
    if loaded.content is None:
        return compared
    how, note = compare_content(plan, run, loaded.content, loaded.left_out)
    warnings = (note,) if note else ()
    return replace(compared, warnings=warnings, by_content=how == "all", rows_by_content=how != "nothing")


def compare(dsn: Dsn, backup: StoredBackup, tables: tuple[str, ...] = (), left_out: Collection[str] = ()) -> Comparison:
    """The row counts of a restored database, equal to those of the backup; of `tables` alone where some are named.

    Tables and large objects whose entries are in `left_out` do not count. Raises RowsDiffer, which names up to ten
    tables with the rows expected and found.
    """
    chosen = [table for table in expected_rows(backup, tables) if rows_entry(table.name) not in left_out]
    counted = count_rows(dsn, chosen)
    if not tables and not any(name.startswith("BLOB") for name in left_out):
        counted += (count_large_objects(dsn, backup.large_objects),)
    if different := [count for count in counted if count.differs]:
        raise RowsDiffer(difference(dsn.dbname, backup.filename, different))
    return Comparison(counted)


def difference(database: str, filename: str, different: Sequence[TableCount]) -> str:
    """The sentence for tables that differ. Pure."""
    tables = [
        f"{count.name} {'is missing' if count.found == MISSING else f'has {count.found:,} rows'}, "
        f"expected {count.expected:,}"
        for count in different[:_NAMED_AT_MOST]
    ]
    more = f"; and {len(different) - _NAMED_AT_MOST} more" if len(different) > _NAMED_AT_MOST else ""
    return (
        f"{database} does not hold what {filename} holds: {'; '.join(tables)}{more}; nothing was replaced: restore "
        "another backup, or look for a trigger or rule that changes rows."
    )


def count_rows(dsn: Dsn, tables: Sequence[Expected]) -> tuple[TableCount, ...]:
    """The rows that each table has now, in the order given; `found` is MISSING for a table that is not there.

    Rows of children do not count for their parents, except for a partitioned table through which its partitions were
    dumped. Raises AccessRefused for a table that this role may not read.
    """
    largest_first = sorted(tables, key=lambda table: -table.size)
    counted = dict(zip(largest_first, _at_once(dsn, _count, largest_first), strict=True))
    return without_partitions(tables, [counted[table] for table in tables])


def count_large_objects(dsn: Dsn, expected: int) -> TableCount:
    """How many large objects there are."""
    with dsn.session(NAME) as connection:
        [row] = rows(within_pg_catalog(connection), "SELECT count(*) AS n FROM pg_largeobject_metadata")
    return TableCount(LARGE_OBJECTS, expected, row["n"])


def analyze(dsn: Dsn) -> list[str]:
    """ANALYZE of everything in a database that this role may analyse; a sentence for each table that failed."""
    with dsn.session(NAME) as connection:
        _take_any_bytes(connection)
        names = [row["name"] for row in rows(within_pg_catalog(connection), _ANALYSED)]
    return [problem for problem in _at_once(dsn, _analyze, names) if problem]


def _count(connection: Connection, table: Expected) -> TableCount:
    written = raw_name(table.name).encode("utf-8", "surrogateescape").decode("latin-1")
    there = rows(connection, _TABLE, table=written if connection.encoding == "LATIN1" else table.name)
    if not there:
        return TableCount(table.name, table.rows, MISSING)
    [row] = there
    name = sql.SQL(row["name"])
    statement = sql.SQL("SELECT count(*) FROM " + table.scope + " {}").format(name)
    counted = _count_hidden(connection, name, statement) if row["hides"] else first_row(connection, statement)[0]
    return TableCount(table.name, table.rows, counted, at_least=row["is_member"])


def _count_hidden(connection: Connection, name: sql.SQL, statement: sql.Composed) -> int:
    """Counts a table whose policies apply to its owner too: lifts that in a transaction that is rolled back."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            cursor.execute(sql.SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(name))
            cursor.execute(statement)
            return int(cursor.fetchone()[0])
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK")


def _analyze(connection: Connection, name: str) -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"ANALYZE {name}")
    except psycopg2.errors.UndefinedTable:
        return ""
    except psycopg2.Error as error:
        if error.pgcode is None or connection.closed:
            raise
        return f"ANALYZE of {name} failed ({without_values(error)}): run it by hand, or leave it to autovacuum."
    return ""


def _at_once(dsn: Dsn, work: Callable[[Connection, Item], Answer], items: Sequence[Item]) -> list[Answer]:
    """The answers of `work` to the items, begun in their order on a few connections at once.

    With only one free connection, that one does it all. The first error ends the work on the others.
    """
    waiting: queue.SimpleQueue[tuple[int, Item]] = queue.SimpleQueue()
    for pair in enumerate(items):
        waiting.put(pair)
    failed = threading.Event()

    def work_off(connection: Connection) -> list[tuple[int, Answer]]:
        answers = []
        try:
            with dsn.sentences():
                while not failed.is_set() and not waiting.empty():
                    with contextlib.suppress(queue.Empty):
                        index, item = waiting.get_nowait()
                        answers.append((index, work(connection, item)))
        except BaseException:
            failed.set()
            raise
        return answers

    with _connections(dsn, min(_AT_ONCE, len(items))) as several, ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = [pool.submit(work_off, connection) for connection in several]
        try:
            done = [answer for future in futures for answer in future.result()]
        finally:
            failed.set()  # an interruption too ends the others, each after its table
    return [answer for _, answer in sorted(done, key=lambda pair: pair[0])]


@contextlib.contextmanager
def _connections(dsn: Dsn, number: int) -> Iterator[list[Connection]]:
    """Up to `number` connections, as many as the server has free; raises Unreachable when there is none."""
    with contextlib.ExitStack() as stack:
        several: list[Connection] = []
        for _ in range(number):
            try:
                several.append(stack.enter_context(dsn.session(NAME)))
            except Unreachable:
                if not several:
                    raise
                break
            _prepare(several[-1])
        yield several


def _take_any_bytes(connection: Connection) -> None:
    """Names in a database without an encoding may not be UTF-8; as LATIN1, every byte is passed on unchanged."""
    if connection.get_parameter_status("server_encoding") == "SQL_ASCII":
        connection.set_client_encoding("LATIN1")


def _prepare(connection: Connection) -> None:
    _take_any_bytes(connection)
    within_pg_catalog(connection)
    with connection.cursor() as cursor:
        for setting in _SETTINGS:
            cursor.execute(setting)
        if connection.server_version >= 170000:
            cursor.execute("SET transaction_timeout = 0")


@dataclass(frozen=True)
class Expected:
    """The rows of one table, as the manifest lists them."""

    name: str
    """As the manifest writes it."""
    rows: int
    size: int
    """Bytes of the rows in the plain text."""
    is_partitioned: bool = False
    below: tuple[str, ...] = ()
    """For a partitioned table: the partitions at any depth that have an entry of their own."""

    @property
    def scope(self) -> str:
        """What stands before the table's name in FROM."""
        return "" if self.is_partitioned else "ONLY"


def expected_rows(backup: StoredBackup, tables: Collection[str] = ()) -> list[Expected]:
    """The tables of a backup in the dump's order, each once; `tables` alone where some are named."""
    rows: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for table in backup.tables:
        if not tables or table.name in tables:
            rows[table.name] = rows.get(table.name, 0) + table.rows
            sizes[table.name] = sizes.get(table.name, 0) + table.end - table.start
    partitioned = set(backup.parents.values())
    return [
        Expected(
            name,
            rows[name],
            sizes[name],
            name in partitioned,
            tuple(other for other in rows if name in partitioned and name in ancestors(other, backup.parents)),
        )
        for name in rows
    ]


def ancestors(name: str, parents: Mapping[str, str]) -> list[str]:
    """The tables that a partition is a partition of, the nearest first."""
    found: list[str] = []
    while (name := parents.get(name, "")) and name not in found:
        found.append(name)
    return found


def without_partitions(tables: Sequence[Expected], counts: Sequence[TableCount]) -> tuple[TableCount, ...]:
    """The counts, those of partitioned tables less the rows of partitions that are counted by themselves."""
    found = {count.name: max(count.found, 0) for count in counts}
    return tuple(
        replace(count, found=count.found - sum(found.get(name, 0) for name in table.below))
        if table.below and count.found != MISSING
        else count
        for table, count in zip(tables, counts, strict=True)
    )
