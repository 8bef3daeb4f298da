"""Clears what dead runs left behind: rows, objects, multipart uploads, server sessions and spools.

Whoever calls this holds the plan's lock, so no run of the plan is alive but the caller's own.
"""

from __future__ import annotations

from tasks.core.catalogue import Event
from tasks.core.dump import application_name
from tasks.core.names import is_backup_filename, manifest_key
from tasks.core.plan import Plan
from tasks.core.postgres import Dsn
from tasks.core.source import source_session
from tasks.core.storage import WRITE_CHECK, Storage


def clear_dead_runs(plan: Plan, run_id: str, actor: str) -> list[str]:
    """Clears everything that dead runs of `plan` left; returns a line for each thing that was found.

    Rows are fenced first and become `failed` last, so that a clear-up which dies is taken up by the next.
    """
    note = f"The run died; its remains were cleared by run {run_id}."
    lines = []
    for dead in plan.catalogue.claim_dead(plan.name, but_not=run_id, note=note):
        end_sessions(plan.database, application_name(dead.run_id))
        remove_object(plan.storage, dead.key)
        died = Event("backup", "died", plan.name, actor, dead.run_id, dead.backup_id, dead.filename, error=note)
        plan.catalogue.fail(dead.backup_id, note, died)
        lines.append(f"{dead.filename}: left unfinished by run {dead.run_id}; cleared away")
    for key, upload_id in plan.storage.unfinished(plan.prefix):
        name = key.removeprefix(plan.prefix)
        if is_backup_filename(name) or name == WRITE_CHECK:
            plan.storage.abort(key, upload_id)
            lines.append(f"{key}: an upload left open by a dead run; aborted")
    return lines


def remove_object(storage: Storage, key: str) -> None:
    """Removes whatever there is of one backup: object first, manifest next, and open uploads to its key."""
    for found, upload_id in storage.unfinished(key):
        if found == key:
            storage.abort(key, upload_id)
    storage.delete(key)
    storage.delete(manifest_key(key))


def end_sessions(database: Dsn, name: str) -> None:
    """Ends the server sessions that a dead run left: a server notices a vanished client only when it next writes."""
    with source_session(database, "backup clear-up") as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = %s AND usename = current_user AND pid <> pg_backend_pid()",
            [name],
        )
