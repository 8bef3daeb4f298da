"""The properties of a database that are not in the dump: grants, settings, comment and limits.

A statement that the server refuses does not stop the others; it becomes a sentence. No sentence holds the value of a
setting, which may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from tasks.postgres.server import on, primary, transaction
from tasks.restore.labels import Label, label_of, own_comment
from tasks.storage.backup_values import DatabaseProperties
from tasks.storage.globals_sql import LISTS_OF_NAMES, split_names
from tasks.storage.manifest_types import Grant, RoleSettings

#: Libraries that each session of a database loads. Nobody can connect where one is not there.
_PRELOADED = ("local_preload_libraries", "session_preload_libraries")
_PRIVILEGES = ("CONNECT", "CREATE", "TEMPORARY")


@dataclass(frozen=True)
class Step:
    """One statement, the name of the property that it applies, and a value that no message may repeat."""

    statement: sql.Composable
    what: str
    secret: str = ""
    instead: sql.Composable | None = None
    """What is done where the server refuses the statement: the same by the owner."""


def apply_properties(server: Connection, name: str, like: DatabaseProperties) -> list[str]:
    """Gives database `name` the grants, settings, comment and limits of `like`; may be repeated.

    The comment stands in the database's label until the swap puts it in place. Returns a sentence for each property
    that this role may not apply, or that names something which the server does not have.
    """
    problems = []
    with transaction(server), server.cursor() as cursor:
        for step in (*_resets(cursor, name), *steps(name, like, _standing(cursor, name))):
            if error := refusal(cursor, step):
                reason = primary(error).replace(step.secret, "…") if step.secret else primary(error)
                by_owner = step.instead is not None and not refusal(cursor, replace(step, statement=step.instead))
                problems.append(
                    f"{step.what} of database {like.name} was {'made by its owner' if by_owner else 'not applied'}, "
                    f"since the server refused it ({reason}): set it by hand."
                )
    return problems


def refusal(cursor: Cursor, step: Step) -> psycopg2.Error | None:
    """Runs a step within the transaction that is open; the server's error where it refuses the step alone."""
    cursor.execute("SAVEPOINT step")
    try:
        cursor.execute(step.statement)
    except psycopg2.Error as error:
        if error.pgcode is None or cursor.connection.closed:
            raise
        cursor.execute("ROLLBACK TO SAVEPOINT step")
        return error
    return None


def _resets(cursor: Cursor, name: str) -> list[Step]:
    """The statements that take away the settings that the database has, those of roles in it too."""
    cursor.execute(
        """
        SELECT rolname FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
          LEFT JOIN pg_roles r ON r.oid = setrole WHERE datname = %s
        """,
        [name],
    )
    database = on("DATABASE {d} RESET ALL", name)
    return [
        Step(
            sql.SQL("ALTER ROLE {} IN ").format(sql.Identifier(role)) + database,
            f"That role {role} has no other setting",
        )
        if role
        else Step(sql.SQL("ALTER ") + database, "That there are no other settings")
        for (role,) in cursor.fetchall()
    ]


def _standing(cursor: Cursor, name: str) -> Label:
    """The label that the database has."""
    cursor.execute("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [name])
    (comment,) = cursor.fetchone() or (None,)
    return label_of(name, comment) or Label("scratch", name)


def steps(name: str, like: DatabaseProperties, standing: Label) -> Iterator[Step]:
    """The statements of `apply_properties`, in order; the label keeps what `standing` says. Pure."""
    label = replace(standing, comment=own_comment(like.name, like.comment))
    comment = on("COMMENT ON DATABASE {d} IS ", name) + sql.Literal(label.text())
    yield Step(comment, "The comment", like.comment or "")
    yield from _grants(name, like)
    for settings in like.settings:
        yield from setting_steps(name, settings)
    if like.connection_limit >= -1:  # -2 marks a database whose DROP was broken off
        limit = on("ALTER DATABASE {d} CONNECTION LIMIT ", name) + sql.Literal(like.connection_limit)
        yield Step(limit, "The connection limit")
    template = on("ALTER DATABASE {d} IS_TEMPLATE ", name) + sql.SQL("true" if like.is_template else "false")
    yield Step(template, "The mark of a template")


def _grants(name: str, like: DatabaseProperties) -> Iterator[Step]:
    grants: tuple[Grant, ...] = (Grant("PUBLIC", "CONNECT", False), Grant("PUBLIC", "TEMPORARY", False))
    if like.grants is not None:
        grants = like.grants
        for grantee in ("PUBLIC", like.owner):
            taken = on("REVOKE ALL ON DATABASE {d} FROM ", name) + _role(grantee)
            yield Step(taken, f"That {grantee} has only certain privileges")
    for grant in grants:
        if grant.privilege in _PRIVILEGES:
            option = " WITH GRANT OPTION" * grant.grantable
            given = sql.SQL(f"GRANT {grant.privilege} ON DATABASE {{d}} TO {{r}}{option}").format(
                d=sql.Identifier(name), r=_role(grant.grantee)
            )
            what = f"The grant of {grant.privilege} to {grant.grantee}"
            if grant.grantor:
                yield Step(_by(grant.grantor, given), f"{what} by {grant.grantor}", instead=given)
            else:
                yield Step(given, what)


def _by(role: str, statement: sql.Composable) -> sql.Composable:
    """The statement, run as a role: PostgreSQL notes who grants."""
    return sql.SQL("SET LOCAL ROLE {}; {}; RESET ROLE").format(sql.Identifier(role), statement)


def _role(name: str) -> sql.Composable:
    return sql.SQL("PUBLIC") if name == "PUBLIC" else sql.Identifier(name)


def setting_steps(name: str, settings: RoleSettings) -> Iterator[Step]:
    """The statements that give database `name` settings, its own or those of a role in it. Pure."""
    start, whose = on("ALTER DATABASE {d} SET ", name), ""
    if settings.role is not None:
        start, whose = sql.SQL("ALTER ROLE {} IN ").format(sql.Identifier(settings.role)), f" of role {settings.role}"
        start += on("DATABASE {d} SET ", name)
    for setting in settings.settings:
        variable, _, value = setting.partition("=")
        statement = start + sql.Identifier(variable) + sql.SQL(" TO ") + setting_value(variable, value)
        if variable.lower() in _PRELOADED:
            yield Step(_loads(variable, value) + statement, f"The setting {variable}{whose}")
        else:
            yield Step(statement, f"The setting {variable}{whose}", value)


def _loads(variable: str, value: str) -> sql.Composable:
    """Statements that the server refuses where it lacks a library: ALTER DATABASE … SET does not look. Pure."""
    plugins = "$libdir/plugins/" if variable.lower() == "local_preload_libraries" else ""
    names = [name if "/" in name else f"{plugins}{name}" for name in split_names(value) or ()]
    return sql.Composed([sql.SQL("LOAD {};").format(sql.Literal(name)) for name in names])


def setting_value(variable: str, value: str) -> sql.Composable:
    """The right side of SET … TO for a setting as pg_db_role_setting holds it. Pure."""
    if variable.lower() in LISTS_OF_NAMES and (names := split_names(value)):
        return sql.SQL(", ").join(map(sql.Literal, names))
    return sql.Literal(value)
