"""The scratch database of a restore: made under the conditions of the backed-up database, and resumed when it failed.

It has owner, encoding, locale and tablespace of the database that it will replace, and until the swap the settings
of the backed-up one: CHECKs, generated columns, indexes and materialised views then see what they saw there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from tasks.backup.dump import PYTHON_CODECS
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import on, primary, rows, source_session, transaction
from tasks.restore.apply_properties import refusal, setting_steps
from tasks.restore.databases import create_like
from tasks.restore.labels import Kind, Label, is_scratch_name, label_of
from tasks.restore.values import MissingEntry, RestoreRun
from tasks.storage.backup_values import StoredBackup
from tasks.storage.manifest_types import RoleSettings

NAME = "restore: scratch"
#: Settings that would hinder our own sessions and say nothing about the data: they come with the swap.
_HINDERING = frozenset(
    (
        "client_encoding",
        "default_transaction_deferrable",
        "default_transaction_isolation",
        "default_transaction_read_only",
        "event_triggers",
        "exit_on_error",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "local_preload_libraries",
        "lock_timeout",
        "role",
        "session_preload_libraries",
        "session_replication_role",
        "statement_timeout",
        "transaction_timeout",
    )
)
_EVENT_TRIGGERS_SINCE = 170000  # the setting that turns them off, and those that fire at a login


def scratch_dsn(plan: Plan, run: RestoreRun) -> Dsn:
    """Sessions in the database that psql fills.

    Where the role is a superuser, no event trigger fires in them. Sessions set their own search_path; as an option it
    would be what RESET gives, and scripts of extensions (postgis_topology) rely on that.
    """
    dsn = plan.database.with_dbname(run.scratch)
    if run.mode == "in_place" or not run.ground.is_superuser:
        return dsn
    if run.ground.server_version < _EVENT_TRIGGERS_SINCE:
        return dsn.with_options({"session_replication_role": "replica"})
    return dsn.with_options({"event_triggers": "off"})


def make_scratch(plan: Plan, server: Connection, run: RestoreRun) -> list[str]:
    """Creates the scratch database, empty; a sentence for what it has and the backed-up database had not."""
    kind: Kind = "verify" if run.verify else "scratch"
    create_like(server, run.scratch, run.ground.like, kind, run.receiver, run.database)
    apply_settings(server, run.scratch, run.backup)
    if run.tables or run.backup.conditions.has_public_schema:
        return []
    with source_session(scratch_dsn(plan, run), NAME) as inside, inside.cursor() as cursor:
        try:
            cursor.execute("DROP SCHEMA public")
        except psycopg2.errors.InsufficientPrivilege as error:
            return [
                f"The backed-up database had no schema public; it stays, since the server refused: {primary(error)}."
            ]
    return []


def apply_settings(server: Connection, scratch: str, backup: StoredBackup) -> None:
    """Gives the scratch the settings of the backed-up database. One that is refused is told of with the swap."""
    wanted = [RoleSettings(own.role, harmless(own.settings)) for own in backup.database.settings]
    with transaction(server), server.cursor() as cursor:
        for step in (step for settings in wanted for step in setting_steps(scratch, settings)):
            refusal(cursor, step)


def harmless(settings: Sequence[str]) -> tuple[str, ...]:
    """The settings that a scratch has while it is loaded, of those of its database. Pure."""
    return tuple(setting for setting in settings if setting.partition("=")[0].lower() not in _HINDERING)


def session_settings_of(connection: Connection, backup: StoredBackup) -> tuple[bytes, list[str]]:
    """The statements that give a session the settings under which the backup was dumped, and names of those refused.

    Nothing is changed: each is tried, and rolled back.
    """
    statements, refused = [], []
    for setting in backup.conditions.settings:
        name, _, value = setting.partition("=")
        if name == "array_nulls":  # a dump is read with it on; older backups have recorded it
            continue
        statement = sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            try:
                cursor.execute(statement)
                statements.append(f"{statement.as_string(connection)};\n".encode())
            except psycopg2.Error as error:
                if error.pgcode is None or connection.closed:
                    raise
                refused.append(name)
            cursor.execute("ROLLBACK")
    return b"".join(statements), refused


# --- a restore that goes on


def unfinished(
    server: Connection, database: str, plan: str, backup: StoredBackup, schemas: Sequence[str]
) -> Label | None:
    """The newest scratch of a restore of this backup, and of these schemas of it, that failed, and can go on."""
    query = "SELECT datname, shobj_description(oid, 'pg_database') AS comment FROM pg_database"
    labels = (
        label_of(row["datname"], row["comment"])
        for row in rows(server, query)
        if is_scratch_name(row["datname"], database)
    )
    mine = [
        label
        for label in labels
        if label
        and label.kind == "unfinished"
        and label.at
        and (label.plan, label.backup) == (plan, _what(backup, schemas))
    ]
    return max(mine, key=lambda label: (label.at, label.name), default=None)


def unfinished_label(run: RestoreRun, missing: Sequence[MissingEntry], at: datetime, comment: str | None) -> Label:
    """What the scratch is labelled while the entries `missing` are still to be restored. Pure."""
    return Label(
        "unfinished",
        run.scratch,
        run.database,
        at,
        comment=comment,
        plan=run.receiver,
        backup=_what(run.backup, run.request.schemas),
        missing=tuple(missing),
    )


def _what(backup: StoredBackup, schemas: Sequence[str]) -> str:
    """What a scratch is to hold: the backup, or schemas of it. What is loaded of others would stay in the scratch."""
    return backup.plain_sha256 + (f" {json.dumps(sorted(set(schemas)))}" if schemas else "")


def mark_unfinished(server: Connection, run: RestoreRun, missing: Sequence[MissingEntry], at: datetime) -> None:
    """Writes the label: another restore of the same backup goes on from here."""
    [row] = rows(
        server,
        "SELECT shobj_description(oid, 'pg_database') AS comment FROM pg_database WHERE datname = %(name)s",
        name=run.scratch,
    )
    standing = label_of(run.scratch, row["comment"])
    label = unfinished_label(run, missing, at, standing.comment if standing else None)
    with server.cursor() as cursor:
        cursor.execute(on("COMMENT ON DATABASE {d} IS ", run.scratch) + sql.Literal(label.text()))


def note_statement(run: RestoreRun, label: Label, loader: str = "") -> bytes:
    """The statement that writes a label, in the encoding of the dump, for the entry's own transaction. Pure.

    `loader` is the role that sends it; empty for one that may change the database's comment.
    """
    codec = PYTHON_CODECS.get(run.backup.database.encoding, "utf-8")
    name, text = run.scratch.replace('"', '""'), label.text().replace("\\", "\\\\").replace("'", "''")
    constant = f"E'{text}'"  # right with any standard_conforming_strings
    statement = f"SELECT {loader}.note({constant})" if loader else f'COMMENT ON DATABASE "{name}" IS {constant}'
    return f"{statement};\n".encode(codec)
