"""Whether the roles that a restore needs are there, and whether the role that restores may do what it takes."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass

from psycopg2.extensions import connection as Connection

from tasks.errors import BackupSystemError, Unreachable, named
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import on, rows
from tasks.restore.loader_role import NAME, PREFIX, create_role, login_address
from tasks.storage.backup_values import DatabaseProperties, StoredBackup

_PREDEFINED = "pg_"

#: Whose objects there are in a database; those of the superuser that initdb made are not in pg_shdepend. Members of
#: extensions do not count, nor what comes with something else: a range type's constructors are always that superuser's.
_OWNERS = """
    WITH bare AS (SELECT 'pg_class'::regclass AS kind, oid, relowner AS owner, relnamespace AS schema FROM pg_class
                  UNION ALL SELECT 'pg_proc'::regclass, oid, proowner, pronamespace FROM pg_proc
                  UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner, oid FROM pg_namespace
                             WHERE nspname <> 'public')
    SELECT rolname AS name FROM pg_roles
     WHERE oid IN (SELECT refobjid FROM pg_shdepend
                    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                      AND deptype = 'o' AND refclassid = 'pg_authid'::regclass
                      AND classid <> 'pg_default_acl'::regclass)
        OR oid IN (SELECT owner FROM bare JOIN pg_namespace n ON n.oid = schema
                    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
                      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = kind AND d.objid = bare.oid
                                                                AND d.deptype IN ('e', 'i')))
"""

#: What needs CREATE on a schema when it is restored: by the role that restores, and by the owner to whom it is given
#: then. Grants come last in a dump, so only belonging to the schema's owner counts, who may be the database's owner.
_CLOSED_SCHEMAS = """
    WITH placed (kind, oid, owner, schema, name) AS (
           SELECT 'pg_class'::regclass, oid, relowner, relnamespace, relname FROM pg_class
            WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
           UNION ALL SELECT 'pg_proc'::regclass, oid, proowner, pronamespace, proname FROM pg_proc
           UNION ALL SELECT 'pg_type'::regclass, oid, typowner, typnamespace, typname FROM pg_type
            WHERE typtype IN ('d', 'e', 'r')),
         needed AS (
           SELECT p.*, n.nspname, CASE pg_get_userbyid(nspowner) WHEN 'pg_database_owner' THEN %(owner)s::name
                                       ELSE pg_get_userbyid(nspowner) END AS schema_owner
             FROM placed p JOIN pg_namespace n ON n.oid = p.schema
            WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = p.kind AND d.objid = p.oid
                                                        AND d.deptype IN ('e', 'i'))),
         closed AS (
           SELECT r.rolname, n.nspname, n.schema_owner, n.name
             FROM needed n JOIN pg_roles r ON r.oid = n.owner OR r.rolname = current_user
            WHERE NOT r.rolsuper AND NOT pg_has_role(r.oid, n.schema_owner, 'USAGE'))
    SELECT quote_ident(rolname) AS role, quote_ident(nspname) AS schema, quote_ident(schema_owner) AS owner,
           array_agg(DISTINCT format('%%I.%%I', nspname, name) ORDER BY format('%%I.%%I', nspname, name)) AS objects
      FROM closed GROUP BY rolname, nspname, schema_owner ORDER BY 1, 2
"""
#: Roles whose code may get a superuser's rights where a superuser loads.
_ORDINARY = """
    SELECT quote_ident(rolname) AS name FROM pg_roles
     WHERE rolname = ANY (%(roles)s::text[]) AND NOT rolsuper AND rolname !~ '^pg_' ORDER BY 1
