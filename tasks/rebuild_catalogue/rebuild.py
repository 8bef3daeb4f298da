"""How the bucket of a plan differs from its catalogue, what to write about that, and the writing.

A manifest proves itself and the size of its object; nothing else is believed. The SHA-256 that the catalogue has of a
manifest is never replaced: a manifest that is not the recorded one is named, and changes no row. Rows and audit are
written in one transaction, all or nothing.

Whoever can write to the bucket can forge a backup with its manifest. So a row that is added is `unproved` until a
person says that the backup is trusted, unless a trusted key of the plan has signed the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from psycopg2.extras import Json, execute_values

from tasks.catalogue.own_tables import CatalogueCursor
from tasks.catalogue.rows import (
    SETTLED,
    STATUS_WHEN_GONE,
    UNPROVED,
    WITHOUT_REMOVAL,
    Event,
    Record,
    append_event,
    differing,
    row_from,
)
from tasks.names import ADOPTED
from tasks.plans.plan import Plan
from tasks.stored_backups.backup_files import AT_ONCE, Proved, Stored, Unproved, backups_in, proofs

Kind = Literal["add", "trust", "complete", "repair", "missing", "deleted", "expired", "report"]
ACTION = "rebuild-catalogue"
_LARGEST_ID = (1 << 31) - 1
_GONE = ("missing", "deleted", "expired")
_OUTCOMES = {"add": "recorded", "trust": "trusted", "complete": "found again", "repair": "repaired"}
#: The last outcome of verify-backup for each backup, as far as the audit still has it.
_VERIFICATIONS = """
    SELECT DISTINCT ON (filename) filename, details->'verification' AS verification, outcome,
           (details->'verification'->>'at')::timestamptz AS at
      FROM backup_events WHERE action = 'verify-backup' AND filename = ANY (%s) AND plan = %s
       AND jsonb_typeof(details->'verification') = 'object' ORDER BY filename, id DESC
"""
#: Whether each backup was kept for ever when the audit last spoke of that.
_KEPT = """
    SELECT DISTINCT ON (filename) filename, details->'kept' AS kept FROM backup_events
     WHERE action = 'keep-backup' AND outcome IN ('kept', 'let go') AND filename = ANY (%s) AND plan = %s
     ORDER BY filename, id DESC
