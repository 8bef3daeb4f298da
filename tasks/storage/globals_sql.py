"""The SQL that makes again what belongs to a server: for psql, and for somebody who reads it before. Pure.

It is for an empty server: roles that exist there are changed to what they were on the lost one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import get_args

from tasks.storage.backup_values import DatabaseProperties
from tasks.storage.manifest_types import Attribute, Grant, Membership, Role, RoleSettings, ServerGlobals, Tablespace

#: Bytes of SQL. Where there would be more, nothing is kept, so that the manifest stays small enough to be read.
MOST_SQL = 8 << 20
#: What is granted is nothing else, whatever a manifest says.
_PRIVILEGES = ("CONNECT", "CREATE", "TEMPORARY", "SET", "ALTER SYSTEM")
#: Settings that hold a list of names, each quoted by itself; the same as in pg_dump (dumputils.c). No extension may
#: have such a setting.
LISTS_OF_NAMES = frozenset(
    (
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    )
)
_ITEM = re.compile(r'\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<bare>[^\s",][^",]*?))\s*(?:,|$)')
_LIST = re.compile(re.sub(r"\?P<\w+>", "?:", rf"(?:{_ITEM.pattern})*(?<!,)"))
_BEGINNING = ("SET client_encoding = 'UTF8';", "SET standard_conforming_strings = on;")
_PASSWORDS = re.compile(
    re.escape("".join(f"{line}\n" for line in _BEGINNING))
    + r"""(?:ALTER ROLE "(?:[^"]|"")+" PASSWORD '[A-Za-z0-9$:+/=-]+';\n)*"""
)


def with_sql(read: ServerGlobals, database: DatabaseProperties) -> ServerGlobals:
    """The same with its statements; where they would be too long, nothing but a sentence that says so."""
    made = replace(read, sql=tuple(statements(read)), database_sql=tuple(database_statements(database)))
    size = sum(len(statement.encode()) for statement in (*made.sql, *made.database_sql, made.passwords))
    if size <= MOST_SQL:
        return made
    sentence = (
        f"The server has {len(read.roles)} roles, and all that belongs to them would be {size >> 20} MiB of SQL, more "
        f"than the {MOST_SQL >> 20} MiB that a manifest holds: roles, tablespaces and their settings are not kept. Use "
        "pg_dumpall --globals-only."
    )
    return ServerGlobals((), (), (), (), (), (*read.missing, sentence), "", (), ())


def statements(kept: ServerGlobals) -> Iterator[str]:
    """The statements of psql that make all this again, in an order in which none needs a later one."""
    yield from _BEGINNING
    for role in kept.roles:
        exists = f"SELECT FROM pg_catalog.pg_roles WHERE rolname = {literal(role.name)}"
        yield _unless(exists, f"CREATE ROLE {identifier(role.name)}")
    for role in kept.roles:
        yield from role_statements(role, role.attributes)
    for membership in kept.memberships:
        yield membership_statement(membership)
    for tablespace in kept.tablespaces:
        yield from _tablespace_statements(tablespace)
    for parameter in kept.parameters:
        yield from _grants(f"PARAMETER {identifier(parameter.name)}", parameter.grants)
    for settings in kept.settings:
        yield from _settings("", settings)


def database_statements(database: DatabaseProperties) -> Iterator[str]:
    """The statements that give a database of that name what a dump of it does not hold, but for encoding and locale."""
    name = f"DATABASE {identifier(database.name)}"
    yield from _BEGINNING
    yield f"ALTER {name} OWNER TO {identifier(database.owner)};"
    if database.tablespace != "pg_default":
        yield f"ALTER {name} SET TABLESPACE {identifier(database.tablespace)};"
    if database.comment:
        yield f"COMMENT ON {name} IS {literal(database.comment)};"
    if database.grants is not None:
        yield f"REVOKE ALL ON {name} FROM PUBLIC, {identifier(database.owner)};"
        yield from _grants(name, database.grants)
    for settings in database.settings:
        yield from _settings(name, settings)
    yield f"ALTER {name} CONNECTION LIMIT {max(database.connection_limit, -1)};"
    yield f"ALTER {name} IS_TEMPLATE {str(database.is_template).lower()};"


