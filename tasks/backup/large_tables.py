"""Which tables several sessions read at once, in ranges of pages, and the statements that write them as pg_dump does.

pg_dump leaves out the rows of these tables. They are read in the same snapshot, by ranges of the row's place (ctid),
and put together in the order of the table: the text is what pg_dump itself would have written.

The tables are locked before the snapshot is taken, and until the dump ends: TRUNCATE would take the rows away from the
snapshot as well, and pg_dump, whose own locks end with it, may be done long before its rows are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import encodings

from tasks.backup.dump_syntax import COPY, head_pattern, simple_pattern
from tasks.backup.scanner import DumpScanner
from tasks.backup.source import DUMPED_RELATIONS
from tasks.postgres.server import rows
from tasks.storage.backup_values import TableData

#: Bytes on disk, out-of-line values among them, from which on a table is worth several sessions.
LARGE = 64 << 20
#: Pages that one session reads at a time; 8 MiB, without out-of-line values.
UNIT_PAGES = 1024
#: From this version on, PostgreSQL finds a range of pages without reading those before it.
_RANGES_SINCE = 140000

#: Plain tables alone: the rest is for pg_dump. It writes the rows of some partitions by way of their parent, those of
#: extensions only in part, and it takes names as patterns, which these names cannot be mistaken for.
_LARGE = f"""
    WITH dumped AS ({DUMPED_RELATIONS}),
         locked (oid) AS (SELECT DISTINCT relation FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation > 0)
    SELECT c.oid::bigint AS oid, d.nspname AS schema, c.relname AS name
      FROM dumped d JOIN pg_class c ON c.oid = d.oid JOIN pg_am a ON a.oid = c.relam
      LEFT JOIN locked ON locked.oid = c.oid
     WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND NOT c.relispartition AND a.amname = 'heap'
       AND CASE WHEN locked.oid IS NULL THEN pg_table_size(c.oid) ELSE 0 END >= %(smallest)s
       AND d.nspname ~ '^[a-z_][a-z0-9_]*$' AND c.relname ~ '^[a-z_][a-z0-9_]*$'
       AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
       AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
                                               AND attgenerated = '')
     ORDER BY d.nspname, c.relname
"""
_NAMES = """
    SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (%(oids)s::oid[])
"""
_COLUMNS = """(SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '')"""
_QUALIFIED = "quote_ident(n.nspname) || '.' || quote_ident(c.relname)"
_OF_TABLE = "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {oid}"
#: What pg_dump writes before the rows, from within the comment on.
_BEGINNING = f"""SELECT '-- Data for Name: ' || c.relname || '; Type: TABLE DATA; Schema: ' || n.nspname || '; Owner: '
    || translate(pg_get_userbyid(c.relowner), E'\\n\\r', '  ') || E'\\n--\\n\\nCOPY ' || {_QUALIFIED}
    || ' (' || {_COLUMNS} || ') FROM stdin;' {_OF_TABLE}"""
_ROWS = (
    f"""SELECT 'COPY (SELECT ' || {_COLUMNS} || ' FROM ONLY ' || {_QUALIFIED} || '{{range}}) TO STDOUT' {_OF_TABLE}"""
)

#: What pg_dump writes behind the rows, up to and into the comment of the next entry.
_ENDING = b"\\.\n\n\n--\n"
#: What pg_dump sets for its own sessions: the text of a value depends on it. No view is read: the owner of a schema may
#: rename it, and put a view with code in the place of a table that is locked. Older servers do not have that setting.
_SESSION = """
SET datestyle = ISO; SET intervalstyle = postgres; SET extra_float_digits = 3; SET synchronize_seqscans = off;
SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET row_security = off;
SET quote_all_identifiers = off; SET search_path = '';
SELECT pg_catalog.set_config(name, 'view, foreign-table', false)
  FROM pg_catalog.pg_settings WHERE name = 'restrict_nonsystem_relation_kind';
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{snapshot}';
"""

#: An entry behind the rows: an index or a key that were there first would be checked row by row.
_BEHIND_ROWS = re.compile(
    rb"; Type: (?:CONSTRAINT|FK CONSTRAINT|CHECK CONSTRAINT|INDEX|INDEX ATTACH|TRIGGER|RULE|EVENT TRIGGER|STATISTICS"
    rb"|ROW SECURITY|POLICY|PUBLICATION|PUBLICATION TABLE|PUBLICATION TABLES IN SCHEMA|SUBSCRIPTION"
    rb"|SUBSCRIPTION TABLE|MATERIALIZED VIEW DATA); Schema: "
)


@dataclass(frozen=True)
class LargeTable:
    """A table whose rows several sessions read."""

    oid: int
    schema: str
    name: str

    @property
    def pattern(self) -> str:
        """This table alone, as SQL and patterns of pg_dump name it."""
        return f'"{self.schema}"."{self.name}"'


class Part(Enum):
    """What a unit writes of a table."""

    BEGINNING = 1
    ROWS = 2
    LAST_ROWS = 3


@dataclass(frozen=True)
class Unit:
    """What a session does at one go."""

    commands: str
    """For psql: ASCII, each statement ended."""
    part: Part


def large_tables(connection: Connection, excluded: Collection[str]) -> tuple[LargeTable, ...]:
    """The tables of a dump that are large enough. One that is locked counts as small: its size cannot be asked."""
    found = rows(connection, _LARGE, excluded=list(excluded), smallest=LARGE)
    return tuple(LargeTable(**row) for row in found)


def lock_tables(connection: Connection, patterns: Collection[str], seconds: int) -> None:
    """Locks the tables against all that would move their rows, as pg_dump does, until the transaction ends.

    To be called before the snapshot is taken. Raises psycopg2.errors.LockNotAvailable after a wait of `seconds`.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{seconds}s'")
        cursor.execute(_lock(patterns).encode(encodings[connection.encoding], "surrogateescape"))
        cursor.execute("SET LOCAL lock_timeout = 0")


