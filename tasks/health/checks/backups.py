"""Whether there is a good backup that is young enough, and whether one has been proved to be restorable lately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.backup import dead_runs as debris
from tasks.health.checks.catalogue_rows import Recorded, Records
from tasks.health.checks.prefect_side import Next
from tasks.health.lines import Line, span, utc
from tasks.names import manifest_key
from tasks.plans.plan import Plan
from tasks.runs.at_once import Answer
from tasks.runs.markdown import human_bytes
from tasks.storage.s3 import Storage

CHECK = "Last backup"
#: How old the last good backup may be where no schedule says so.
OLDEST_UNSCHEDULED = timedelta(hours=26)
#: A backup that began so shortly before a run was due is that of this run: clocks differ.
_EARLY = timedelta(minutes=1)
OLDEST_VERIFIED = timedelta(days=8)
_NOW = "Run backup/manual, and see why the runs before it failed (Runs in the Prefect UI)."


@dataclass(frozen=True)
class Sound:
    """The newest recorded backup that the bucket has; `lost` says of newer ones what is wrong, a sentence each."""

    backup: Recorded | None
    lost: tuple[str, ...]


def find_sound(storage: Storage, newest: Sequence[Recorded]) -> Sound:
    """Looks for object and manifest of each, the newest first. Raises AccessRefused, BadSetting or Unreachable."""
    lost: list[str] = []
    for one in newest:
        size = storage.size(one.key)
        if size == one.size and storage.size(manifest_key(one.key)):
            return Sound(one, tuple(lost))
        if size is None:
            lost.append(f"{one.filename} is gone from the bucket.")
        elif size != one.size:
            lost.append(f"{one.filename} has {size:,} bytes in the bucket, not {one.size:,}.")
        else:
            lost.append(f"The manifest of {one.filename} is gone from the bucket.")
    return Sound(None, tuple(lost))


def last_backup_line(
    told: Answer[Records],
    seen: Answer[Sound],
    due_after: Next,
    made_at: datetime | None,
    now: datetime,
    grace: timedelta,
) -> Line:
    """Whether the last good backup is there and young enough.

    `due_after` says when the schedules want the next one; `made_at` is when they were made;
    a backup that is not there `grace` after it was due is overdue. Pure.
    """
    if told.value is None:
        return Line(CHECK, "warning", "Its age is not known, as the catalogue does not answer.", "Solve that first.")
    records, sound = told.value, seen.value
    if sound is None:  # the line of the bucket says why
        sound = Sound(next(iter(records.newest), None), ())
    if sound.lost:
        left = f" The newest that is whole: {sound.backup.filename}." if sound.backup else " No other is there."
        return Line(
            CHECK,
            "failed",
            " ".join(sound.lost) + left,
            "Run backup/manual now; rebuild-catalogue/rebuild-catalogue makes the records agree with the bucket.",
        )
    if sound.backup is None:
        return _none_line(records, due_after, made_at, now, grace)
    return _age_line(sound.backup, records, due_after, now, grace)


def verification_line(told: Answer[Records], has_drills: bool, now: datetime) -> Line:
    """Whether a backup was proved to be restorable lately, where a schedule is to prove it. Pure."""
    if told.value is None:
        return Line("Verification", "warning", "Not known, as the catalogue does not answer.", "Solve that first.")
    verified, first = told.value.verified_at, told.value.first_at
    oldest = verified or first
    if has_drills and told.value.newest and oldest is not None and now - oldest > OLDEST_VERIFIED:
        what = f"The last one was {span(now - oldest)} ago." if verified else "No backup has been verified so far."
        return Line(
            "Verification", "warning", what, "Run verify-backup/verify-backup, and see why the weekly one did not."
        )
    if verified:
        return Line("Verification", "ok", f"A backup was restored and compared {span(now - verified)} ago.")
    return Line("Verification", "ok", "No backup has been verified so far.", "verify-backup/verify-backup does so.")


def dead_uploads(plan: Plan, now: datetime) -> list[str]:
    """Keys of the uploads that dead runs have left open. Raises what catalogue and storage raise."""
    found = debris.stale_uploads(plan, now)
    still_open = plan.storage.unfinished(plan.prefix) if found else []
    return [key for key, upload_id in found if (key, upload_id) in still_open]


def upload_line(told: Answer[list[str]]) -> Line:
    """Pure."""
    if told.value is None:
        return Line("Unfinished uploads", "warning", f"Not known: {told.problem}", "Solve that first.")
    if not told.value:
        return Line("Unfinished uploads", "ok", "None.")
    keys = ", ".join(told.value[:3]) + (f" and {len(told.value) - 3} more" if len(told.value) > 3 else "")
    return Line(
        "Unfinished uploads",
        "warning",
        f"Left open by dead runs, and paid for: {keys}.",
        "The next backup aborts them; backup/manual or cleanup/clean-up-now does so now.",
    )


def _age_line(good: Recorded, records: Records, due_after: Next, now: datetime, grace: timedelta) -> Line:
    what = f"{good.filename} ({human_bytes(good.size)}) is {span(now - good.created_at)} old."
    due = due_after(good.created_at + _EARLY)
    late = now > due + grace if due else now - good.created_at > OLDEST_UNSCHEDULED
    wanted = f"The next one was due at {utc(due)}." if due else "No schedule makes the next one."
    if late and records.under_way:
        return Line(CHECK, "warning", f"{what} {wanted} It is being made.", "See Runs in the Prefect UI.")
    if late:
        failure = _failure(records, good.created_at)
        return Line(CHECK, "failed", f"{what} {wanted}{failure}", _NOW, is_overdue=due is not None)
    if failure := _failure(records, good.created_at):
        return Line(CHECK, "warning", f"{what}{failure}", "Run backup/manual when this is solved.")
    if good.suspicious:
        return Line(
            CHECK,
            "warning",
            f"{what} It is suspicious: {good.suspicious}",
            "See whether data was lost in the database before older backups are gone.",
        )
    return Line(CHECK, "ok", what + (f" The next one is due at {utc(due)}." if due else ""))


def _none_line(records: Records, due_after: Next, made_at: datetime | None, now: datetime, grace: timedelta) -> Line:
    if records.under_way:
        return Line(CHECK, "warning", "There is no backup yet; the first one is being made.")
    if failure := _failure(records, None):
        return Line(CHECK, "failed", f"There is no backup.{failure}", _NOW)
    due = due_after(made_at) if made_at else None
    if due and now > due + grace:
        return Line(CHECK, "failed", f"There is no backup, though one was due at {utc(due)}.", _NOW, is_overdue=True)
    wanted = f" The schedule makes the first one at {utc(due)}." if due else ""
    return Line(CHECK, "warning", f"There is no backup yet.{wanted}", "Run backup/manual for one now.")


def _failure(records: Records, since: datetime | None) -> str:
    """` The last attempt … failed: …` when one has failed since then; else empty."""
    failure = records.failure
    if failure is None or (since is not None and failure.at <= since):
        return ""
    return f" The attempt of {utc(failure.at)} failed: {failure.error or 'no reason was recorded.'}"
