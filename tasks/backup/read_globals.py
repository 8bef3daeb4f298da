"""Asks a server for what belongs to it and not to one database: roles, tablespaces, and what else `pg_dumpall` writes.

Every role of a server may read this; passwords, which only superusers may, are asked for where the backup is encrypted.
What a server does not show does not stop a backup: the result says that it is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import psycopg2
import pyrage
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS
from psycopg2.extensions import connection as Connection

from tasks.postgres.server import primary, rows
from tasks.storage.age_filter import recipient
from tasks.storage.globals_sql import password_statements
from tasks.storage.manifest_types import (
    Grant,
    Membership,
    ParameterGrants,
    Role,
    RoleSettings,
    ServerGlobals,
    Tablespace,
)

T = TypeVar("T")
#: The role that made the server grants without being named: on another server it may have another name.
_BOOTSTRAP = 10
_ROLES = """
    SELECT rolname AS name,
           array_remove(ARRAY[
               CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolinherit THEN 'INHERIT' END,
               CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
               CASE WHEN rolcanlogin THEN 'LOGIN' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
               CASE WHEN rolbypassrls THEN 'BYPASSRLS' END], NULL) AS attributes,
           rolconnlimit AS connection_limit,
           CASE WHEN isfinite(rolvaliduntil)
                THEN to_char(rolvaliduntil AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')
                ELSE rolvaliduntil::text END AS valid_until,
           shobj_description(oid, 'pg_authid') AS comment
      FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY rolname COLLATE "C"
"""
_OPTIONS = {True: "m.inherit_option AS inherit, m.set_option AS set", False: "NULL::bool AS inherit, NULL::bool AS set"}
_GRANTOR = {True: f"CASE WHEN m.grantor <> {_BOOTSTRAP} THEN g.rolname END", False: "NULL"}
_MEMBERSHIPS = """
    SELECT r.rolname AS role, u.rolname AS member, m.admin_option AS admin, {options},
           coalesce({grantor}, '') AS granted_by
      FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
      LEFT JOIN pg_roles g ON g.oid = m.grantor
     WHERE NOT (r.rolname ~ '^pg_' AND u.rolname ~ '^pg_')
     ORDER BY r.rolname COLLATE "C", u.rolname COLLATE "C", g.rolname COLLATE "C"
"""
_SETTINGS = """
    SELECT r.rolname AS role, s.setconfig AS settings
      FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole
     WHERE s.setdatabase = 0 AND (s.setrole = 0 OR r.rolname IS NOT NULL) ORDER BY r.rolname COLLATE "C" NULLS FIRST
"""
_TABLESPACES = """
    SELECT oid, spcname AS name, pg_get_userbyid(spcowner) AS owner, spcoptions AS options, spcacl IS NULL AS untouched,
           regexp_replace(pg_tablespace_location(oid), '^pg_tblspc/.*$', '') AS location,
           shobj_description(oid, 'pg_tablespace') AS comment
      FROM pg_tablespace WHERE spcname !~ '^pg_' ORDER BY spcname COLLATE "C"
"""
_GRANTS = """
    SELECT o.name, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END AS grantee,
           a.privilege_type AS privilege, a.is_grantable AS grantable,
           CASE WHEN a.grantor = o.owner THEN '' ELSE pg_get_userbyid(a.grantor) END AS grantor
      FROM ({objects}) AS o (name, owner, acl), aclexplode(o.acl) WITH ORDINALITY
           AS a (grantor, grantee, privilege_type, is_grantable, place)
     ORDER BY o.name COLLATE "C", a.grantor <> o.owner, CASE WHEN a.grantor <> o.owner THEN a.place END, 2, 3
"""
_VERIFIERS = """
    SELECT rolname AS name, rolpassword AS verifier FROM pg_authid
     WHERE rolpassword IS NOT NULL AND rolname !~ '^pg_' ORDER BY rolname COLLATE "C"
"""
_LABELS = """
    SELECT count(*) AS n FROM pg_shseclabel WHERE classoid IN ('pg_authid'::regclass, 'pg_tablespace'::regclass)
"""


def server_globals(connection: Connection, recipients: Collection[str] = ()) -> ServerGlobals:
    """What the server of `connection` shows of itself, without SQL yet; for every major version from 13 on.

    Passwords are kept only encrypted for `recipients`, the public age keys of the backup.
    """
    missing: list[str] = []
    version = connection.server_version

    def read(what: str, ask: Callable[[Connection], Iterable[T]]) -> tuple[T, ...]:
        return _unless_refused(connection, what, ask, missing)

    found = ServerGlobals(
        roles=read("roles", _roles),
        memberships=read("memberships of roles", _memberships),
        settings=read("settings of roles", _settings),
        tablespaces=read("tablespaces", _tablespaces),
        parameters=read("privileges on parameters", _parameters) if version >= 150000 else (),
        missing=(),
        passwords=_sealed(_unless_refused(connection, "", _verifiers, []), recipients) if recipients else "",
        sql=(),
        database_sql=(),
    )
    if any(read("security labels of roles and tablespaces", _labels)):
        missing.append("Security labels of roles and tablespaces are not kept.")
    return replace(found, missing=tuple(missing))


def _unless_refused(
    connection: Connection, what: str, ask: Callable[[Connection], Iterable[T]], missing: list[str]
) -> tuple[T, ...]:
    """What the server answers; nothing, with a sentence in `missing`, where it refuses or its answer is no UTF-8."""
    savepoint = connection.info.transaction_status == TRANSACTION_STATUS_INTRANS
    _run(connection, "SAVEPOINT globals" if savepoint else "")
    try:
        return tuple(ask(connection))
    except (psycopg2.ProgrammingError, psycopg2.DataError, psycopg2.NotSupportedError) as error:
        reason = primary(error)
    except UnicodeError:
        reason = "a name or value is no UTF-8"
    _run(connection, "ROLLBACK TO SAVEPOINT globals" if savepoint else "")
    missing.append(f"The {what} of the server could not be read, and are not kept ({reason}).")
    return ()


def _run(connection: Connection, statement: str) -> None:
    if statement:
        with connection.cursor() as cursor:
            cursor.execute(statement)


def _rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    """The rows of the result. Raises UnicodeError where a name or value is no UTF-8, which no manifest holds."""
    found = rows(connection, query)
    json.dumps(found, default=str, ensure_ascii=False).encode()
    return found


def _roles(connection: Connection) -> list[Role]:
    return [Role(**{**row, "attributes": tuple(row["attributes"])}) for row in _rows(connection, _ROLES)]


def _memberships(connection: Connection) -> list[Membership]:
    has_options = connection.server_version >= 160000
    query = _MEMBERSHIPS.format(options=_OPTIONS[has_options], grantor=_GRANTOR[has_options])
    return in_order([Membership(**row) for row in _rows(connection, query)])


def in_order(memberships: list[Membership]) -> list[Membership]:
    """The same, each behind that by which its grantor may grant it, as PostgreSQL 16 and newer demand. Pure."""
    ordered: list[Membership] = []
    admins: set[tuple[str, str]] = set()
    waiting = memberships
    while waiting:
        may = [it for it in waiting if not it.granted_by or (it.role, it.granted_by) in admins]
        ordered += may
        admins |= {(it.role, it.member) for it in may if it.admin}
        if not may:
            return [*ordered, *waiting]
        done = set(may)
        waiting = [it for it in waiting if it not in done]
    return ordered


def _settings(connection: Connection) -> list[RoleSettings]:
    return [RoleSettings(row["role"], tuple(row["settings"])) for row in _rows(connection, _SETTINGS)]


def _tablespaces(connection: Connection) -> list[Tablespace]:
    grants = _grants(connection, "SELECT spcname, spcowner, spcacl FROM pg_tablespace")
    return [
        Tablespace(
            row["name"],
            row["owner"],
            row["location"],
            tuple(row["options"] or ()),
            row["comment"],
            None if row["untouched"] else grants.get(row["name"], ()),
        )
        for row in _rows(connection, _TABLESPACES)
    ]


def _parameters(connection: Connection) -> list[ParameterGrants]:
    """Without those of the role that made the server, which every server has."""
    query = f"SELECT parname, {_BOOTSTRAP}::oid, paracl FROM pg_parameter_acl"
    own = _rows(connection, f"SELECT pg_get_userbyid({_BOOTSTRAP}) AS name")[0]["name"]
    found = _grants(connection, query).items()
    return [ParameterGrants(name, kept) for name, given in found if (kept := tuple(_not_of(own, given)))]


def _not_of(role: str, grants: Iterable[Grant]) -> Iterable[Grant]:
    return (grant for grant in grants if grant.grantee != role)


def _grants(connection: Connection, objects: str) -> dict[str, tuple[Grant, ...]]:
    """The privileges on each of these objects, by its name."""
    found: dict[str, list[Grant]] = {}
    for row in _rows(connection, _GRANTS.format(objects=objects)):
        found.setdefault(row.pop("name"), []).append(Grant(**row))
    return {name: tuple(grants) for name, grants in found.items()}


def _verifiers(connection: Connection) -> list[tuple[str, str]]:
    """What the server keeps of the passwords; only superusers may read it."""
    return [(row["name"], row["verifier"]) for row in _rows(connection, _VERIFIERS)]


def _sealed(verifiers: Collection[tuple[str, str]], recipients: Collection[str]) -> str:
    if not verifiers:
        return ""
    text = "".join(f"{statement}\n" for statement in password_statements(verifiers))
    sealed: bytes = pyrage.encrypt(text.encode(), [recipient(key) for key in recipients], armored=True)
    return sealed.decode("ascii")


def _labels(connection: Connection) -> list[Any]:
    return [row["n"] for row in _rows(connection, _LABELS)]
