"""What the server must have for a backup: version, connections, extensions, locale, tablespace, rights, settings.

Every function reads system catalogues on a connection to any database of the server, and returns sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import psycopg2
from psycopg2.extensions import connection as Connection

from tasks.backup.source import database_properties
from tasks.errors import named
from tasks.names import ADOPTED
from tasks.postgres.server import rows
from tasks.restore.entries import is_named
from tasks.restore.preflight.roles import Me
from tasks.restore.scratch import session_settings_of
from tasks.storage.attention import left_out_in_words
from tasks.storage.backup_values import UNKNOWN, DatabaseProperties, StoredBackup

#: Without it, amounts of money would be read as other amounts.
_MONEY = "lc_monetary"

#: Sessions that a restore has at once: psql, both sides of the swap, the comparison, the lock, and one to spare.
CONNECTIONS = 6
#: Superusers of hosted servers: no superusers for PostgreSQL, and yet allowed to create extensions.
_HOSTED = ["rds_superuser", "cloudsqlsuperuser", "alloydbsuperuser", "azure_pg_admin", "neon_superuser"]

#: What is left for this role of the server's connections, and of its own; NULL where there is no limit.
_FREE = """
    WITH sessions AS (SELECT usesysid, pid FROM pg_stat_activity
                       WHERE datid IS NOT NULL AND (backend_type IS NULL OR backend_type = 'client backend')
                         AND NOT (usename = current_user AND application_name = %(ours)s)),
         me AS (SELECT oid, rolsuper, rolconnlimit,
                       coalesce((SELECT pg_has_role(oid, 'USAGE') FROM pg_roles
                                  WHERE rolname = 'pg_use_reserved_connections'), false) AS may_use_reserved
                  FROM pg_roles WHERE rolname = current_user)
    SELECT current_setting('max_connections')::int - (SELECT count(*) FROM sessions)
           - CASE WHEN rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::int END
           - CASE WHEN rolsuper OR may_use_reserved THEN 0
                  ELSE coalesce(current_setting('reserved_connections', true)::int, 0) END AS of_server,
           CASE WHEN rolconnlimit >= 0 AND NOT rolsuper
                THEN rolconnlimit - (SELECT count(*) FROM sessions WHERE usesysid = me.oid) END AS of_role
      FROM me
"""
_EXTENSIONS = """
    SELECT w.name, w.version, w.schema, a.default_version, v.superuser AND NOT v.trusted AS is_closed,
           v.schema AS only_schema
      FROM unnest(%(names)s::text[], %(versions)s::text[], %(schemas)s::text[]) AS w (name, version, schema)
      LEFT JOIN pg_available_extensions a ON a.name = w.name
      LEFT JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version