def renamed(connection: Connection, tables: Sequence[LargeTable]) -> list[str]:
    """Those that no longer had their names when they were locked: the rows of another table would be left out."""
    there = {LargeTable(**row) for row in rows(connection, _NAMES, oids=[table.oid for table in tables])}
    return [table.pattern for table in tables if table not in there]


def session_commands(tables: Sequence[LargeTable], snapshot: str) -> str:
    """What a session runs before it reads.

    Where another one waits to lock a table, a session would wait behind it, and that one for the end of the dump: soon
    it gives up.
    """
    lock = _lock([table.pattern for table in tables])
    return f"{_SESSION.format(snapshot=snapshot)}SET lock_timeout = '2s'; {lock};\nSET lock_timeout = 0;\n"


def _lock(patterns: Iterable[str]) -> str:
    return f"LOCK TABLE {', '.join(f'ONLY {pattern}' for pattern in patterns)} IN ACCESS SHARE MODE"


def units_of(connection: Connection, tables: Sequence[LargeTable]) -> Iterator[Unit]:
    """Everything that is to be read of the tables, which are locked, in the order of the dump."""
    pages = {
        row["oid"]: row["pages"]
        for row in rows(
            connection,
            "SELECT oid::bigint, pg_relation_size(oid) / current_setting('block_size')::int AS pages"
            " FROM pg_class WHERE oid = ANY (%(oids)s::oid[])",
            oids=[table.oid for table in tables],
        )
    }
    splits = connection.server_version >= _RANGES_SINCE
    for table in tables:
        starts = range(0, max(1, pages[table.oid]), UNIT_PAGES) if splits else range(1)
        yield Unit(f"{_BEGINNING.format(oid=table.oid)};\n", Part.BEGINNING)
        for start in starts:
            last = start == starts[-1]
            # The last range has no end: the table may have grown, and what the snapshot sees may not be left out.
            end = "" if last else f" AND ctid < ''({start + UNIT_PAGES},0)''"
            place = f" WHERE ctid >= ''({start},0)''{end}" if splits else ""
            read = _ROWS.format(oid=table.oid, range=place)
            yield Unit(f"{read} \\gexec\n", Part.LAST_ROWS if last else Part.ROWS)


class JoiningScanner(DumpScanner):
    """Hands the text of pg_dump on as it is read, and the rows of large tables at the place where pg_dump writes rows.

    That is before the first entry that comes behind all rows, from within its comment on, or before the trailer.
    """

    head = head_pattern(rb"(?P<entry>-- Name: )")
    simple = simple_pattern(comments=rb"-- Name: ")

    def __init__(self, take: Callable[[memoryview], None], units: Iterable[tuple[Unit, Iterator[bytes]]]) -> None:
        super().__init__()
        self._take = take
        self._units: Iterable[tuple[Unit, Iterator[bytes]]] | None = units
        self._handed_over = 0  # how much of `_text` has been

    def passed(self, text: bytes, end: int) -> None:
        assert text is self._text
        self._hand_over(end)
        self._handed_over = 0

    def hand_over_tail(self) -> None:
        """Hands over what is left; the dump has been read to its end."""
        self._hand_over(len(self._text))

    def special(self, kind: str, start: int, end: int) -> int:
        assert kind == "entry"
        line_end = self._text.find(b"\n", end) + 1
        if not line_end:
            return -1
        line = self._text[start:line_end]
        # A name may hold anything, and look like the type of another entry: then a later entry will do.
        if _BEHIND_ROWS.search(line) and line.count(b"; Type: ") == 1:
            self._join(start)
        return line_end

    def _before_trailer(self, at: int) -> None:
        self._join(at)

    def _hand_over(self, end: int) -> None:
        if end > self._handed_over:
            self._take(memoryview(self._text)[self._handed_over : end])
            self._handed_over = end

    def _join(self, at: int) -> None:
        """Hands over the rows of large tables before offset `at` of the text, which moves on by their size."""
        units, self._units = self._units, None
        if units is None:
            return
        self._hand_over(at)
        for unit, chunks in units:
            if unit.part is Part.BEGINNING:
                self._begin_table(b"".join(chunks), at)
                continue
            for chunk in chunks:
                self._line_ends += chunk.count(b"\n")
                self._insert(chunk)
            if unit.part is Part.LAST_ROWS:
                self._end_table(at)

    def _insert(self, text: bytes) -> None:
        self._take(memoryview(text))
        self._base += len(text)

    def _begin_table(self, text: bytes, at: int) -> None:
        self._insert(text)
        statement = COPY.search(text)
        assert statement is not None and statement.end() == len(text), "the beginning is one COPY statement"
        self._table = statement[1].decode("utf-8", "surrogateescape")
        self._start, self._line_ends = self._base + at, 0

    def _end_table(self, at: int) -> None:
        self._tables.append(TableData(self._table, self._line_ends, self._start, self._base + at))
        self._line_ends = 0
        self._insert(_ENDING)
