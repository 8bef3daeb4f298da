"""What the manifest says of the source database, and which of its relations a dump holds.

Every function reads catalogues alone, on a connection that the caller has opened: inside the REPEATABLE READ
transaction whose snapshot the dump shares, the answers describe the very state that is dumped. A hot standby
will do. Names of relations in `excluded` are written as `format('%I.%I', schema, name)` writes them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from psycopg2.extensions import connection as Connection

from tasks.backup.hindrances import hindrances
from tasks.backup.read_globals import server_globals
from tasks.postgres.server import rows
from tasks.storage.backup_values import (
    NOTHING_LEFT_OUT,
    Conditions,
    DatabaseProperties,
    Extension,
    LeftOut,
    Partition,
    SourceFacts,
)
from tasks.storage.globals_sql import with_sql
from tasks.storage.manifest_types import Grant, RoleSettings

#: Settings that decide what a value means when it is read, compared or cast: for CHECKs, generated columns, indexes and
#: materialised views. pg_dump's script sets others by itself. The value at the start of a session, which the server,
#: the database and the role decide, counts, but not what this machine's environment asks for; a monetary locale counts
#: only where money is stored.
_SETTINGS = """
    SELECT name, reset_val AS value FROM pg_settings
     WHERE source <> 'client' AND (
        lower(name) IN ('timezone', 'datestyle', 'intervalstyle', 'xmlbinary', 'bytea_output',
                        'default_text_search_config', 'extra_float_digits', 'transform_null_equals')
        OR (name = 'lc_monetary'
            AND (EXISTS (SELECT FROM pg_attribute WHERE atttypid IN ('money'::regtype, 'money[]'::regtype)
                                                    AND attrelid >= 16384 AND NOT attisdropped)
                 OR EXISTS (SELECT FROM pg_type WHERE typbasetype = 'money'::regtype AND oid >= 16384))))
     ORDER BY name
"""
_UNLOGGED = """
    SELECT format('%%I.%%I', n.nspname, c.relname) AS name
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relpersistence = 'u' AND c.relkind = 'r' AND pg_is_in_recovery()
       AND format('%%I.%%I', n.nspname, c.relname) <> ALL (%(excluded)s::text[])
     ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""

_ROLES_NAMED = Path(__file__).with_name("source_roles.sql")
#: Relations that `pg_dump` locks or whose content it writes: no system schemas, no temporary ones, no members of
#: extensions except their configuration tables, of which only the content is dumped.
DUMPED_RELATIONS = """
    SELECT c.oid, c.relkind, c.reltoastrelid, n.oid AS schema_oid, n.nspname,
           format('%%I.%%I', n.nspname, c.relname) AS name
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN (SELECT DISTINCT unnest(extconfig) FROM pg_extension WHERE oid >= 16384) config (oid)
        ON config.oid = c.oid
     WHERE c.relkind IN ('r', 'p', 'm', 'S')
       AND c.relpersistence <> 't'
       AND format('%%I.%%I', n.nspname, c.relname) <> ALL (%(excluded)s::text[])
       AND (config.oid IS NOT NULL
            OR (n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                AND NOT EXISTS (SELECT FROM pg_depend d
                                 WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')))
"""

#: pg_relation_size() waits while a table is locked; for such a table the figure in pg_class is used.
_PLAIN_SIZE = f"""
    WITH dumped AS ({DUMPED_RELATIONS}),
         content (oid, weight) AS (
           SELECT oid, 1 FROM dumped WHERE relkind = 'r'
           UNION ALL SELECT reltoastrelid, 2 FROM dumped WHERE relkind = 'r' AND reltoastrelid <> 0
           UNION ALL SELECT 'pg_largeobject'::regclass, 2),
         locked (oid) AS (SELECT DISTINCT relation FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation > 0)
    SELECT sum(weight * coalesce(CASE WHEN locked.oid IS NULL THEN pg_relation_size(c.oid) END,
                                 greatest(c.relpages, 0) * current_setting('block_size')::bigint))::bigint
      FROM content JOIN pg_class c USING (oid) LEFT JOIN locked USING (oid)
"""