"""


@dataclass(frozen=True)
class Difference:
    """How bucket and catalogue differ in one backup."""

    filename: str
    kind: Kind
    """What to do: add a row, complete it again, repair it, give it another status; or only report it to a person."""
    why: str
    row: Mapping[str, Any] = field(default_factory=dict)
    """What the row is to be, for the first three kinds."""
    wanted_id: int | None = None
    """The id that the row once had."""
    unproved: bool = False
    """Nobody has confirmed the backup, which is known from the bucket alone."""


@dataclass(frozen=True)
class Comparison:
    """The bucket against the catalogue."""

    whole: int
    """Backups in the bucket that are whole."""
    rows: int
    """Rows of the plan."""
    differences: tuple[Difference, ...]
    without_tables: tuple[str, ...] = ()
    """Tables of the catalogue that are not there."""

    @property
    def unproved(self) -> int:
        """How many backups are known from the bucket alone, and trusted by nobody."""
        return sum(difference.unproved for difference in self.differences)

    @property
    def changes(self) -> tuple[Difference, ...]:
        """Those that something is to be written for."""
        return tuple(difference for difference in self.differences if difference.kind != "report")


def compare(plan: Plan, trust: Sequence[str] = ()) -> Comparison:
    """What differs, by file name. Raises what storage and catalogue raise when they do not answer.

    `trust` has the names, or patterns of names, of the backups that a person confirms.
    Lists the bucket once and reads every manifest, a few at the same time.
    """
    lost = plan.catalogue.lost_tables()
    stored = backups_in(plan)  # before the rows: a run writes its row before it stores anything
    rows = {} if "database_backups" in lost else _rows(plan, stored)
    whole = 0
    differences: list[Difference] = []
    for files, proved in proofs(plan, stored.values()):
        whole += isinstance(proved, Proved)
        trusted = any(fnmatchcase(files.filename, pattern.strip()) for pattern in trust)
        differences += _difference(plan, files, proved, rows.get(files.filename), trusted)
    differences += _gone(plan, stored, rows)
    ours = sum(row.plan == plan.name for row in rows.values())
    return Comparison(whole, ours, tuple(sorted(differences, key=lambda one: one.filename)), lost)


def _rows(plan: Plan, stored: Mapping[str, Stored]) -> dict[str, Record]:
    """Every row of the plan, and those of other plans that have the name of a stored backup."""
    return {**plan.catalogue.named(stored), **{row.filename: row for row in plan.catalogue.rows(plan.name)}}


# --- what is in the bucket


def _difference(
    plan: Plan, files: Stored, proved: Proved | Unproved, row: Record | None, trusted: bool
) -> Iterator[Difference]:
    name = files.filename
    if row is not None and row.plan != plan.name:
        yield Difference(name, "report", f"belongs to plan {row.plan} by its row.")
    elif row is not None and row.status == "in_progress":
        yield Difference(name, "report", "is being made, or its run has died; the next backup sees to it.")
    elif isinstance(proved, Unproved):
        yield from _unproved(files, proved, row)
    elif row is None:
        is_known = trusted or _is_vouched_for(proved)
        made = {**_made(plan, proved), "status": "completed" if is_known else UNPROVED}
        why = f"is whole and has no row{_signed(plan, proved)}."
        yield Difference(name, "add", why, made, proved.manifest.backup_id, not is_known)
    elif row.status in ("failed", "expired", "deleted"):
        why = f"is whole although its row says {row.status}: cleanup with remove_orphans removes it."
        yield Difference(name, "report", why)
    elif row.manifest_sha256 not in (None, proved.sha256):
        why = "has a manifest that is not the recorded one: its row stays as it is, and a restore refuses it."
        yield Difference(name, "report", why)
    elif row.status == UNPROVED and _is_vouched_for(proved):
        yield Difference(name, "trust", f"has no row that counts{_signed(plan, proved)}.", _made(plan, proved))
    elif row.status == UNPROVED and row.is_adopted and not trusted:
        yield Difference(name, "report", "was adopted, and no drill has proved it: run verify-backup with its name.")
    elif row.status == UNPROVED and trusted:
        yield Difference(name, "trust", "is known from the bucket alone, and a person trusts it.", _made(plan, proved))
    elif row.status == UNPROVED:
        yield Difference(
            name, "report", "is known from the bucket alone: if it is yours, name it in trust.", unproved=True
        )
    else:
        yield from _recorded(plan, _made(plan, proved), row)


def _signed(plan: Plan, proved: Proved) -> str:
    if not plan.keys.are_asked_for:
        return ""
    return "; a trusted key has signed it" if proved.is_signed else "; no trusted key has signed it"


def _is_vouched_for(proved: Proved) -> bool:
    """Whether a trusted key has signed a backup that this system made: of an adopted dump it says only who read it."""
    return proved.is_signed and proved.manifest.backup_type != ADOPTED


def _made(plan: Plan, proved: Proved) -> dict[str, Any]:
    return row_from(proved.manifest, proved.sha256, plan.storage.bucket, plan.key(proved.manifest.filename))


def _unproved(files: Stored, proved: Unproved, row: Record | None) -> Iterator[Difference]:
    """An object that is gone altogether is looked for by its row."""
    if row is None:
        yield Difference(files.filename, "report", f"cannot be recorded. {proved.why}")
    elif files.size is not None:
        yield Difference(files.filename, "report", f"has a row ({row.status}), which stays as it is. {proved.why}")


def _recorded(plan: Plan, made: dict[str, Any], row: Record) -> Iterator[Difference]:
    """A whole backup with a row, `completed` or `missing`, of the same manifest."""
    wrong = differing(row, made)
    if row.status == "missing":
        yield Difference(row.filename, "complete", "is whole again, and its row says missing.", made)
    elif "s3_key" in wrong and row.lies_in(plan.storage.bucket) and plan.storage.size(row.s3_key) is not None:
        yield Difference(row.filename, "report", f"is a copy: by its row it lies at {row.s3_key}, and does so.")
    elif wrong:
        yield Difference(row.filename, "repair", f"has another value in its row for {', '.join(wrong)}.", made)


# --- what is not


def _gone(plan: Plan, stored: Mapping[str, Stored], rows: Mapping[str, Record]) -> list[Difference]:
    """Completed rows whose object was not listed; each is asked for again, since it may have been stored meanwhile."""
    unseen = [
        row
        for name, row in rows.items()
        if row.is_completed and row.plan == plan.name and (name not in stored or stored[name].size is None)
    ]
    here = [row for row in unseen if row.lies_in(plan.storage.bucket)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sizes = list(pool.map(lambda row: plan.storage.size(row.s3_key), here))
    return [_elsewhere(plan, row) for row in unseen if row not in here] + [
        Difference(row.filename, row.removal or "missing", _why_gone(row))
        for row, size in zip(here, sizes, strict=True)
        if size is None
    ]


def _elsewhere(plan: Plan, row: Record) -> Difference:
    why = f"lies in bucket {row.bucket} by its row, which plan {plan.name} does not name: its row stays as it is."
    return Difference(row.filename, "report", why)


def _why_gone(row: Record) -> str:
    why = "has a row, and its object is gone from the bucket"
    return f"{why}: a run that removed it died before it could say so." if row.removal else f"{why}."


def write(plan: Plan, changes: Sequence[Difference], run_id: str, actor: str) -> frozenset[str]:
    """The rows are as decided, each with a line in the audit; returns the file names of those that were changed.

    A row that somebody has changed since it was compared stays as it is. Nobody writes to the table meanwhile.
    """
    with plan.catalogue.cursor() as cursor:
        cursor.execute("LOCK TABLE database_backups IN SHARE ROW EXCLUSIVE MODE")
        done = _add(cursor, plan, [change for change in changes if change.kind == "add"])
        done |= {change.filename for change in changes if change.kind != "add" and _change(cursor, change)}
        for change in changes:
            if change.filename in done:
                append_event(cursor, _event(plan, change, run_id, actor))
    return frozenset(done)


def _event(plan: Plan, change: Difference, run_id: str, actor: str) -> Event:
    return Event(
        ACTION,
        _OUTCOMES.get(change.kind, change.kind),
        plan.name,
        actor,
        run_id,
        filename=change.filename,
        bytes=change.row.get("file_size"),
        details={"why": change.why},
    )


def _add(cursor: CatalogueCursor, plan: Plan, changes: Sequence[Difference]) -> set[str]:
    """Rows get the ids that they had, unless another row has them by now; else new ids, in the order of time."""
    if not changes:
        return set()
    filenames = [change.filename for change in changes]
    verifications, kept = _verifications(cursor, plan, filenames), _kept(cursor, plan, filenames)
    taken = _taken(cursor, changes)
    keeping, renumbered = [], []
    for change in sorted(changes, key=lambda one: (one.row["created_at"], one.filename)):
        verified_at, more = verifications.get(change.filename, (None, {}))
        metadata = {**change.row["metadata"], **more, **kept.get(change.filename, {})}
        row = {**change.row, "verified_at": verified_at, "metadata": Json(metadata)}
        if change.wanted_id is None or change.wanted_id in taken or change.wanted_id > _LARGEST_ID:
            renumbered.append(row)
        else:
            taken.add(change.wanted_id)
            keeping.append({**row, "id": change.wanted_id})
    done = _insert(cursor, keeping)
    if keeping:
        cursor.execute(
            "SELECT setval(s, greatest((SELECT max(id) FROM database_backups), nextval(s)))"
            " FROM pg_get_serial_sequence('database_backups', 'id') s"
        )
    return done | _insert(cursor, renumbered)


def _insert(cursor: CatalogueCursor, rows: Sequence[dict[str, Any]]) -> set[str]:
    if not rows:
        return set()
    columns = list(rows[0])
    written = execute_values(
        cursor,
        cursor.qualified(
            f"INSERT INTO database_backups ({', '.join(columns)}) VALUES %s ON CONFLICT (filename) DO NOTHING"
            " RETURNING filename"
        ),
        [[row[name] for name in columns] for row in rows],
        page_size=500,
        fetch=True,
    )
    return {str(row["filename"]) for row in written}


def _taken(cursor: CatalogueCursor, changes: Sequence[Difference]) -> set[int]:
    wanted = [change.wanted_id for change in changes if change.wanted_id is not None]
    cursor.execute("SELECT id FROM database_backups WHERE id = ANY (%s::bigint[])", [wanted])
    return {int(row["id"]) for row in cursor.fetchall()}


def _verifications(cursor: CatalogueCursor, plan: Plan, filenames: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """`verified_at` and additional metadata by file name."""
    cursor.execute(_VERIFICATIONS, [list(filenames), plan.name])
    return {
        str(row["filename"]): (
            row["at"] if row["outcome"] == "completed" else None,
            {"verification": row["verification"]},
        )
        for row in cursor.fetchall()
    }


def _kept(cursor: CatalogueCursor, plan: Plan, filenames: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Additional metadata of the backups that a person keeps for ever, by file name."""
    cursor.execute(_KEPT, [list(filenames), plan.name])
    return {str(row["filename"]): {"kept": row["kept"]} for row in cursor.fetchall() if row["kept"]}


def _change(cursor: CatalogueCursor, change: Difference) -> bool:
    """Writes one row; says whether the row was still what it was compared as."""
    if change.kind in _GONE:
        cursor.execute(
            f"UPDATE database_backups SET status = {STATUS_WHEN_GONE} WHERE filename = %s AND status = 'completed'",
            [change.filename],
        )
        return bool(cursor.rowcount)
    columns = (*SETTLED, "manifest_sha256")
    cursor.execute(
        f"UPDATE database_backups SET status = 'completed', {', '.join(f'{name} = %({name})s' for name in columns)},"
        f" metadata = {WITHOUT_REMOVAL} || %(metadata)s"
        " WHERE filename = %(filename)s AND plan = %(plan)s AND status = %(was)s"
        " AND coalesce(manifest_sha256, %(manifest_sha256)s) = %(manifest_sha256)s",
        {
            **change.row,
            "metadata": Json(change.row["metadata"]),
            "was": {"complete": "missing", "trust": UNPROVED}.get(change.kind, "completed"),
        },
    )
    return bool(cursor.rowcount)
