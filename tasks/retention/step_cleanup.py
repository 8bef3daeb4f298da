"""The step that cleans one plan up: retention, databases that restores left, open uploads, spools, and orphans."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import task

from tasks.backup.dead_runs import stale_uploads
from tasks.catalogue.events import Event
from tasks.errors import BackupSystemError
from tasks.plans.find_plan import plan_named
from tasks.retention.orphans import ACTION, Orphan, OrphanHunt, clear_orphans
from tasks.retention.removal import CleanUp, DatabaseCleanUp
from tasks.retention.steps import raise_problems, retain, table
from tasks.runs.audit import audit
from tasks.runs.markdown import cell, human_bytes
from tasks.runs.reporting import created_by, current_run_id, now, publish, say
from tasks.runs.retries import RETRIED
from tasks.runs.run_locks import no_restore
from tasks.storage.spool import clear_dead_spools

_LINES_SHOWN = 500


@dataclass(frozen=True)
class Uploads:
    """Keys of the open uploads that no live backup made; they are aborted, except in a dry run."""

    keys: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cleaned:
    """What a clean-up of one plan did, or would do."""

    plan: str
    dry_run: bool
    backups: CleanUp
    databases: DatabaseCleanUp
    uploads: Uploads
    orphans: OrphanHunt
    spools: tuple[str, ...] = ()
    """Ids of the dead runs that had left their spool on this machine; it is gone, except in a dry run."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong: one sentence each."""
        return (*self.backups.problems, *self.databases.problems, *self.uploads.problems, *self.orphans.problems)


@task(name="clean up", **RETRIED)
def clean(plan: str, dry_run: bool, remove_orphans: bool, requested_by: str) -> Cleaned:
    """Clears all that is due, and publishes what stays or goes, and why. Raises CleanUpFailed naming what could not go.

    Nobody restores the plan's database meanwhile; a backup that is under way is left alone. Raises AlreadyRunning
    while the plan's database is being restored.
    """
    began = now()
    with no_restore(plan, f"Plan {plan} cannot be cleaned up now, since its database is being restored"):
        backups, databases = retain(plan, requested_by, dry_run)
        uploads = _clear_uploads(plan, dry_run)
        orphans = _clear_orphans(plan, requested_by, remove_orphans, dry_run)
        spools = _clear_spools(plan, dry_run)
    done = Cleaned(plan, dry_run, backups, databases, uploads, orphans, spools)
    publish(f"retention-{plan}", f"Clean-up of plan {plan}", shown(done, remove_orphans))
    raise_problems(plan, done.problems)
    audit(
        plan_named(plan).catalogue,
        Event(
            ACTION,
            "completed",
            plan,
            created_by(requested_by),
            current_run_id(),
            duration_seconds=(now() - began).total_seconds(),
            details=_details(done, remove_orphans),
        ),
    )
    return done


def _clear_uploads(plan: str, dry_run: bool) -> Uploads:
    found = plan_named(plan)
    keys: list[str] = []
    try:
        for key, upload_id in stale_uploads(found, now()):
            if not dry_run:
                found.storage.abort(key, upload_id)
            keys.append(key)
            say(f"{key}: an upload left open by a dead run {'would be' if dry_run else 'was'} aborted.")
    except BackupSystemError as error:
        return Uploads(tuple(keys), (f"Not every open upload could be aborted: {error}",))
    return Uploads(tuple(keys))


def _clear_orphans(plan: str, requested_by: str, remove: bool, dry_run: bool) -> OrphanHunt:
    found = plan_named(plan)
    try:
        hunt = clear_orphans(found, current_run_id(), created_by(requested_by), now(), remove, dry_run)
    except BackupSystemError as error:
        return OrphanHunt(problems=(f"Orphans could not be looked for: {error}",))
    if hunt.orphans:
        removed = sum(one.removed for one in hunt.orphans)
        say(f"Orphans: {len(hunt.orphans)} found, {removed} removed. The artifact retention-{plan} lists them.")
    return hunt


def _clear_spools(plan: str, dry_run: bool) -> tuple[str, ...]:
    """Those of every dead run that used the plan's directory: runs of other plans may share it."""
    found = tuple(clear_dead_spools(plan_named(plan).spool_directory, dry_run))
    for run_id in found:
        say(f"The spool of the dead run {run_id} {'would be' if dry_run else 'was'} removed.")
    return found


def _details(done: Cleaned, remove_orphans: bool) -> dict[str, object]:
    return {
        "dry_run": done.dry_run,
        "remove_orphans": remove_orphans,
        "removed": len(done.backups.removed),
        "dropped": list(done.databases.dropped),
        "uploads": len(done.uploads.keys),
        "spools": len(done.spools),
        "orphans": len(done.orphans.orphans),
        "orphans_removed": sum(one.removed for one in done.orphans.orphans),
    }


# --- what is shown


def shown(done: Cleaned, remove_orphans: bool) -> str:
    """The whole clean-up as markdown. Pure."""
    more = _uploads_list(done.uploads, done.dry_run) + _spools_list(done) + _orphans_table(done, remove_orphans)
    problems = "".join(f"\n- {cell(one)}" for one in (*done.uploads.problems, *done.orphans.problems))
    return table(done.backups, done.databases, done.dry_run, f"{more}{problems and f'{problems}{chr(10)}'}")


def _uploads_list(uploads: Uploads, dry_run: bool) -> str:
    if not uploads.keys:
        return ""
    lines = "".join(f"\n- {cell(key)}" for key in uploads.keys[:_LINES_SHOWN]) + _rest(len(uploads.keys))
    return f"\n## Open uploads of dead runs, {'which would be' if dry_run else 'now'} aborted\n{lines}\n"


def _spools_list(done: Cleaned) -> str:
    if not done.spools:
        return ""
    lines = "".join(f"\n- {cell(run_id)}" for run_id in done.spools[:_LINES_SHOWN]) + _rest(len(done.spools))
    fate = "would be" if done.dry_run else "now"
    return f"\n## Spools of dead runs on the machine of this run, {fate} removed\n{lines}\n"


def _orphans_table(done: Cleaned, remove_orphans: bool) -> str:
    orphans = done.orphans.orphans
    if not orphans:
        return ""
    lines = "\n".join(
        f"| `{one.filename}` | {one.what} | {human_bytes(one.bytes)} | {_fate(one, done.dry_run, remove_orphans)} "
        f"| {cell(one.why)} |"
        for one in orphans[:_LINES_SHOWN]
    )
    asked = (
        ""
        if remove_orphans or not any(one.goes for one in orphans)
        else ("\nRun clean-up again with remove_orphans to remove those that may go.\n")
    )
    title = "## Orphans: files that belong to no backup of the catalogue"
    header = "| file | there is | size | | why |\n|---|---|---:|---|---|"
    return f"\n{title}\n{asked}\n{header}\n{lines}\n{_rest(len(orphans))}"


def _fate(orphan: Orphan, dry_run: bool, remove_orphans: bool) -> str:
    if orphan.removed:
        return "removed"
    if not orphan.goes:
        return "stays"
    if not remove_orphans:
        return "stays until its removal is asked for"
    return "would be removed" if dry_run else "could not be removed"


def _rest(count: int) -> str:
    return f"\n… and {count - _LINES_SHOWN:,} more.\n" if count > _LINES_SHOWN else ""
