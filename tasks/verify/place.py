"""Where a verify run restores to: a PostgreSQL of the worker's own, the server of a block, or the plan's own server.

On another server than the plan's own, nobody asks that one for anything. The roles that the backup names are made
there, unable to log in; from the server of a block they go again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from tasks.errors import BadSetting, PreflightFailed, ServerNotStarted, ToolMissing, named
from tasks.names import ADOPTED
from tasks.plans.plan import Plan
from tasks.postgres.locks import verify_lock
from tasks.postgres.server import on, rows, transaction
from tasks.postgres.tools import choose, installed
from tasks.restore.entries import is_named
from tasks.restore.preflight.roles import missing_roles, role_of
from tasks.restore.preflight.target_entries import entries_no_drill_loads
from tasks.restore.throw_away import chosen_server, throw_away_server
from tasks.restore.values import OWN_SERVER, Place
from tasks.restore.where import at
from tasks.storage.backup_values import UNKNOWN, StoredBackup
from tasks.stored_backups.find_backup import chosen_backup
from tasks.verify.subject import Subject, examine

NAME = "drill: prepares"
_LABEL = "Database Backup System: made for a drill."
#: Extensions that can be created only where their library was loaded when the server started.
_PRELOADED = ("citus", "pgaudit")
_LOCKS_OF_CONNECTIONS = 30  # max_connections of the worker's own server
_LABELLED = "SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = %(label)s"
_AVAILABLE = "SELECT name, default_version FROM pg_available_extensions WHERE name = ANY (%(names)s::name[])"


@contextmanager
def drill_place(plan: Plan, subject: Subject) -> Iterator[Place]:
    """The server that the run restores to, during the `with` block; no other run verifies the same there.

    Raises PreflightFailed when it cannot be had, AlreadyRunning when another run verifies the same.
    """
    wanted = "worker" if subject.major else plan.drill_on
    if wanted == "server":
        with _on_server(plan, subject, "as the plan says") as place:
            yield place
        return
    backup = chosen_backup(plan, subject.filename or subject.wanted, drill=True)
    if wanted == "":
        with _where_it_can(plan, subject, backup) as place:
            yield place
    elif wanted == "worker":
        with ExitStack() as held:
            try:
                place = held.enter_context(_on_worker(plan, subject, backup, "as the plan says"))
            except (BadSetting, ServerNotStarted, ToolMissing) as error:
                raise PreflightFailed(f"{backup.filename} cannot be verified", [str(error)]) from None
            yield place
    else:
        with _on_block(plan, subject, backup) as place:
            yield place


@contextmanager
def _where_it_can(plan: Plan, subject: Subject, backup: StoredBackup) -> Iterator[Place]:
    """On the worker, where nothing stands in the way there; else on the plan's own server."""
    with ExitStack() as held:
        try:
            why = "the worker has PostgreSQL and all that the backup needs"
            place = held.enter_context(_on_worker(plan, subject, backup, why))
            lacks = _unfit_extensions(plan, place, backup)
            if not lacks:
                examine(plan, subject, lambda _: None, place)
        except PreflightFailed as error:
            lacks = list(error.problems)
        except (BadSetting, ServerNotStarted, ToolMissing) as error:
            lacks = [str(error)]
        if not lacks:
            yield place
            return
    with _on_server(plan, subject, f"not on the worker: {' '.join(lacks)}") as place:
        yield place


@contextmanager
def _on_server(plan: Plan, subject: Subject, why: str) -> Iterator[Place]:
    place = replace(OWN_SERVER, why=why)
    with verify_lock(at(plan, place).database, f"run {subject.run_id}"):
        yield place


@contextmanager
def _on_worker(plan: Plan, subject: Subject, backup: StoredBackup, why: str) -> Iterator[Place]:
    """A server of the major version that was backed up, or the next newer one; in a rehearsal of the one asked for."""
    made_on = backup.database.server_version_number // 10_000
    if subject.major and subject.major < made_on:
        raise BadSetting(f"The backup comes from PostgreSQL {made_on}: give that major version or a newer one.")
    postgres = chosen_server(plan.tools_directory, subject.major or made_on, exactly=bool(subject.major))
    dumpers = installed("pg_dump", os.pathsep.join([plan.tools_directory, str(Path(postgres.path).resolve().parent)]))
    choose(dumpers, postgres.major, postgres.version_text)  # else nothing could be compared
    with throw_away_server(plan.spool_directory, plan.name, postgres, _settings(backup)) as server:
        place = Place(
            "worker",
            str(server.directory),
            str(server.programs),
            backup.database.name,
            f"as a rehearsal of PostgreSQL {subject.major}" if subject.major else why,
            postgres.major,
            made_on,
        )
        dsn = at(plan, place).database
        with verify_lock(dsn, f"run {subject.run_id}", place.database):
            with dsn.session(NAME) as session:
                _make_roles(session, backup)
                _set_conditions(session, backup)
            yield place