"""


@dataclass(frozen=True)
class Me:
    """The role that restores. `name` is written as in SQL."""

    name: str
    is_superuser: bool
    may_create_databases: bool
    may_create_roles: bool


def role_of(server: Connection) -> Me:
    """The role that `server` acts as."""
    [row] = rows(
        server,
        """
        SELECT quote_ident(rolname) AS name, rolsuper, rolcreatedb OR rolsuper AS databases,
               rolcreaterole OR rolsuper AS roles
          FROM pg_roles WHERE rolname = current_user
    """,
    )
    return Me(row["name"], row["rolsuper"], row["databases"], row["roles"])


def foreign_superusers(server: Connection) -> tuple[str, ...]:
    """The superusers in whose name this role cannot act."""
    query = "SELECT rolname FROM pg_roles WHERE rolsuper AND NOT pg_has_role(oid, 'MEMBER') ORDER BY rolname"
    return tuple(row["rolname"] for row in rows(server, query))


def owners_in(connection: Connection) -> tuple[str, ...]:
    """Every role that owns something in the connection's database."""
    return tuple(row["name"] for row in rows(connection, _OWNERS))


def roles_needed(named: Collection[str], like: DatabaseProperties | None) -> tuple[str, ...]:
    """Roles that must be there: those that are `named`, and those of the new database (None: none is made). Pure."""
    wanted = set(named)
    if like is not None:
        grantees = {grant.grantee for grant in like.grants or ()} - {"PUBLIC"}
        wanted |= {like.owner} | grantees | {settings.role for settings in like.settings if settings.role is not None}
    return tuple(sorted(wanted))


def missing_roles(server: Connection, needed: Collection[str]) -> tuple[str, ...]:
    """Those of `needed` that the server lacks."""
    query = "SELECT rolname FROM pg_roles WHERE rolname = ANY (%(needed)s)"
    there = {row["rolname"] for row in rows(server, query, needed=list(needed))}
    return tuple(name for name in needed if name not in there)


def missing_role_problems(
    server: Connection, me: Me, missing: Collection[str], create: bool, verify: bool = False
) -> list[str]:
    """Problems of roles that are missing; with `create` the restore is to create them."""
    predefined = [name for name in missing if name.startswith(_PREDEFINED)]
    others = [name for name in missing if not name.startswith(_PREDEFINED)]
    problems = named(
        "The server does not have the predefined role ",
        _quoted(server, predefined),
        "restore to the version that the backup comes from, or newer.",
    )
    if not create:
        advice = "create it (NOLOGIN will do)"
        advice += "." if verify else ", or have the restore do so by create_missing_roles."
        return problems + named("The backup needs the role ", _quoted(server, others), advice)
    if others and not me.may_create_roles:
        problems += named(
            f"Role {me.name} has no CREATEROLE and cannot create the role ",
            _quoted(server, others),
            "create it as a superuser.",
        )
    return problems


def ownership_problems(server: Connection, me: Me, owners: Collection[str]) -> list[str]:
    """Roles that own what is restored, and that this role cannot act as."""
    distant = _distant(server, owners)
    return named(
        f"Role {me.name} cannot give objects to their owner ",
        distant,
        f"run GRANT … TO {me.name} for each, or restore as a superuser.",
    )


def new_owner_problems(server: Connection, owner: str) -> list[str]:
    """Whether the role that is to own everything is a superuser: what others wrote would then run as one."""
    if not rows(server, "SELECT FROM pg_roles WHERE rolname = %(owner)s AND rolsuper", owner=owner):
        return []
    return [
        f"owners=target would give functions of every role of the backup to superuser {owner}: let an ordinary role "
        "own the target database (ALTER DATABASE … OWNER TO …), or restore with owners=as_backed_up."
    ]


def schema_findings(
    live: Connection, me: Me, owner: str, backup: StoredBackup, every_table: bool
) -> tuple[list[str], list[str]]:
    """Problems and warnings: what of the live database could not be made again in its schema.

    `owner` is the new database's. It is a problem where the backup has the same table and `every_table` is restored;
    of other objects it is not known here whether the backup has them.
    """
    if me.is_superuser or live.server_version < 150000:  # before 15, everybody may create in the schema public
        return [], []
    tables = {table.name for table in backup.tables}
    problems: list[str] = []
    warnings: list[str] = []
    for row in rows(live, _CLOSED_SCHEMAS, owner=owner):
        backed_up = [name for name in row["objects"] if name in tables]
        advice = f"run GRANT {row['owner']} TO {row['role']} (in a restore, grants on the schema come too late), "
        (problems if backed_up and every_table else warnings).extend(
            named(
                f"Role {row['role']} could not create in schema {row['schema']} ",
                backed_up or row["objects"],
                advice + "or restore as a superuser.",
            )
        )
    return problems, warnings