"""


def version_problems(server: Connection, backup: StoredBackup) -> list[str]:
    """Whether the server may be written to, and is no older than the source."""
    [row] = rows(server, "SELECT pg_is_in_recovery() AS standby, current_setting('server_version') AS version")
    problems = []
    if row["standby"]:
        problems.append("The server is a standby, which nobody can write to: name its primary.")
    source = backup.database.server_version_number // 10_000
    if server.server_version // 10_000 < source:
        problems.append(
            f"The backup comes from PostgreSQL {backup.database.server_version}, and the server is "
            f"{row['version']}: restore to version {source} or newer."
        )
    return problems


def version_warnings(server: Connection, backup: StoredBackup) -> list[str]:
    """Whether a pg_dump newer than the server wrote the dump, which the server then may not understand."""
    major = backup.pg_dump_version.partition(".")[0]
    if not (major.isascii() and major.isdigit()) or int(major[:4]) <= server.server_version // 10_000:
        return []
    return [f"pg_dump {backup.pg_dump_version} wrote the backup, and the server is older: it may refuse a statement."]


def connection_problems(server: Connection, role: str, application_name: str) -> list[str]:
    """Whether there are connections enough; may pass. Those of `application_name` are about to end."""
    [row] = rows(server, _FREE, ours=application_name)
    free = min(count for count in row.values() if count is not None)
    if free >= CONNECTIONS:
        return []
    return [
        f"The server has {max(free, 0)} connections left for role {role}, and a restore needs up to "
        f"{CONNECTIONS}: close some, or raise max_connections (or the role's CONNECTION LIMIT)."
    ]


def extension_findings(
    server: Connection, me: Me, backup: StoredBackup, there: Mapping[str, str], without: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Problems and warnings of extensions that `without` does not leave out.

    `there` are name and version of the extensions that the database has and keeps.
    """
    wanted = [extension for extension in backup.extensions if not is_named(f"EXTENSION {extension.name}", without)]
    versions = {extension.name: extension.version for extension in wanted}
    schemas = [extension.schema for extension in wanted]
    asked = rows(server, _EXTENSIONS, names=list(versions), versions=list(versions.values()), schemas=schemas)
    new = [row for row in asked if row["name"] not in there]
    kept = [
        {"name": name, "version": version, "default_version": there[name]}
        for name, version in versions.items()
        if name in there
    ]
    absent = [f"{row['name']} {row['version']}" for row in new if row["default_version"] is None]
    closed = [f"{row['name']} {row['version']}" for row in new if row["is_closed"]]
    other = [
        f"{row['name']} {row['default_version']} (was {row['version']})"
        for row in [*new, *kept]
        if row["default_version"] not in (None, row["version"]) and row["version"] != UNKNOWN
    ]
    elsewhere = [
        f"EXTENSION {row['name']} (schema {row['only_schema']}, was {row['schema']})"
        for row in new
        if row["only_schema"] not in (None, row["schema"])
    ]
    refused = f"Role {me.name} is no superuser and cannot create the extension "
    problems = named(
        "The server has a version that can only be in another schema of ",
        elsewhere,
        "install the version that the backup comes from, or leave it out, and what depends on it, by name in without.",
    )
    problems += named(
        "The server does not have the extension ",
        absent,
        "install its package on the server, or leave it (EXTENSION …) and what depends on it out in without.",
    )
    warnings = named("The server has another version of the extension ", other, "check that it behaves the same.")
    if me.is_superuser:
        return problems, warnings
    if is_hosted(server):
        return problems, warnings + named(refused, closed, "if the provider does not allow it, psql will be refused.")
    advice = "restore as a superuser, or have one create it in the database and use in_place."
    return problems + named(refused, closed, advice), warnings


def place_problems(server: Connection, me: Me, like: DatabaseProperties, elsewhere: bool) -> list[str]:
    """Whether a database like this one can be created; `elsewhere` says that it is not one of this server's."""
    return [*_tablespace_problems(server, me, like), *(_locale_problems(server, like) if elsewhere else ())]


def made_own(server: Connection, like: DatabaseProperties) -> DatabaseProperties:
    """The properties of a scratch database that this role may create, whoever owns the model.

    The owner and the tablespace are the same where this role may set them; else its own, in the default tablespace.
    """
    may_set = "SET" if server.server_version >= 160000 else "MEMBER"
    [row] = rows(
        server,
        f"""
        SELECT coalesce((SELECT rolname FROM pg_roles WHERE rolname = %(owner)s AND pg_has_role(oid, '{may_set}')
                            AND pg_has_role(oid, 'USAGE')), current_user)::text AS owner, d.name AS usual,
               EXISTS (SELECT FROM pg_tablespace t WHERE t.spcname = %(name)s
                          AND has_tablespace_privilege(t.oid, 'CREATE')) AS may_use
          FROM (SELECT t.spcname::text AS name FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace
                 WHERE d.datname = 'template0') d
    """,
        name=like.tablespace,
        owner=like.owner,
    )
    tablespace = like.tablespace if row["may_use"] else row["usual"]
    return replace(
        like,
        owner=row["owner"],
        tablespace=tablespace,
        connection_limit=-1,
        is_template=False,
        comment=None,
        grants=None,
        settings=(),
    )


def known_on(server: Connection, backup: StoredBackup) -> DatabaseProperties:
    """The properties of the backed-up database. What is unknown of an adopted one is as in a new database of this role.

    The locale is the server's where that fits the encoding, else C.
    """
    if backup.backup_type != ADOPTED:
        return backup.database
    like, usual = made_own(server, backup.database), database_properties(server)
    if usual.encoding != like.encoding:
        return replace(like, collate="C", ctype="C")
    return replace(
        like,
        collate=usual.collate,
        ctype=usual.ctype,
        locale_provider=usual.locale_provider,
        icu_locale=usual.icu_locale,
        icu_rules=usual.icu_rules,
        builtin_locale=usual.builtin_locale,
    )


