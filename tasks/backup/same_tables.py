"""Whether tables are still, when pg_dump has locked them, what they were in the snapshot of the dump.

pg_dump takes its snapshot first and locks the tables after it, by name; it may wait for a lock. A TRUNCATE or an ALTER
TABLE that writes a table anew, and ends in between, leaves no row that the snapshot sees: pg_dump would write the table
as an empty one, and call that a success. Tables, columns or schemas that exchange their names would get the rows of the
other. Schemas can do so at any time: pg_dump locks none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from psycopg2.extensions import connection as Connection

from tasks.backup.source import DUMPED_RELATIONS
from tasks.errors import DumpFailed, TablesChanged, named
from tasks.postgres.server import rows

#: Names in SQL_ASCII may be in no encoding: their bytes are written as `\374` then.
_NAME = """CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN encode(convert_to({name}, 'SQL_ASCII'), 'escape')
                                ELSE {name} END"""
#: The file of a table is another one after TRUNCATE, and after whatever writes the table anew.
_TABLES = f"""
    WITH dumped AS ({DUMPED_RELATIONS})
    SELECT d.oid::bigint AS oid, {_NAME.format(name="d.name")} AS name, d.schema_oid::bigint AS schema_oid,
           {_NAME.format(name="d.nspname::text")} AS schema, c.relfilenode::bigint AS file,
           {_NAME.format(name="a.columns")} AS columns
      FROM dumped d JOIN pg_class c ON c.oid = d.oid
      LEFT JOIN (SELECT attrelid, string_agg(attnum || ' ' || attname, ',' ORDER BY attnum) AS columns
                   FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped GROUP BY attrelid) a ON a.attrelid = c.oid
     WHERE d.relkind IN ('r', 'p')
"""
_SCHEMAS = f"SELECT oid::bigint AS oid, {_NAME.format(name='nspname::text')} AS schema FROM pg_namespace"
AGAIN = "another try takes a new snapshot."


class _Table(NamedTuple):
    """What the rows of a table are read by."""

    name: str
    file: int
    columns: str | None
    """Their numbers and names."""


@dataclass(frozen=True)
class SeenTables:
    """The tables of a dump as its snapshot sees them: what each is by its number, and the names of their schemas."""

    excluded: tuple[str, ...]
    tables: dict[int, _Table]
    schemas: dict[int, str]

    def check(self, connection: Connection) -> None:
        """To be called while pg_dump holds its locks, in a session that sees what is now. Raises TablesChanged."""
        now = _tables(rows(connection, _TABLES, excluded=list(self.excluded)))
        changed = {now[oid].name for oid, seen in self.tables.items() if now.get(oid, seen) != seen}
        for sentence in named("Emptied, written anew or renamed while the dump began: ", sorted(changed), AGAIN):
            raise TablesChanged(sentence, {name for name in changed if "\\" not in name})

    def check_schemas(self, connection: Connection) -> None:
        """To be called when all rows have been read. Raises DumpFailed."""
        now = {row["oid"]: row["schema"] for row in rows(connection, _SCHEMAS)}
        renamed = [name for oid, name in self.schemas.items() if now.get(oid, name) != name]
        for sentence in named("Renamed while they were dumped: the schemas ", renamed, AGAIN):
            raise DumpFailed(sentence)


def seen_tables(connection: Connection, excluded: Collection[str]) -> SeenTables:
    """The tables whose rows are dumped, in the snapshot of this session."""
    found = rows(connection, _TABLES, excluded=list(excluded))
    return SeenTables(tuple(excluded), _tables(found), {row["schema_oid"]: row["schema"] for row in found})


def _tables(found: list[dict[str, object]]) -> dict[int, _Table]:
    return {row["oid"]: _Table(row["name"], row["file"], row["columns"]) for row in found}  # type: ignore[misc,arg-type]
