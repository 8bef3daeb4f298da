"""Clears what dead runs left behind: rows, objects, multipart uploads and server sessions.

The caller of `clear_dead_runs` holds the plan's lock, so no other run of the plan is alive. To look for stale uploads
takes no lock and stops nobody.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tasks.backup.dump import application_name
from tasks.catalogue.rows import Event
from tasks.errors import AccessRefused
from tasks.names import is_backup_filename, started_at
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.locks import is_held
from tasks.postgres.server import source_session
from tasks.storage.s3 import WRITE_CHECK, Storage
from tasks.stored_backups.backup_files import remove_object

_FOREIGN = "its row names an object of another backup, which stays"
#: What was begun so recently and has no row may belong to another installation, which has a catalogue of its own.
YOUNG = timedelta(hours=24)


def clear_dead_runs(plan: Plan, run_id: str, actor: str) -> list[str]:
    """Clears everything that dead runs of `plan` left; returns a line for each thing.

    Rows are fenced first and become `failed` last: when this run dies too, the next one goes on from there.
    """
    note = f"The run died; its remains were cleared by run {run_id}."
    lines = []
    for dead in plan.catalogue.claim_dead(plan.name, but_not=run_id, note=note):
        end_sessions(plan.database, application_name(dead.run_id))
        stays = _FOREIGN
        if dead.names_its_own_object:
            stays = _removed_unless_refused(plan.storage, dead.s3_key)
        died = Event("backup", "died", plan.name, actor, dead.run_id, dead.id, dead.filename, error=note)
        plan.catalogue.fail(dead.id, note, died)
        lines.append(f"{dead.filename}: left unfinished by run {dead.run_id}; {stays or 'cleared away'}")
    for key, upload_id in plan.storage.unfinished(plan.prefix):
        if _is_ours(key.removeprefix(plan.prefix)):
            plan.storage.abort(key, upload_id)
            lines.append(f"{key}: an upload left open by a dead run; aborted")
    return lines


def stale_uploads(plan: Plan, now: datetime) -> list[tuple[str, str]]:
    """Key and id of every open upload of ours, below the plan's prefix, that no live backup makes.

    While a backup of the plan is under way, an upload is stale when its row says that it is over, or when there is
    no row and it was begun a day ago or earlier; else all of them are.
    """
    uploads = [
        (key, upload_id)
        for key, upload_id in plan.storage.unfinished(plan.prefix)
        if _is_ours(key.removeprefix(plan.prefix))
    ]
    # The order matters: a run that uploads has the lock and a row before its upload begins, and until it has ended.
    if not uploads or not backup_is_alive(plan):
        return uploads
    status = {row.s3_key: row.status for row in plan.catalogue.rows(plan.name)}
    return [
        (key, upload_id)
        for key, upload_id in uploads
        if status.get(key, "in_progress" if is_young(key, now) else "") != "in_progress"
    ]


def backup_is_alive(plan: Plan) -> bool:
    """Whether a run holds the lock of the plan's backups. To ask takes no lock."""
    with source_session(plan.catalogue.dsn, "backup clean-up") as connection:
        return is_held(connection, "backup", plan.name)


def is_young(key: str, now: datetime) -> bool:
    """Whether a backup's run was begun less than a day ago, or may have been, by the time in its name. Pure."""
    began = started_at(key.rpartition("/")[2])
    return began is None or now - began < YOUNG


def _is_ours(name: str) -> bool:
    return is_backup_filename(name) or name == WRITE_CHECK


def _removed_unless_refused(storage: Storage, key: str) -> str:
    """Removes an unfinished backup; returns an empty text, or why it stays.

    Keys that may not delete do not stop backups: an object whose row is `failed` is no backup.
    """
    try:
        remove_object(storage, key)
    except AccessRefused as error:
        return f"what it had stored stays until cleanup/clean-up-now runs with remove_orphans. {error}"
    return ""


def end_sessions(database: Dsn, name: str) -> None:
    """Ends the server sessions that a dead run left: a server notices a lost client only when it writes to it."""
    with source_session(database, "backup clear-up") as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = %s AND usename = current_user AND pid <> pg_backend_pid()",
            [name],
        )