#: Columns of pg_database that not every version has: since which version, else what stands in for it.
_LOCALE_COLUMNS = (
    (
        "locale_provider",
        150000,
        "CASE d.datlocprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END",
        "'libc'",
    ),
    ("collation_version", 150000, "d.datcollversion", "NULL"),
    ("icu_rules", 160000, "d.daticurules", "NULL"),
)


def source_facts(
    connection: Connection,
    excluded: Collection[str] = (),
    left_out: LeftOut = NOTHING_LEFT_OUT,
    recipients: Collection[str] = (),
) -> SourceFacts:
    """Everything at once, for the manifest.

    `excluded` are all relations that the dump leaves out, `left_out` says what else the plan does; `recipients` are the
    public keys that the backup is encrypted for.
    """
    database = database_properties(connection)
    return SourceFacts(
        database=database,
        extensions=extensions(connection),
        roles=roles_named(connection, excluded, left_out.schemas),
        large_objects=large_object_count(connection),
        partitions=partitions(connection),
        conditions=conditions(connection, excluded, left_out),
        globals=with_sql(server_globals(connection, recipients), database),
    )


def database_properties(connection: Connection) -> DatabaseProperties:
    """The properties of the database that `connection` is in; for every major version from 13 on."""
    [row] = rows(connection, _properties_query(connection.server_version))
    return DatabaseProperties(**row, grants=_grants(connection), settings=_settings(connection))


def extensions(connection: Connection) -> tuple[Extension, ...]:
    """Every installed extension, by name; plpgsql among them."""
    found = rows(
        connection,
        """
        SELECT e.extname AS name, e.extversion AS version, n.nspname AS schema
          FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY e.extname COLLATE "C"
    """,
    )
    return tuple(Extension(**row) for row in found)


def roles_named(
    connection: Connection, excluded: Collection[str] = (), schemas: Collection[str] = ()
) -> tuple[str, ...]:
    """Every role that a dump made without `--create`, `--no-owner` and `--no-privileges` names, sorted.

    Owners, grantees, grantors, roles of policies, of default privileges and of user mappings. PUBLIC and the
    predefined roles (pg_…), which every server has, are left out; so is what the dump leaves out in `schemas`.
    """
    query = _ROLES_NAMED.read_text(encoding="ascii")
    return tuple(row["rolname"] for row in rows(connection, query, excluded=list(excluded), schemas=list(schemas)))


def large_object_count(connection: Connection) -> int:
    """Large objects, all of which the dump holds."""
    [row] = rows(connection, "SELECT count(*) AS n FROM pg_largeobject_metadata")
    return int(row["n"])


def partitions(connection: Connection) -> tuple[Partition, ...]:
    """Every partition, whatever its depth."""
    found = rows(
        connection,
        """
        SELECT format('%%I.%%I', cn.nspname, c.relname) AS name, format('%%I.%%I', pn.nspname, p.relname) AS parent
          FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
          JOIN pg_class p ON p.oid = inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
         WHERE c.relispartition AND c.relkind <> 'I' AND c.relkind <> 'i' AND cn.nspname !~ '^pg_'
         ORDER BY cn.nspname COLLATE "C", c.relname COLLATE "C"
    """,
    )
    return tuple(Partition(**row) for row in found)


def estimated_plain_size(connection: Connection, excluded: Collection[str] = ()) -> int:
    """Bytes that the plain dump will have, guessed from the tables' size on disk; never waits for a lock.

    A table's own pages count once, its out-of-line (TOAST) values and the large objects twice. Measured against
    real dumps, the guess was 0.6 (timestamps, floats) to 3 times (small integers, booleans) the truth for rows
    without out-of-line values. It is far too high where dead rows fill the pages (63 times, nine rows in ten
    deleted), and too low for values that compress well (0.4 for prose, 0.03 for one phrase repeated 100,000
    times). So: good for progress; a part size derived from it should leave room for twice as much.
    """
    [row] = rows(connection, _PLAIN_SIZE, excluded=list(excluded))
    return int(row["sum"])


