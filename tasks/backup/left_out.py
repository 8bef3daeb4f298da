"""What a plan leaves out of its backups: its patterns, and the tables of the database that they name.

The patterns are resolved once, and pg_dump gets the names: so the manifest names just what is left out, and every check
knows it. What is made after that is in the backup.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection

from tasks.backup.source import DUMPED_RELATIONS
from tasks.errors import BadSetting
from tasks.plans.plan import Plan
from tasks.postgres.dump_patterns import DumpPattern
from tasks.postgres.server import rows
from tasks.storage.backup_values import NOTHING_LEFT_OUT, LeftOut

_CORRECT = "correct the plan, if this is not meant"
_SCHEMAS_FIELD, _TABLES_FIELD, _ROWS_FIELD = "only_schemas", "exclude_tables", "exclude_rows"
#: What --exclude-table takes, and what has rows of its own or in its partitions.
_KINDS = {_TABLES_FIELD: "rvmSfp", _ROWS_FIELD: "rp"}
_MATCHING = """
    SELECT c.oid::bigint AS oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = ANY (string_to_array(%(kinds)s, NULL)::"char"[]) AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND c.relname ~ %(name)s COLLATE "default" AND n.nspname ~ %(schema)s COLLATE "default"
"""
#: Partitions and children go with their table, at every depth. A sequence goes with the table that owns it, but stays
#: while another table takes its numbers from it.
_FAMILY = """
    WITH RECURSIVE family (oid) AS (
           SELECT unnest(%(oids)s::oid[]) UNION SELECT inhrelid FROM family JOIN pg_inherits ON inhparent = family.oid),
         every (oid) AS (
           SELECT oid FROM family
           UNION SELECT d.objid FROM family JOIN pg_depend d ON d.refobjid = family.oid
             JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
            WHERE %(owned)s AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
              AND d.deptype IN ('a', 'i'))
    SELECT format('%%I.%%I', n.nspname, c.relname) AS name
      FROM every JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind <> 'S' OR NOT EXISTS (
             SELECT FROM pg_depend d JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
              WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
                AND f.adrelid NOT IN (SELECT oid FROM family))
     ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""
#: The schemas of users and whether a pattern names them. Those that an extension has made go with it.
_SCHEMAS = """
    SELECT n.oid::bigint AS oid, quote_ident(n.nspname) AS name, n.nspname ~ %(name)s COLLATE "default" AS named,
           EXISTS (SELECT FROM pg_extension WHERE extnamespace = n.oid AND oid >= 16384) AS has_extension
      FROM pg_namespace n
     WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
     ORDER BY n.nspname COLLATE "C"
"""
_WITHIN = """
    SELECT format('%%I.%%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.oid = ANY (%(schemas)s::oid[]) AND c.relkind IN ('r', 'v', 'm', 'S', 'f', 'p')
       AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
     ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""
_REST = f"SELECT EXISTS (SELECT FROM ({DUMPED_RELATIONS}) r WHERE relkind IN ('r', 'p')) AS some"


@dataclass(frozen=True)
class Resolved:
    """What the patterns of a plan name, and a sentence for each pattern that names nothing."""

    left_out: LeftOut = NOTHING_LEFT_OUT
    unmatched: tuple[str, ...] = ()


def left_out(connection: Connection, plan: Plan, own: Collection[str] = ()) -> Resolved:
    """What the plan leaves out of the database; `own` are the relations of the catalogue, which no backup holds.

    A pattern that names nothing stops no backup: a table may be dropped, or not be made yet. Raises BadSetting for a
    pattern that is no regular expression, and when no table would be left.
    """
    if not (plan.only_schemas or plan.exclude_tables or plan.exclude_rows):
        return Resolved()
    schemas, within, unknown = _other_schemas(connection, plan)
    visible = _visible(connection)
    tables, missing = _named(connection, _TABLES_FIELD, plan.exclude_tables, visible)
    emptied, more = _named(connection, _ROWS_FIELD, plan.exclude_rows, visible)
    gone = [name for name in {*within, *_family(connection, tables, owned=True)} if name not in set(own)]
    [rest] = rows(connection, _REST, excluded=[*own, *gone])
    if gone and not rest["some"]:
        fields = f"{_SCHEMAS_FIELD} and {_TABLES_FIELD}" if schemas else _TABLES_FIELD
        raise BadSetting(f"Of {fields} of plan {plan.name}, no table is left to back up: correct the plan.")
    without = [name for name in _family(connection, emptied, owned=False) if name not in {*own, *gone}]
    return Resolved(LeftOut(tuple(sorted(gone)), tuple(without), schemas), (*unknown, *missing, *more))


def _other_schemas(connection: Connection, plan: Plan) -> tuple[tuple[str, ...], list[str], list[str]]:
    """The schemas that are left out, the relations in them, and a sentence for each pattern that names none.

    A schema with an extension stays, since the extension needs it; but for that, nothing of it does: its relations are
    left out.
    """
    if not plan.only_schemas:
        return (), [], []
    named: set[int] = set()
    missing = []
    for pattern in plan.only_schemas:
        every = _asked(connection, _SCHEMAS, _SCHEMAS_FIELD, pattern, name=pattern.name)
        found = {row["oid"] for row in every if row["named"]}
        named |= found
        if not found:
            missing.append(
                f"{_SCHEMAS_FIELD} names {pattern.written}, and no schema is found by that name: {_CORRECT}."
            )
    others = [row for row in every if row["oid"] not in named]
    within = rows(connection, _WITHIN, schemas=[row["oid"] for row in others])
    alone = tuple(row["name"] for row in others if not row["has_extension"])
    return alone, [row["name"] for row in within], missing


def _named(
    connection: Connection, field: str, patterns: Sequence[DumpPattern], visible: Collection[int]
) -> tuple[list[int], list[str]]:
    """The tables that the patterns name, and a sentence for each pattern that names none."""
    oids: list[int] = []
    missing = []
    for pattern in patterns:
        matching = _matching(connection, field, pattern)
        found = matching if pattern.schema else [oid for oid in matching if oid in visible]
        oids += found
        if not found:
            advice = f"write *.{pattern.written}" if matching else _CORRECT
            missing.append(f"{field} names {pattern.written}, and no table is found by that name: {advice}.")
    return oids, missing


def _matching(connection: Connection, field: str, pattern: DumpPattern) -> list[int]:
    given = {"kinds": _KINDS[field], "name": pattern.name, "schema": pattern.schema or "."}
    return [row["oid"] for row in _asked(connection, _MATCHING, field, pattern, **given)]


def _asked(connection: Connection, query: str, field: str, pattern: DumpPattern, **given: str) -> list[dict[str, Any]]:
    try:
        return rows(connection, query, **given)
    except psycopg2.errors.InvalidRegularExpression:
        raise BadSetting(
            f"{field} has {pattern.written!r}, which is no pattern: put names with such characters in double quotes."
        ) from None


def _visible(connection: Connection) -> frozenset[int]:
    """The relations that need no schema, by the search_path that pg_dump has when it reads its patterns."""
    with connection.cursor() as cursor:
        cursor.execute("RESET search_path")
        try:
            cursor.execute("SELECT c.oid FROM pg_catalog.pg_class c WHERE pg_catalog.pg_table_is_visible(c.oid)")
            return frozenset(oid for (oid,) in cursor.fetchall())
        finally:
            cursor.execute("SET search_path = pg_catalog")


def _family(connection: Connection, oids: Iterable[int], owned: bool) -> list[str]:
    return [row["name"] for row in rows(connection, _FAMILY, oids=list(oids), owned=owned)]
