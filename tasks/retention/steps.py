"""The steps that remove backups: retention after a backup, the clean-up of a plan, and one backup
deleted or kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from prefect import task

from tasks.errors import BackupSystemError, CleanUpFailed, Transient
from tasks.names import artifact_key
from tasks.plans.find_plan import plan_named
from tasks.plans.plan import Plan
from tasks.restore.throw_away import clear_dead_servers
from tasks.retention import debris
from tasks.retention import delete as deletion
from tasks.retention.debris import Databases, Orphan, Orphans, Uploads, clear_databases, clear_orphans, clear_uploads
from tasks.retention.delete import Deleted, delete_backup
from tasks.retention.keep import KeptBackup, keep_backup
from tasks.retention.removal import Retained, retain
from tasks.retention.versions import Versions, clear_versions
from tasks.runs.audit import audit, run_event
from tasks.runs.markdown import cell, facts, human_bytes, table
from tasks.runs.reporting import created_by, current_run_id, now, publish, say
from tasks.runs.retries import RETRIED, no_restore
from tasks.storage.spool import clear_dead_spools

_MOST_BACKUPS = 1000
_MOST_LINES = 500


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
def clean(
    plan: str, dry_run: bool, remove_orphans: bool, remove_versions: bool, requested_by: str, confirm: int = 0
) -> Cleaned:
    """Clears all that is due, and publishes what stays or goes, and why. Raises CleanUpFailed naming what could not go.

    `confirm` is how many backups may go when more than usual are due.
    Nobody restores the plan's database meanwhile; a backup that is under way is left alone. Raises AlreadyRunning
    while the plan's database is being restored.
    """
    began, source = now(), plan_named(plan)
    with no_restore(plan, f"Plan {plan} cannot be cleaned up now, since its database is being restored"):
        retained = _retained(source, requested_by, dry_run, confirm)
        uploads = clear_uploads(source, now(), dry_run)
        files = _orphans(source, requested_by, remove_orphans, dry_run)
        versions = _versions(source, requested_by, remove_versions, dry_run)
        spools = tuple(clear_dead_spools(source.spool_directory, dry_run))
        servers = tuple(clear_dead_servers(source.spool_directory, dry_run))
    done = Cleaned(plan, dry_run, *retained, uploads, files, spools, *versions, servers=servers)
    _tell(done, f"Clean-up of plan {plan}", remove_orphans, remove_versions)
    event = run_event(debris.ACTION, "completed", plan, requested_by, **details(done, remove_orphans, remove_versions))
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


@task(name="keep", **RETRIED)
def keep(backup: str, plan: str, reason: str, let_go: bool, requested_by: str) -> KeptBackup:
    """Keeps a backup for ever, or lets it go, and says so."""
    actor = created_by(requested_by)
    done = keep_backup(plan_named(plan), backup, reason, let_go, current_run_id(), actor, now())
    say(done.message)
    return done


def _retained(plan: Plan, requested_by: str, dry_run: bool, confirm: int = 0) -> tuple[Retained, Databases]:
    """Backups and databases that are due are gone; problems are in what this returns."""
    with _beginning_with(f"Retention of plan {plan.name} failed; the backups themselves are safe.", BackupSystemError):
        plan.catalogue.check_clock()
        done = retain(plan, current_run_id(), created_by(requested_by), now(), dry_run, confirm)
    return done, clear_databases(plan, now(), dry_run)


def _orphans(plan: Plan, requested_by: str, remove: bool, dry_run: bool) -> Orphans:
    try:
        return clear_orphans(plan, current_run_id(), created_by(requested_by), now(), remove, dry_run)
    except BackupSystemError as error:
        return Orphans(problems=(f"Orphans could not be looked for: {error}",))


def _versions(
    plan: Plan, requested_by: str, remove: bool, dry_run: bool
) -> tuple[tuple[Versions, ...], tuple[str, ...]]:
    try:
        return clear_versions(plan, current_run_id(), created_by(requested_by), remove, dry_run), ()
    except BackupSystemError as error:
        return (), (f"Older versions could not be looked for: {error}",)


def _tell(done: Cleaned, title: str, remove_orphans: bool = False, remove_versions: bool = False) -> None:
    """Log and artifact say what was done. Raises CleanUpFailed when something could not be done."""
    for line in log_lines(done):
        say(line)
    publish(f"retention-{done.plan}", title, retention_page(done, remove_orphans, remove_versions))
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


# --- what was done, for the log, the audit and people. Pure.


@dataclass(frozen=True)
class Cleaned:
    """What a clean-up of one plan did, or would do."""

    plan: str
    dry_run: bool
    backups: Retained
    databases: Databases
    uploads: Uploads = field(default_factory=Uploads)
    orphans: Orphans = field(default_factory=Orphans)
    spools: tuple[str, ...] = ()
    """Ids of the dead runs whose spool on this machine is gone now, or would be."""
    versions: tuple[Versions, ...] = ()
    """Of each bucket that keeps versions."""
    version_problems: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    """What drills that died left on this machine, and what became of it: one sentence each."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong: one sentence each."""
        of_versions = (problem for versions in self.versions for problem in versions.problems)
        files = (*self.uploads.problems, *self.orphans.problems, *self.version_problems, *of_versions)
        return (*self.backups.problems, *self.databases.problems, *files)

    @property
    def was(self) -> str:
        """The verb of everything that was done, or would be."""
        return "would be" if self.dry_run else "was"


