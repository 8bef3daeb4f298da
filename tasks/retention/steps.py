"""The steps that remove backups: retention after a backup, the clean-up of a plan, and the deletion of one backup."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from prefect import task

from tasks.errors import BackupSystemError, CleanUpFailed, Transient
from tasks.plans.find_plan import plan_named
from tasks.plans.plan import Plan
from tasks.retention import debris
from tasks.retention import delete as deletion
from tasks.retention.debris import Databases, Orphans, clear_databases, clear_orphans, clear_uploads
from tasks.retention.delete import Deleted, delete_backup
from tasks.retention.removal import Retained, retain
from tasks.retention.retention_report import Cleaned, deletion_page, details, log_lines, retention_page
from tasks.runs.audit import audit, run_event
from tasks.runs.reporting import created_by, current_run_id, now, publish, say
from tasks.runs.retries import RETRIED, no_restore
from tasks.storage.spool import clear_dead_spools


@task(name="retention", **RETRIED)
def apply_retention(plan: str, requested_by: str = "", dry_run: bool = False) -> Retained:
    """Removes what is due and shows why each backup stays or goes. Raises CleanUpFailed; completed backups are safe.

    A plan that leaves removal to the clean-up is only shown what would go.
    """
    source = plan_named(plan)
    if not source.retention_after_backup:
        say("Nothing is removed now: the plan leaves that to cleanup/clean-up-now.")
        dry_run = True
    done = Cleaned(plan, dry_run, *_retained(source, requested_by, dry_run))
    _tell(done, f"Retention of plan {plan}")
    return done.backups


@task(name="clean up", **RETRIED)
def clean(plan: str, dry_run: bool, remove_orphans: bool, requested_by: str) -> Cleaned:
    """Clears all that is due, and publishes what stays or goes, and why. Raises CleanUpFailed naming what could not go.

    Nobody restores the plan's database meanwhile; a backup that is under way is left alone. Raises AlreadyRunning
    while the plan's database is being restored.
    """
    began, source = now(), plan_named(plan)
    with no_restore(plan, f"Plan {plan} cannot be cleaned up now, since its database is being restored"):
        retained = _retained(source, requested_by, dry_run)
        uploads = clear_uploads(source, now(), dry_run)
        files = _orphans(source, requested_by, remove_orphans, dry_run)
        spools = tuple(clear_dead_spools(source.spool_directory, dry_run))
    done = Cleaned(plan, dry_run, *retained, uploads, files, spools)
    _tell(done, f"Clean-up of plan {plan}", remove_orphans)
    event = run_event(debris.ACTION, "completed", plan, requested_by, **details(done, remove_orphans))
    audit(source.catalogue, replace(event, duration_seconds=(now() - began).total_seconds()))
    return done


@task(name="delete", **RETRIED)
def delete(backup: str, plan: str, confirm: str, requested_by: str) -> Deleted:
    """Deletes a backup from bucket and replicas, and shows what became of it."""
    source, actor = plan_named(plan), created_by(requested_by)
    busy = f"No backup of plan {plan} can be deleted now, since its database {source.database.dbname} is being restored"
    partial = f"{backup[:200]} may not be deleted as a whole: run this again."
    with _beginning_with(partial, Transient), no_restore(plan, busy):
        done = delete_backup(source, backup, confirm, current_run_id(), actor)
    if done.was != "completed":
        event = run_event(deletion.ACTION, "completed", plan, requested_by, was=done.was)
        audit(source.catalogue, replace(event, backup_id=done.backup_id, filename=done.filename))
    publish(f"deleted-{plan}", f"Deletion of {done.filename}", deletion_page(done, actor))
    say(done.message)
    return done


def _retained(plan: Plan, requested_by: str, dry_run: bool) -> tuple[Retained, Databases]:
    """Backups and databases that are due are gone; problems are in what this returns."""
    with _beginning_with(f"Retention of plan {plan.name} failed; the backups themselves are safe.", BackupSystemError):
        done = retain(plan, current_run_id(), created_by(requested_by), now(), dry_run)
    return done, clear_databases(plan, now(), dry_run)


def _orphans(plan: Plan, requested_by: str, remove: bool, dry_run: bool) -> Orphans:
    try:
        return clear_orphans(plan, current_run_id(), created_by(requested_by), now(), remove, dry_run)
    except BackupSystemError as error:
        return Orphans(problems=(f"Orphans could not be looked for: {error}",))


def _tell(done: Cleaned, title: str, remove_orphans: bool = False) -> None:
    """Log and artifact say what was done. Raises CleanUpFailed when something could not be done."""
    for line in log_lines(done):
        say(line)
    publish(f"retention-{done.plan}", title, retention_page(done, remove_orphans))
    if done.problems:
        raise CleanUpFailed(f"Retention of plan {done.plan}: {' '.join(done.problems)} The backups that stay are safe.")


@contextmanager
def _beginning_with(beginning: str, kind: type[BackupSystemError]) -> Iterator[None]:
    """An error of this kind keeps its type, and its sentence gets this beginning."""
    try:
        yield
    except kind as error:
        own = type(error)
        raise own(f"{beginning} {error}") from None