def ownership_warnings(server: Connection, me: Me, roles: Collection[str]) -> list[str]:
    """The same of roles of which it is not known whether they own anything."""
    advice = "if the backup has objects of theirs, psql will be refused and nothing will have changed."
    return named(f"Role {me.name} cannot act as role ", _distant(server, roles), advice)


def privilege_problems(server: Connection, me: Me, mode: str, database: str) -> list[str]:
    """Privileges on databases that this role needs and does not have."""
    problems = []
    if mode != "in_place" and not me.may_create_databases:
        otherwise = "" if mode == "verify" else ", or restore with the mode in_place, which needs no new database"
        problems.append(
            f"Role {me.name} may not create databases: run ALTER ROLE {me.name} CREATEDB as a superuser{otherwise}."
        )
    owned = rows(
        server,
        """
        SELECT quote_ident(datname) AS name, pg_has_role(datdba, 'USAGE') AS mine,
               quote_ident(pg_get_userbyid(datdba)) AS owner
          FROM pg_database WHERE datname = %(name)s
    """,
        name=database,
    )
    if mode == "swap" and owned and not owned[0]["mine"]:
        problems.append(
            f"Role {me.name} does not own database {owned[0]['name']}, so it cannot rename it: run GRANT "
            f"{owned[0]['owner']} TO {me.name}, or restore with the mode in_place."
        )
    return problems


def login_problems(server: Connection, dsn: Dsn, me: Me, verify: bool) -> list[str]:
    """Whether such a role can log in by a password. It is tried with one that is dropped at once.

    `dsn` is the address of `server`. Nothing is tried on a standby, which is refused for itself.
    """
    [row] = rows(server, "SELECT pg_is_in_recovery() AS standby")
    if row["standby"]:
        return []
    name = f"{PREFIX}{secrets.token_hex(8)}"
    with server.cursor() as cursor:
        create_role(server, name, "")
        try:
            login_address(dsn, server, name).connect(NAME).close()
        except Unreachable:
            raise
        except BackupSystemError as error:
            otherwise = "." if verify else f", or restore with the mode in_place, which runs everything as {me.name}."
            return [
                f"What runs code of the backup must not be superuser {me.name}, so a role of the restore's own loads "
                f"it, and that cannot log in: {str(error).rstrip('.')}: let roles {PREFIX}… log in by password, with a "
                f"line for scram-sha-256 in pg_hba.conf (docs/security.md){otherwise}"
            ]
        finally:
            cursor.execute(on("DROP ROLE {d}", name))
    return []


def rights_warnings(server: Connection, me: Me, roles: Collection[str]) -> list[str]:
    """Where the superuser itself loads: whose code may get its rights."""
    ordinary = [row["name"] for row in rows(server, _ORDINARY, roles=list(roles))]
    return named(
        f"This restore runs the backup as superuser {me.name}: CHECKs, defaults and domains call functions of role ",
        ordinary,
        "where you do not trust them, restore with the mode swap or new_database, without tables.",
    )


def _distant(server: Connection, roles: Collection[str]) -> list[str]:
    """Roles, as in SQL, that this role cannot SET ROLE to, or whose privileges it does not have by itself."""
    privilege = "SET" if server.server_version >= 160000 else "MEMBER"
    distant = rows(
        server,
        f"""
        SELECT quote_ident(rolname) AS name FROM pg_roles
         WHERE rolname = ANY (%(roles)s::text[])
           AND NOT (pg_has_role(oid, '{privilege}') AND pg_has_role(oid, 'USAGE')) ORDER BY 1
    """,
        roles=list(roles),
    )
    return [row["name"] for row in distant]


def _quoted(server: Connection, names: Collection[str]) -> list[str]:
    quoted = rows(server, "SELECT quote_ident(n) AS name FROM unnest(%(names)s::text[]) n", names=list(names))
    return [row["name"] for row in quoted]