def log_lines(done: Cleaned) -> Iterator[str]:
    """What was done, a line each."""
    removed = len(done.backups.removed)
    verb = "would be removed" if done.dry_run else "removed"
    yield f"Retention: {len(done.backups.decisions) - removed} backups stay, {removed} {verb}."
    if waiting := done.backups.waiting:
        yield f"More backups are due than usual: {waiting} of them stay for now. The artifact says how to let them go."
    for bucket in done.backups.versioned:
        yield (
            f"Bucket {bucket} keeps what was removed as older versions, so no room became free: cleanup with "
            "remove_versions frees it."
        )
    yield from done.backups.kept[:_MOST_LINES]
    yield from done.databases.scratches
    yield from (f"The replaced database {name} {done.was} dropped." for name in done.databases.dropped)
    yield from (f"{key}: an upload left open by a dead run {done.was} aborted." for key in done.uploads.keys)
    if files := done.orphans.files:
        gone = sum(orphan.removed for orphan in files)
        key = artifact_key(f"retention-{done.plan}")
        yield f"Orphans: {len(files)} found, {gone} removed. The artifact {key} lists them."
    yield from (version_sentence(versions) for versions in done.versions)
    yield from (f"The spool of the dead run {run_id} {done.was} removed." for run_id in done.spools)
    yield from done.servers


def version_sentence(versions: Versions) -> str:
    """What a bucket keeps of what was deleted in it, and what was removed of that."""
    least = "At least " if versions.is_cut else ""
    removed = f" {versions.removed:,} of these were removed ({human_bytes(versions.removed_bytes)})."
    return (
        f"{least}{versions.count:,} older versions ({human_bytes(versions.bytes)}) and {versions.markers:,} delete "
        f"markers were in bucket {versions.bucket}, {versions.removable:,} of them of removed backups."
        f"{removed if versions.removed else ''}{_locked(versions)}"
    )


def _locked(versions: Versions) -> str:
    if not versions.locked:
        return ""
    return f" Those of {len(versions.locked):,} files are kept by the lock of the bucket, such as {versions.locked[0]}."


def details(done: Cleaned, remove_orphans: bool, remove_versions: bool) -> dict[str, object]:
    """What was done, for the audit."""
    return {
        "dry_run": done.dry_run,
        "remove_orphans": remove_orphans,
        "removed": len(done.backups.removed),
        "dropped": list(done.databases.dropped),
        "uploads": len(done.uploads.keys),
        "spools": len(done.spools),
        "servers": len(done.servers),
        "orphans": len(done.orphans.files),
        "orphans_removed": sum(orphan.removed for orphan in done.orphans.files),
        "remove_versions": remove_versions,
        "versions": sum(versions.count + versions.markers for versions in done.versions),
        "versions_removed": sum(versions.removed for versions in done.versions),
    }