def password_statements(verifiers: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The statements that give roles their passwords, by what the server keeps of them."""
    yield from _BEGINNING
    for role, verifier in verifiers:
        yield f"ALTER ROLE {identifier(role)} PASSWORD {literal(verifier)};"


def sets_passwords_alone(text: str) -> bool:
    """Whether a text holds nothing else, whoever has written it."""
    return bool(_PASSWORDS.fullmatch(text))


def role_statements(role: Role, attributes: tuple[Attribute, ...]) -> Iterator[str]:
    """The statements that give a role its limits and comment, and these attributes."""
    words = [name if name in attributes else f"NO{name}" for name in get_args(Attribute)]
    until = f" VALID UNTIL {literal(role.valid_until)}" if role.valid_until else ""
    limit = f"CONNECTION LIMIT {role.connection_limit}"
    yield f"ALTER ROLE {identifier(role.name)} WITH {' '.join(words)} {limit}{until};"
    if role.comment:
        yield f"COMMENT ON ROLE {identifier(role.name)} IS {literal(role.comment)};"


def membership_statement(membership: Membership) -> str:
    """The statement that makes a role a member of another."""
    options = ["ADMIN OPTION"] if membership.admin and membership.inherit is None else []
    if membership.inherit is not None and membership.set is not None:
        values = {"ADMIN": membership.admin, "INHERIT": membership.inherit, "SET": membership.set}
        options = [f"{name} {str(value).upper()}" for name, value in values.items()]
    given = f"GRANT {identifier(membership.role)} TO {identifier(membership.member)}"
    given += f" WITH {', '.join(options)}" if options else ""
    return given + (f" GRANTED BY {identifier(membership.granted_by)};" if membership.granted_by else ";")


def _settings(database: str, settings: RoleSettings) -> Iterator[str]:
    """Settings of a role, or of all, in every database; or in one (`DATABASE "shop"`)."""
    role = "ROLE ALL" if settings.role is None else f"ROLE {identifier(settings.role)}"
    whose = f"{role} IN {database}" if database and settings.role is not None else database or role
    for setting in settings.settings:
        name, _, value = setting.partition("=")
        items = split_names(value) if name.lower() in LISTS_OF_NAMES else []
        yield f"ALTER {whose} SET {identifier(name)} TO {', '.join(map(literal, items or [value]))};"


def split_names(value: str) -> list[str]:
    """The names in a list such as `"$user", "odd,name", public`; empty when it is not such a list. Pure."""
    if not _LIST.fullmatch(value):
        return []
    return [item["bare"] or item["quoted"].replace('""', '"') for item in _ITEM.finditer(value)]


def _tablespace_statements(tablespace: Tablespace) -> Iterator[str]:
    name, owner = identifier(tablespace.name), identifier(tablespace.owner)
    exists = f"SELECT FROM pg_catalog.pg_tablespace WHERE spcname = {literal(tablespace.name)}"
    if not tablespace.location:
        yield "SET allow_in_place_tablespaces = on;"
    yield _unless(exists, f"CREATE TABLESPACE {name} OWNER {owner} LOCATION {literal(tablespace.location)}")
    for option in tablespace.options:
        word, _, value = option.partition("=")
        yield f"ALTER TABLESPACE {name} SET ({word} = {literal(value)});"
    if tablespace.comment:
        yield f"COMMENT ON TABLESPACE {name} IS {literal(tablespace.comment)};"
    if tablespace.grants is not None:
        yield f"REVOKE ALL ON TABLESPACE {name} FROM {owner};"
        yield from _grants(f"TABLESPACE {name}", tablespace.grants)


def _grants(what: str, grants: tuple[Grant, ...]) -> Iterator[str]:
    for grant in grants:
        if grant.privilege not in _PRIVILEGES:
            continue
        grantee = "PUBLIC" if grant.grantee == "PUBLIC" else identifier(grant.grantee)
        option = " WITH GRANT OPTION" * grant.grantable
        given = f"GRANT {grant.privilege} ON {what} TO {grantee}{option};"
        if grant.grantor:
            given = f"SET SESSION AUTHORIZATION {identifier(grant.grantor)}; {given} RESET SESSION AUTHORIZATION;"
        yield given


def _unless(exists: str, statement: str) -> str:
    """The statement, unless the query finds something: psql runs what the SELECT answers."""
    return f"SELECT {literal(statement)} WHERE NOT EXISTS ({exists}) \\gexec"


def identifier(name: str) -> str:
    """A name as SQL writes it, in quotes."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A text as SQL writes it, where standard_conforming_strings is on."""
    return "'" + value.replace("'", "''") + "'"
