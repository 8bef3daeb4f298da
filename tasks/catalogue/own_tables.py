"""The session of the catalogue: PostgreSQL's own names alone, and tables in which no code of others runs.

The catalogue may lie in a database whose owner is not to be trusted with the rights of the role in CATALOG_URL. So the
session's search_path is pg_catalog, its statements name the tables with their schema, and whoever owns a table, or a
function, type or operator that a table uses, has the rights of this role already.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import quote_ident
from psycopg2.extras import RealDictCursor

from tasks.errors import BadSetting

TABLES = ("database_backups", "backup_events")
_NAME = re.compile(rf"(?<![\w.\"])('?)({'|'.join(TABLES)})(?![\w\"])")
_WRITES = re.compile(r"\s*(INSERT|UPDATE|LOCK)\b")
#: Without an operator or a cast, which the search_path could replace.
_PATH = "RESET search_path; SELECT pg_catalog.current_schemas(false) AS schemas"
_PINNED = """
    SET search_path = pg_catalog;
    SELECT set_config('synchronous_commit', 'local', false) WHERE current_setting('synchronous_commit') = 'off'
"""
_THERE = """
    SELECT DISTINCT ON (c.relname) c.relname AS name, n.nspname AS schema
      FROM unnest(%(path)s) WITH ORDINALITY p(name, place)
      JOIN pg_namespace n ON n.nspname = p.name JOIN pg_class c ON c.relnamespace = n.oid
     WHERE c.relname = ANY (%(tables)s) ORDER BY c.relname, p.place
"""
#: SQL: whether role `owner` has the rights of role `me`, or shares its own with it.
_TRUSTED = """
    (owner.rolsuper OR owner.oid = me.oid OR pg_has_role(owner.oid, me.oid, 'MEMBER')
     OR NOT me.rolsuper AND pg_has_role(me.oid, owner.oid, 'MEMBER'))
"""
#: What is not as it must be: `kind` for a table that is none, `owner` and `uses` for what belongs to another role,
#: `trigger` for a role that may make triggers, `schema` for one that may rename the schema.
_STRANGE = f"""
    WITH ours AS (
        SELECT c.oid, c.relname, c.relkind, c.relowner, c.relacl, n.nspname, n.nspowner
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%(schemas)s::name[], %(tables)s::name[]))
    ), used AS (
        SELECT ours.relname, ours.nspname, d.refclassid, d.refobjid,
               coalesce(p.proowner, t.typowner, o.oprowner) AS owner
          FROM ours CROSS JOIN LATERAL (
            SELECT 'pg_class'::regclass AS class, ours.oid
            UNION ALL SELECT 'pg_class'::regclass, indexrelid FROM pg_index WHERE indrelid = ours.oid
            UNION ALL SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef WHERE adrelid = ours.oid
            UNION ALL SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE conrelid = ours.oid
            UNION ALL SELECT 'pg_trigger'::regclass, oid FROM pg_trigger WHERE tgrelid = ours.oid
            UNION ALL SELECT 'pg_rewrite'::regclass, oid FROM pg_rewrite WHERE ev_class = ours.oid
            UNION ALL SELECT 'pg_policy'::regclass, oid FROM pg_policy WHERE polrelid = ours.oid
          ) part JOIN pg_depend d ON d.classid = part.class AND d.objid = part.oid
          LEFT JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
          LEFT JOIN pg_type t ON d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid
          LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
    ), every AS (
        SELECT 'kind' AS what, nspname, relname, NULL::oid AS owner, '' AS thing FROM ours WHERE relkind <> 'r'
        UNION ALL SELECT 'owner', nspname, relname, relowner, '' FROM ours
        UNION ALL SELECT 'uses', nspname, relname, owner, pg_describe_object(refclassid, refobjid, 0)
          FROM used WHERE owner IS NOT NULL
        UNION ALL SELECT 'trigger', nspname, relname, grantee, '' FROM ours, aclexplode(relacl)
         WHERE privilege_type = 'TRIGGER'
        UNION ALL SELECT 'schema', nspname, relname, nspowner, '' FROM ours
    )
    SELECT every.what, every.nspname AS schema, every.relname AS name, every.thing, me.rolname AS me,
           me.rolsuper AS superuser, coalesce(owner.rolname, 'public') AS owner
      FROM every CROSS JOIN pg_roles me JOIN pg_database d ON d.datname = current_database()
      LEFT JOIN pg_roles owner
        ON owner.oid = CASE every.owner WHEN to_regrole('pg_database_owner') THEN d.datdba ELSE every.owner END
     WHERE me.rolname = current_user AND (owner.oid IS NULL OR NOT {_TRUSTED})
     ORDER BY array_position(ARRAY['kind', 'owner', 'uses', 'trigger', 'schema'], every.what), every.relname