def made_for(server: Connection, like: DatabaseProperties) -> DatabaseProperties:
    """The same database, owned by this role, without what names other roles."""
    [row] = rows(server, "SELECT current_user::text AS name")
    own = tuple(settings for settings in like.settings if settings.role is None)
    return replace(like, owner=row["name"], grants=None, settings=own)


def directory_of(server: Connection, tablespace: str) -> str:
    """Where the server keeps what lies in a tablespace; empty when it does not tell this role."""
    tablespaces = rows(
        server,
        """
        SELECT coalesce(nullif(pg_tablespace_location(oid), ''),
                        (SELECT setting FROM pg_settings WHERE name = 'data_directory')) AS directory
          FROM pg_tablespace WHERE spcname = %(name)s
    """,
        name=tablespace,
    )
    return str(tablespaces[0]["directory"] or "") if tablespaces else ""


def _tablespace_problems(server: Connection, me: Me, like: DatabaseProperties) -> list[str]:
    tablespaces = rows(
        server,
        """
        SELECT has_tablespace_privilege(t.oid, 'CREATE') OR t.oid = d.dattablespace AS may_use
          FROM pg_tablespace t, pg_database d WHERE t.spcname = %(name)s AND d.datname = 'template0'
    """,
        name=like.tablespace,
    )
    if not tablespaces:
        return [f"The server has no tablespace {like.tablespace}: create it first."]
    if not tablespaces[0]["may_use"]:
        return [f"Role {me.name} may create nothing in tablespace {like.tablespace}: grant it CREATE on it."]
    return []


def _locale_problems(server: Connection, like: DatabaseProperties) -> list[str]:
    [row] = rows(server, "SELECT pg_char_to_encoding(%(name)s) AS number", name=like.encoding)
    problems = [f"The server does not know the encoding {like.encoding}."] if row["number"] < 0 else []
    locales: list[tuple[str, tuple[str, ...]]] = [("libc", (like.collate, like.ctype))]
    if like.locale_provider == "icu" and like.icu_locale:
        locales.append(("icu", (like.icu_locale,)))
    for provider, names in locales:
        if why := _unknown_locale(server, provider, names):
            advice = "install it on the server's machine (and restart PostgreSQL)"
            problems.append(
                f"The server does not know the locale {' / '.join(dict.fromkeys(names))} ({why}): {advice}."
            )
    return problems


def _unknown_locale(server: Connection, provider: str, names: tuple[str, ...]) -> str:
    """The server's message on an unknown locale: tried with a temporary collation that is never committed."""
    options = "lc_collate = %s, lc_ctype = %s" if len(names) == 2 else "locale = %s"
    with server.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            cursor.execute(f"CREATE COLLATION pg_temp.trial (provider = {provider}, {options})", names)
        except (psycopg2.DataError, psycopg2.NotSupportedError) as error:
            return str(error.diag.message_primary)
        except (psycopg2.ProgrammingError, psycopg2.InternalError):
            return ""  # this role or this server cannot try it: creating the database will show it
        finally:
            cursor.execute("ROLLBACK")
    return ""


def is_hosted(server: Connection) -> bool:
    """Whether the role is a hosted server's stand-in for a superuser, or the server lends it such rights."""
    [row] = rows(
        server,
        """
        SELECT current_setting('supautils.privileged_extensions', true) <> '' IS TRUE
               OR EXISTS (SELECT FROM pg_roles WHERE rolname = ANY (%(names)s) AND pg_has_role(oid, 'MEMBER')) AS yes
    """,
        names=_HOSTED,
    )
    return bool(row["yes"])


def condition_findings(server: Connection, backup: StoredBackup) -> tuple[list[str], list[str]]:
    """Problems and warnings: what the backup lacks, and settings of its database that this server does not take."""
    warnings = named(
        "The backup was made from a standby, and has no rows of the unlogged table ",
        list(backup.conditions.rows_left_out),
        "they will be empty.",
    )
    if backup.left_out:
        warnings.append(f"The backup was made {left_out_in_words(backup.left_out)}, as its plan says.")
    _, refused = session_settings_of(server, backup)
    begin = "The server does not take the value that the backed-up database had for "
    money = [name for name in refused if name == _MONEY]
    others = [name for name in refused if name != _MONEY]
    problems = named(begin, money, "install that locale, else amounts of money would be read as other amounts.")
    return problems, warnings + named(begin, others, "values that depend on it may differ.")