def retention_page(done: Cleaned, remove_orphans: bool = False, remove_versions: bool = False) -> str:
    """Every decision with its reasons, and whatever else there was to clear away."""
    fate = "which would be" if done.dry_run else "now"
    sections = (
        "# What retention would do" if done.dry_run else "# What retention did",
        _decisions(done),
        _list(done.problems),
        _section("Kept by the lock of a bucket", _list(done.backups.kept)),
        _kept_databases(done),
        _section("Left by restores that died", _list(done.databases.scratches)),
        _section(f"Open uploads of dead runs, {fate} aborted", _list(done.uploads.keys)),
        _section(f"Spools of dead runs on the machine of this run, {fate} removed", _list(done.spools)),
        _section("Left by drills that died", _list(done.servers)),
        _shown_orphans(done, remove_orphans),
        _shown_versions(done, remove_versions),
    )
    return "\n\n".join(section.strip("\n") for section in sections if section) + "\n"


def deletion_page(done: Deleted, actor: str) -> str:
    """What became of a backup that somebody wanted deleted."""
    shown = facts(
        {
            "File": f"`{done.filename}`",
            "Id": str(done.backup_id),
            "Was": done.was,
            "Is": "deleted" if done.was == "completed" else done.was,
            "Removed": human_bytes(done.bytes),
            "Asked by": cell(actor),
        }
    )
    return f"# Deletion\n\n{cell(done.message)}\n\n{shown}\nThe row stays in the catalogue.\n"


def _decisions(done: Cleaned) -> str:
    rows = [
        (f"`{decision.backup.filename}`", "stays" if decision.keep else "goes", "; ".join(decision.reasons))
        for decision in done.backups.decisions
    ]
    return table(("backup", "", "why"), rows, most=_MOST_BACKUPS)


def _kept_databases(done: Cleaned) -> str:
    goes = "would be dropped" if done.dry_run else "dropped"
    rows = [
        (
            cell(kept.name),
            f"{kept.at:%Y-%m-%d %H:%M:%S} UTC",
            "" if kept.size is None else human_bytes(kept.size),
            goes if kept.name in done.databases.dropped else "stays for undo-restore",
        )
        for kept in done.databases.kept
    ]
    columns, align = ("database", "replaced at", "size", ""), ("left", "left", "right", "left")
    return _section("Replaced databases", table(columns, rows, align) if rows else "")


def _shown_orphans(done: Cleaned, remove_orphans: bool) -> str:
    files = done.orphans.files
    rows = [
        (
            f"`{orphan.filename}`",
            orphan.what,
            human_bytes(orphan.bytes),
            _fate(orphan, done.dry_run, remove_orphans),
            cell(orphan.why),
        )
        for orphan in files
    ]
    columns, align = ("file", "there is", "size", "", "why"), ("left", "left", "right", "left", "left")
    may_go = not remove_orphans and any(orphan.goes for orphan in files)
    advice = "Run clean-up again with remove_orphans to remove those that may go.\n\n" if may_go else ""
    shown = f"{advice}{table(columns, rows, align, most=_MOST_LINES)}" if files else ""
    return _section("Orphans: files that belong to no backup of the catalogue", shown)


def _shown_versions(done: Cleaned, remove_versions: bool) -> str:
    lines = _list([version_sentence(versions) for versions in done.versions])
    may_go = not remove_versions and any(versions.removable for versions in done.versions)
    advice = "\n\nRun clean-up again with remove_versions to remove those of removed backups." if may_go else ""
    return _section("Older versions in the bucket", lines + advice if lines else "")


def _fate(orphan: Orphan, dry_run: bool, remove_orphans: bool) -> str:
    if orphan.removed:
        return "removed"
    if not orphan.goes:
        return "stays"
    if not remove_orphans:
        return "stays until its removal is asked for"
    return "would be removed" if dry_run else "could not be removed"


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


def _list(lines: Sequence[str]) -> str:
    rest = len(lines) - _MOST_LINES
    shown = "\n".join(f"- {cell(line)}" for line in lines[:_MOST_LINES])
    return f"{shown}\n\n… and {rest:,} more." if rest > 0 else shown
