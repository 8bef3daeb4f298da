"""Rebuilds the catalogue of a plan from its bucket: what differs, decided first, and then written in one transaction.

A manifest proves itself and its object's size; nothing else is believed. What the catalogue knows of a manifest, its
SHA-256, is never replaced: a manifest that is not the recorded one is told, and changes no row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.catalogue.record import Record
from tasks.plans.plan import Plan
from tasks.rebuild_catalogue.manifest_row import differing, row_from
from tasks.stored_backups.listing import AT_ONCE, Proved, Stored, Unproved, backups_in, proofs

Kind = Literal["add", "complete", "repair", "missing", "deleted", "expired", "tell"]


@dataclass(frozen=True)
class Difference:
    """What the bucket says of one backup, against what the catalogue says."""

    filename: str
    kind: Kind
    """A row to add, to complete again, to repair, to mark as what it is; or something that a person should know."""
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
        return tuple(one for one in self.differences if one.kind != "tell")


def compare(plan: Plan) -> Comparison:
    """What differs, by file name; nothing is changed. Raises what storage and catalogue raise when they are silent.

    Lists the bucket once and reads every manifest, a few at the same time.
    """
    lacking = plan.catalogue.lost_tables()
    stored = backups_in(plan)  # before the rows: what a run makes has a row before it is stored
    rows = {} if "database_backups" in lacking else _rows(plan, stored)
    whole = 0
    found: list[Difference] = []
    for one, proved in proofs(plan, stored.values()):
        whole += isinstance(proved, Proved)
        found += _difference(plan, one, proved, rows.get(one.filename))
    found += _gone(plan, stored, rows)
    ours = sum(row.plan == plan.name for row in rows.values())
    return Comparison(whole, ours, tuple(sorted(found, key=lambda one: one.filename)), lacking)


def _rows(plan: Plan, stored: Mapping[str, Stored]) -> dict[str, Record]:
    """Every row of the plan, and those of other plans that have the name of a stored backup."""
    return {**plan.catalogue.named(stored), **{row.filename: row for row in plan.catalogue.rows(plan.name)}}


# --- what is in the bucket


def _difference(plan: Plan, one: Stored, proved: Proved | Unproved, row: Record | None) -> Iterator[Difference]:
    if row is not None and row.plan != plan.name:
        yield _told(one, f"belongs to plan {row.plan} by its row.")
    elif row is not None and row.status == "in_progress":
        yield _told(one, "is being made, or its run has died; the next backup sees to it.")
    elif isinstance(proved, Unproved):
        yield from _unproved(one, proved, row)
    elif row is None:
        yield Difference(
            one.filename, "add", "is whole and has no row.", row_from(plan, proved), proved.manifest.backup_id
        )
    elif row.status in ("failed", "expired", "deleted"):
        yield _told(one, f"is whole although its row says {row.status}: cleanup with remove_orphans removes it.")
    elif row.manifest_sha256 not in (None, proved.sha256):
        yield _told(
            one, "has a manifest that is not the recorded one: its row stays as it is, and a restore refuses it."
        )
    else:
        yield from _recorded(plan, one, row_from(plan, proved), row)


def _unproved(one: Stored, proved: Unproved, row: Record | None) -> Iterator[Difference]:
    """An object that is gone altogether is looked for by its row."""
    if one.size is not None or row is None:
        yield _told(
            one,
            f"cannot be recorded. {proved.why}"
            if row is None
            else f"has a row ({row.status}), which stays as it is. {proved.why}",
        )


def _recorded(plan: Plan, one: Stored, made: dict[str, Any], row: Record) -> Iterator[Difference]:
    """A whole backup with a row, `completed` or `missing`, of the same manifest."""
    wrong = differing(row, made)
    if row.status == "missing":
        yield Difference(one.filename, "complete", "is whole again, and its row says missing.", made)
    elif "s3_key" in wrong and row.lies_in(plan.storage.bucket) and plan.storage.size(row.s3_key) is not None:
        yield _told(one, f"is a copy: by its row it lies at {row.s3_key}, and does so.")
    elif wrong:
        yield Difference(one.filename, "repair", f"has another value in its row for {', '.join(wrong)}.", made)


def _told(one: Stored, why: str) -> Difference:
    return Difference(one.filename, "tell", why)


# --- what is not


def _gone(plan: Plan, stored: Mapping[str, Stored], rows: Mapping[str, Record]) -> list[Difference]:
    """Completed rows whose object was not listed; each is asked for again, since it may have been stored meanwhile."""
    unseen = [
        row
        for name, row in rows.items()
        if row.status == "completed" and row.plan == plan.name and (name not in stored or stored[name].size is None)
    ]
    here = [row for row in unseen if row.lies_in(plan.storage.bucket)]
    elsewhere = [
        Difference(
            row.filename,
            "tell",
            f"lies in bucket {row.bucket} by its row, which plan {plan.name} does not name: its row stays as it is.",
        )
        for row in unseen
        if not row.lies_in(plan.storage.bucket)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sizes = list(pool.map(lambda row: plan.storage.size(row.s3_key), here))
    return elsewhere + [
        Difference(row.filename, row.removal or "missing", _why_gone(row))
        for row, size in zip(here, sizes, strict=True)
        if size is None
    ]


def _why_gone(row: Record) -> str:
    why = "has a row, and its object is gone from the bucket"
    return f"{why}: a run that removed it died before it could say so." if row.removal else f"{why}."
