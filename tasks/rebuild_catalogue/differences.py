"""How the bucket of a plan differs from its catalogue, and what to write about that. Changes nothing.

A manifest proves itself and the size of its object; nothing else is believed. The SHA-256 that the catalogue has of a
manifest is never replaced: a manifest that is not the recorded one is named, and changes no row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.catalogue.rows import Record, differing, row_from
from tasks.plans.plan import Plan
from tasks.stored_backups.backup_files import AT_ONCE, Proved, Stored, Unproved, backups_in, proofs

Kind = Literal["add", "complete", "repair", "missing", "deleted", "expired", "report"]


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
    def changes(self) -> tuple[Difference, ...]:
        """Those that something is to be written for."""
        return tuple(difference for difference in self.differences if difference.kind != "report")


def compare(plan: Plan) -> Comparison:
    """What differs, by file name. Raises what storage and catalogue raise when they do not answer.

    Lists the bucket once and reads every manifest, a few at the same time.
    """
    lost = plan.catalogue.lost_tables()
    stored = backups_in(plan)  # before the rows: a run writes its row before it stores anything
    rows = {} if "database_backups" in lost else _rows(plan, stored)
    whole = 0
    differences: list[Difference] = []
    for files, proved in proofs(plan, stored.values()):
        whole += isinstance(proved, Proved)
        differences += _difference(plan, files, proved, rows.get(files.filename))
    differences += _gone(plan, stored, rows)
    ours = sum(row.plan == plan.name for row in rows.values())
    return Comparison(whole, ours, tuple(sorted(differences, key=lambda one: one.filename)), lost)


def _rows(plan: Plan, stored: Mapping[str, Stored]) -> dict[str, Record]:
    """Every row of the plan, and those of other plans that have the name of a stored backup."""
    return {**plan.catalogue.named(stored), **{row.filename: row for row in plan.catalogue.rows(plan.name)}}


# --- what is in the bucket


def _difference(plan: Plan, files: Stored, proved: Proved | Unproved, row: Record | None) -> Iterator[Difference]:
    name = files.filename
    if row is not None and row.plan != plan.name:
        yield Difference(name, "report", f"belongs to plan {row.plan} by its row.")
    elif row is not None and row.status == "in_progress":
        yield Difference(name, "report", "is being made, or its run has died; the next backup sees to it.")
    elif isinstance(proved, Unproved):
        yield from _unproved(files, proved, row)
    elif row is None:
        yield Difference(name, "add", "is whole and has no row.", _made(plan, proved), proved.manifest.backup_id)
    elif row.status in ("failed", "expired", "deleted"):
        why = f"is whole although its row says {row.status}: cleanup with remove_orphans removes it."
        yield Difference(name, "report", why)
    elif row.manifest_sha256 not in (None, proved.sha256):
        why = "has a manifest that is not the recorded one: its row stays as it is, and a restore refuses it."
        yield Difference(name, "report", why)
    else:
        yield from _recorded(plan, _made(plan, proved), row)


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