"""
_ELSEWHERE = "name a database of its own in CATALOG_URL"


class CatalogueCursor(RealDictCursor):  # type: ignore[misc]  # psycopg2 has no types
    """A cursor in a transaction of the catalogue. Statements name its tables alone: their schema is put before them.

    `begin` comes first. Text that execute_values makes has to be `qualified` by the caller.
    """

    schemas: dict[str, str]
    _open_to_triggers: frozenset[str] = frozenset()

    def begin(self, lock: bool = True) -> None:
        """Finds the tables, and keeps others from replacing them before the transaction ends, unless not to `lock`.

        Raises BadSetting when code of another role would run in them.
        """
        super().execute(_PATH)
        path = [name for name in self.fetchall()[0]["schemas"] if not name.startswith("pg_")]
        super().execute(_PINNED)
        super().execute(_THERE, {"path": path, "tables": list(TABLES)})
        there = {str(row["name"]): str(row["schema"]) for row in self.fetchall()}
        default = next(iter(there.values()), path[0] if path else "")
        self.schemas = {table: there.get(table, default) for table in TABLES}
        strange = self._checked(there if lock else ())
        if there and lock and any(row["what"] == "schema" and row["superuser"] for row in strange):
            # A lock on a table does not keep the owner of its schema from renaming the schema.
            super().execute("SELECT FROM pg_namespace WHERE nspname = ANY (%s) FOR SHARE", [list(there.values())])
            strange = self._checked(there)
        self._open_to_triggers = frozenset(row["name"] for row in strange if row["what"] == "trigger")

    def name_of(self, table: str) -> str:
        """The table with its schema, quoted."""
        return f"{quote_ident(self.schemas[table], self.connection)}.{table}" if self.schemas[table] else table

    def qualified(self, statement: str, escape: bool = True) -> str:
        """The statement with the schema before each of our tables; per cent signs are doubled to `escape` them."""

        def named(match: re.Match[str]) -> str:
            name = self.name_of(match[2])
            name = name.replace("'", "''") if match[1] else name
            return match[1] + (name.replace("%", "%%") if escape else name)

        return _NAME.sub(named, statement)

    def execute(self, query: Any, values: Any = None) -> None:
        """Runs a statement in which our tables have no schema."""
        if isinstance(query, str):
            if self._open_to_triggers and _WRITES.match(query):
                self._checked(sorted(self._open_to_triggers), "ROW EXCLUSIVE")
                self._open_to_triggers = frozenset()
            query = self.qualified(query, escape=values is not None)
        super().execute(query, values)

    def make(self, definitions: str) -> None:
        """Runs definitions of tables, which come to be in the schema of the catalogue."""
        path = quote_ident(self.schemas[TABLES[0]], self.connection) if self.schemas[TABLES[0]] else "''"
        super().execute(f"SET LOCAL search_path = {path}")  # pg_catalog comes before it
        super().execute(definitions)
        super().execute("SET LOCAL search_path = pg_catalog")

    def _checked(self, tables: Collection[str], mode: str = "ACCESS SHARE") -> list[dict[str, Any]]:
        """What is strange, once these tables are locked. Raises as `refuse_strange`."""
        if tables:
            try:
                super().execute(f"LOCK TABLE {', '.join(map(self.name_of, tables))} IN {mode} MODE")
            except psycopg2.errors.WrongObjectType:
                raise foreign(" or ".join(tables)) from None
        strange = strange_in(self.connection, self.schemas)
        refuse_strange(strange)
        return strange


def strange_in(connection: Connection, schemas: dict[str, str]) -> list[dict[str, Any]]:
    """What belongs to others in the tables that lie in these schemas. The session's search_path is pg_catalog."""
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(_STRANGE, {"tables": list(schemas), "schemas": list(schemas.values())})
        return [dict(row) for row in cursor.fetchall()]


def refuse_strange(strange: list[dict[str, Any]]) -> None:
    """Raises BadSetting when code of another role would run in one of the tables."""
    for row in strange:
        table, owner, me = f"{row['schema']}.{row['name']}", row["owner"], row["me"]
        if row["what"] == "kind":
            raise foreign(row["name"])
        if row["what"] == "owner":
            raise BadSetting(
                f"The table {table} belongs to role {owner}, whose code would run with the rights of {me}: "
                f"{_ELSEWHERE}, or, if the table is the catalogue, let {me} own it."
            )
        if row["what"] == "uses":
            raise BadSetting(
                f"The table {table} uses the {row['thing']} of role {owner}, whose code would run with the rights of "
                f"{me}: drop what uses it, or {_ELSEWHERE}."
            )


def foreign(table: str) -> BadSetting:
    """The error for a table with a name of ours that is not this system's."""
    return BadSetting(f"There is a table {table} that is not this system's: name another database in CATALOG_URL.")
