"""Creates the roles that a restore is to create, as they were, but for every right that a backup must not give.

A backup may come from somebody who can write to the bucket and nowhere else. So a role never gets LOGIN or another
attribute with power, is a member of other roles of this restore alone, and gets settings that every role may change for
itself. No role that exists is changed: neither granted to one that is made, nor made a member of one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, primary, rows, transaction
from tasks.restore.apply_properties import Step, refusal, setting_value
from tasks.restore.values import RestoreRun
from tasks.storage.manifest_types import Membership, Role, RoleSettings, ServerGlobals

NAME = "restore: roles"
#: What a role may have that this restore makes.
_HARMLESS = ("INHERIT",)
_NAMED_AT_MOST = 20


def create_roles(dsn: Dsn, run: RestoreRun, say: Callable[[str], None]) -> None:
    """Creates the missing roles, all in one transaction; those that are there by now stay as they are."""
    if not run.ground.create_roles:
        return
    with maintenance(dsn).session(NAME) as server:
        said = _made(server, run.ground.create_roles, run.backup.globals)
    for sentence in said:
        say(sentence)


def _made(server: Connection, wanted: Collection[str], kept: ServerGlobals | None) -> list[str]:
    """What was done, a sentence for each role, and what was not."""
    known = {role.name: role for role in kept.roles} if kept else {}
    said, left = [], []
    with transaction(server), server.cursor() as cursor:
        there = {row["rolname"] for row in rows(server, "SELECT rolname FROM pg_catalog.pg_roles")}
        made = [name for name in wanted if name not in there]
        for name in made:
            cursor.execute(_creation(name, known.get(name)))
            if server.get_parameter_status("is_superuser") == "off":  # else it could not give it what it owns
                options = " WITH SET TRUE, INHERIT TRUE" if server.server_version >= 160000 else ""
                cursor.execute(_named("GRANT {} TO CURRENT_USER" + options, name))
            said.append(_sentence(name, known.get(name)))
        for step in _steps(server, kept, made) if kept else ():
            if error := refusal(cursor, step):
                reason = primary(error).replace(step.secret, "…") if step.secret else primary(error)
                left.append(f"{step.what} ({reason})")
    left += _not_given(kept, made, _free_settings(server)) if kept else []
    if left:
        more = f" and {len(left) - _NAMED_AT_MOST} more" if len(left) > _NAMED_AT_MOST else ""
        named = "; ".join(left[:_NAMED_AT_MOST]) + more
        said.append(f"A restore gives a role no power, so it left out {named}: backups globals prints them.")
    return said


def _creation(name: str, known: Role | None) -> sql.Composable:
    """The statement that creates a role, unable to log in, without power."""
    statement = _named("CREATE ROLE {} NOLOGIN", name)
    if known is None:
        return statement
    statement += sql.SQL(" INHERIT" if "INHERIT" in known.attributes else " NOINHERIT")
    statement += sql.SQL(" CONNECTION LIMIT ") + sql.Literal(known.connection_limit)
    if known.valid_until:
        statement += sql.SQL(" VALID UNTIL ") + sql.Literal(known.valid_until)
    return statement


def _sentence(name: str, known: Role | None) -> str:
    had = [word for word in known.attributes if word not in _HARMLESS] if known else []
    which = f" ({', '.join(had)})" if had else ""
    return f"Role {name} was created, unable to log in: give it its password and attributes{which} when it is needed."


def _steps(server: Connection, kept: ServerGlobals, made: Collection[str]) -> Iterator[Step]:
    """Comments, memberships among the roles that were made, and their settings."""
    for role in kept.roles:
        if role.name in made and role.comment:
            comment = _named("COMMENT ON ROLE {} IS ", role.name) + sql.Literal(role.comment)
            yield Step(comment, f"the comment of role {role.name}", role.comment)
    for membership in kept.memberships:
        if {membership.role, membership.member} <= {*made}:
            yield Step(_grant(membership, server.server_version), _what(membership))
    free = _free_settings(server)
    for settings in kept.settings:
        if settings.role in made:
            yield from _setting_steps(settings, free)


def _grant(membership: Membership, version: int) -> sql.Composable:
    """Who restores is the one who grants it."""
    statement = sql.SQL("GRANT {} TO {}").format(sql.Identifier(membership.role), sql.Identifier(membership.member))
    if version >= 160000 and membership.inherit is not None and membership.set is not None:
        options = {"ADMIN": membership.admin, "INHERIT": membership.inherit, "SET": membership.set}
        words = ", ".join(f"{name} {str(value).upper()}" for name, value in options.items())
        return statement + sql.SQL(f" WITH {words}")
    return statement + sql.SQL(" WITH ADMIN OPTION" if membership.admin else "")


def _setting_steps(settings: RoleSettings, free: Collection[str]) -> Iterator[Step]:
    assert settings.role is not None
    for setting in settings.settings:
        name, _, value = setting.partition("=")
        if name.lower() in free:
            statement = _named("ALTER ROLE {} SET ", settings.role) + sql.Identifier(name) + sql.SQL(" TO ")
            yield Step(statement + setting_value(name, value), f"the setting {name} of role {settings.role}", value)


def _free_settings(server: Connection) -> frozenset[str]:
    """The settings that every role may change for itself. Settings of extensions are not: who knows which are."""
    found = rows(server, "SELECT name FROM pg_catalog.pg_settings WHERE context = 'user' AND name !~ '[.]'")
    return frozenset(row["name"].lower() for row in found)


def _not_given(kept: ServerGlobals, made: Collection[str], free: Collection[str]) -> list[str]:
    """What the roles had and do not get, by name. Pure."""
    memberships = [it for it in kept.memberships if it.member in made and it.role not in made]
    memberships += [it for it in kept.memberships if it.role in made and it.member not in made]
    settings = [
        f"the setting {name} of role {it.role}"
        for it in kept.settings
        if it.role in made
        for name in (setting.partition("=")[0] for setting in it.settings)
        if name.lower() not in free
    ]
    return [*map(_what, memberships), *settings]


def _what(membership: Membership) -> str:
    return f"the membership of role {membership.member} in {membership.role}"


def _named(statement: str, role: str) -> sql.Composable:
    return sql.SQL(statement).format(sql.Identifier(role))