def _properties_query(version: int) -> str:
    """The query for one server version: PostgreSQL 15, 16 and 17 each changed the columns of the locale."""
    columns: Mapping[str, str] = {
        **{name: new if version >= since else old for name, since, new, old in _LOCALE_COLUMNS},
        **_locale_of_provider(version),
    }
    return f"""
        SELECT d.datname AS name, pg_get_userbyid(d.datdba) AS owner, pg_encoding_to_char(d.encoding) AS encoding,
               d.datcollate::text AS collate, d.datctype::text AS ctype, t.spcname AS tablespace,
               d.datconnlimit AS connection_limit, d.datistemplate AS is_template,
               shobj_description(d.oid, 'pg_database') AS comment, pg_database_size(d.oid) AS size,
               current_setting('server_version') AS server_version,
               current_setting('server_version_num')::int AS server_version_number,
               {", ".join(f"{expression} AS {name}" for name, expression in columns.items())}
          FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace
         WHERE d.datname = current_database()
    """


def _locale_of_provider(version: int) -> dict[str, str]:
    """Where the locale of a provider other than libc stands: `daticulocale` in 15 and 16, `datlocale` from 17 on."""
    if version < 170000:
        return {"icu_locale": "d.daticulocale" if version >= 150000 else "NULL", "builtin_locale": "NULL"}
    return {
        f"{name}_locale": f"CASE d.datlocprovider WHEN '{name[0]}' THEN d.datlocale END" for name in ("icu", "builtin")
    }


def _grants(connection: Connection) -> tuple[Grant, ...] | None:
    [row] = rows(connection, "SELECT datacl IS NULL AS untouched FROM pg_database WHERE datname = current_database()")
    if row["untouched"]:
        return None
    found = rows(
        connection,
        """
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END AS grantee,
               a.privilege_type AS privilege, a.is_grantable AS grantable,
               CASE WHEN a.grantor = d.datdba THEN '' ELSE pg_get_userbyid(a.grantor) END AS grantor
          FROM pg_database d, aclexplode(d.datacl) WITH ORDINALITY
               AS a (grantor, grantee, privilege_type, is_grantable, place)
         WHERE d.datname = current_database()
         ORDER BY a.grantor <> d.datdba, CASE WHEN a.grantor <> d.datdba THEN a.place END, 1, 2, 3
    """,
    )
    return tuple(Grant(**row) for row in found)


def _settings(connection: Connection) -> tuple[RoleSettings, ...]:
    found = rows(
        connection,
        """
        SELECT r.rolname AS role, s.setconfig AS settings
          FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
          LEFT JOIN pg_roles r ON r.oid = s.setrole
         WHERE d.datname = current_database() ORDER BY r.rolname COLLATE "C" NULLS FIRST
    """,
    )
    return tuple(RoleSettings(row["role"], tuple(row["settings"])) for row in found)


def conditions(
    connection: Connection, excluded: Collection[str] = (), left_out: LeftOut = NOTHING_LEFT_OUT
) -> Conditions:
    """The conditions under which the database is dumped; see `source_facts`."""
    settings = rows(connection, _SETTINGS)
    [public] = rows(connection, "SELECT to_regnamespace('public') IS NOT NULL AS there")
    return Conditions(
        settings=tuple(f"{row['name']}={row['value']}" for row in settings if row["value"] is not None),
        has_public_schema=public["there"],
        rows_left_out=tuple(row["name"] for row in rows(connection, _UNLOGGED, excluded=[*excluded, *left_out.rows])),
        hindrances=hindrances(connection, excluded, left_out),
    )
