"""What retention, clean-up and delete-backup did, as markdown and as lines for the log. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tasks.retention.debris import Databases, Orphan, Orphans, Uploads
from tasks.retention.delete import Deleted
from tasks.retention.removal import Retained
from tasks.runs.markdown import cell, facts, human_bytes, table

_MOST_BACKUPS = 1000
_MOST_LINES = 500


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

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong: one sentence each."""
        return (*self.backups.problems, *self.databases.problems, *self.uploads.problems, *self.orphans.problems)

    @property
    def was(self) -> str:
        """The verb of everything that was done, or would be."""
        return "would be" if self.dry_run else "was"


def log_lines(done: Cleaned) -> Iterator[str]:
    """What was done, a line each."""
    removed = len(done.backups.removed)
    verb = "would be removed" if done.dry_run else "removed"
    yield f"Retention: {len(done.backups.decisions) - removed} backups stay, {removed} {verb}."
    yield from done.databases.scratches
    yield from (f"The replaced database {name} {done.was} dropped." for name in done.databases.dropped)
    yield from (f"{key}: an upload left open by a dead run {done.was} aborted." for key in done.uploads.keys)
    if files := done.orphans.files:
        gone = sum(orphan.removed for orphan in files)
        yield f"Orphans: {len(files)} found, {gone} removed. The artifact retention-{done.plan} lists them."
    yield from (f"The spool of the dead run {run_id} {done.was} removed." for run_id in done.spools)


def details(done: Cleaned, remove_orphans: bool) -> dict[str, object]:
    """What was done, for the audit."""
    return {
        "dry_run": done.dry_run,
        "remove_orphans": remove_orphans,
        "removed": len(done.backups.removed),
        "dropped": list(done.databases.dropped),
        "uploads": len(done.uploads.keys),
        "spools": len(done.spools),
        "orphans": len(done.orphans.files),
        "orphans_removed": sum(orphan.removed for orphan in done.orphans.files),
    }


def retention_page(done: Cleaned, remove_orphans: bool = False) -> str:
    """Every decision with its reasons, and whatever else there was to clear away."""
    fate = "which would be" if done.dry_run else "now"
    sections = (
        "# What retention would do" if done.dry_run else "# What retention did",
        _decisions(done),
        _list(done.problems),
        _kept_databases(done),
        _section("Left by restores that died", _list(done.databases.scratches)),
        _section(f"Open uploads of dead runs, {fate} aborted", _list(done.uploads.keys)),
        _section(f"Spools of dead runs on the machine of this run, {fate} removed", _list(done.spools)),
        _orphans(done, remove_orphans),
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


def _orphans(done: Cleaned, remove_orphans: bool) -> str:
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