@contextmanager
def _on_block(plan: Plan, subject: Subject, backup: StoredBackup) -> Iterator[Place]:
    if plan.drill_problem:
        raise PreflightFailed(f"{backup.filename} cannot be verified", [plan.drill_problem])
    why = f"the plan names the block {plan.drill_on}"
    place = Place("block", database=backup.database.name, why=why)
    dsn = at(plan, place).database
    with verify_lock(dsn, f"run {subject.run_id}", place.database):
        try:
            with dsn.session(NAME) as session:
                if role_of(session).may_create_roles:
                    _make_roles(session, backup, _LABEL)
            yield place
        finally:
            with dsn.session(NAME) as session:
                _drop_roles(session)


def _settings(backup: StoredBackup) -> dict[str, str]:
    """What the worker's own server needs for this backup: locks for each table, and libraries. Pure."""
    without = entries_no_drill_loads(backup)
    there = {extension.name for extension in backup.extensions if not is_named(f"EXTENSION {extension.name}", without)}
    locks = max(128, 4 * len(backup.tables) // _LOCKS_OF_CONNECTIONS)
    libraries = ",".join(name for name in _PRELOADED if name in there)
    return {"max_locks_per_transaction": str(locks), **({"shared_preload_libraries": libraries} if libraries else {})}


def _make_roles(session: Connection, backup: StoredBackup, label: str = "") -> None:
    """Every role that the backup names is there. None that is made can log in, or is a superuser."""
    properties = backup.database
    of_settings = {settings.role for settings in properties.settings if settings.role is not None}
    owner = () if backup.backup_type == ADOPTED else (properties.owner,)
    needed = sorted({*backup.roles, *owner, *of_settings})
    for name in missing_roles(session, needed):
        if name.startswith("pg_"):
            continue
        with transaction(session), session.cursor() as cursor:
            cursor.execute(on("CREATE ROLE {d} NOLOGIN", name))
            if label:
                cursor.execute(on("COMMENT ON ROLE {d} IS ", name) + sql.Literal(label))


def _drop_roles(session: Connection) -> None:
    """Drops the roles of drills that nothing needs any more, those of dead ones too."""
    for row in rows(session, _LABELLED, label=_LABEL):
        in_use = suppress(psycopg2.errors.DependentObjectsStillExist, psycopg2.errors.UndefinedObject)
        with in_use, session.cursor() as cursor:
            cursor.execute(on("DROP ROLE {d}", row["rolname"]))


def _set_conditions(session: Connection, backup: StoredBackup) -> None:
    """The server has the settings under which the backup was dumped; the preflight names those that it refuses."""
    for setting in backup.conditions.settings:
        name, _, value = setting.partition("=")
        with suppress(psycopg2.DataError, psycopg2.ProgrammingError), session.cursor() as cursor:
            cursor.execute(on("ALTER SYSTEM SET {d} = ", name) + sql.Literal(value))
    with session.cursor() as cursor:
        cursor.execute("SELECT pg_reload_conf()")


def _unfit_extensions(plan: Plan, place: Place, backup: StoredBackup) -> list[str]:
    """Extensions of which the worker's own server has an older version than the backup. The rest is the preflight's."""
    without = entries_no_drill_loads(backup)
    wanted = [e for e in backup.extensions if not is_named(f"EXTENSION {e.name}", without)]
    was = {e.name: e.version for e in wanted if e.version != UNKNOWN}
    with at(plan, place).database.session(NAME) as session:
        there = {row["name"]: row["default_version"] for row in rows(session, _AVAILABLE, names=list(was))}
    older = [f"{name} {there[name]} (was {was[name]})" for name in sorted(there) if is_older(there[name], was[name])]
    return named("It has an older version of the extension ", older, "install the newer one on it.")


def is_older(version: str, than: str) -> bool:
    """Whether a version such as 1.10 is older than another; of texts without numbers, whether they differ. Pure."""
    numbers = [tuple(map(int, re.findall(r"\d+", text))) for text in (version, than)]
    return numbers[0] < numbers[1] if all(numbers) else version != than
