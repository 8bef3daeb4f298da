"""Names and labels of the databases that restores make and keep. Pure.

    <name>__restoring_20260301T020000Z    a scratch database, which psql writes to
    <name>__before_20260301T020000Z       a kept database, which a swap replaced
    <name>__verifying_20260301T020000Z    the scratch database of verify-backup

A name that would be longer than PostgreSQL's 63 bytes is cut between two characters, and eight digits of its hash
stand for the rest. A name alone proves nothing, since people may choose such names too. The label does: it is
the database's comment, repeats the name, and holds the comment that the database has (or is to have) by itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

LONGEST = 63  # bytes of a name, as PostgreSQL is built everywhere
_TIME = "%Y%m%dT%H%M%SZ"
_TIME_PATTERN = r"\d{8}T\d{6}Z"
_RESTORING, _BEFORE, _VERIFYING = "__restoring_", "__before_", "__verifying_"
Kind = Literal["kept", "scratch", "verify", "unfinished"]
_TEXTS: dict[Kind, str] = {
    "kept": "kept for undo-restore",
    "scratch": "a restore that is not finished",
    "verify": "a backup that is being verified",
    "unfinished": "a restore that goes on when it is run again",
}
_LABEL = re.compile(r"Database Backup System: (?P<text>[a-z -]+)\. (?P<facts>\{.*\})", re.DOTALL)


@dataclass(frozen=True)
class Label:
    """What the comment says of a database that a restore made or kept."""

    kind: Kind
    name: str
    """The name of the database itself."""
    database: str = ""
    """The name that a kept database had, and that a scratch database is to get."""
    at: datetime | None = None
    """When it was replaced."""
    run_id: str = ""
    """Which run replaced it."""
    comment: str | None = None
    """The comment that it has by itself."""
    plan: str = ""
    """The plan whose restore replaced or made it: cleanup of that plan drops it."""
    replaced_by: str = "restore"
    """The flow that replaced a kept database: `restore` or `undo-restore`."""
    backup: str = ""
    """The SHA-256 of the backup's text whose restore is not finished, and the schemas that are restored alone."""
    missing: tuple[tuple[int, str], ...] = ()
    """Number and name of that dump's entries that are still to be restored."""

    def text(self) -> str:
        """The comment to write: ASCII, so that it reads alike in databases of any encoding."""
        facts: dict[str, str | None] = {"name": self.name}
        if self.kind == "kept":
            facts |= {
                "database": self.database,
                "at": self.at.isoformat() if self.at else "",
                "run_id": self.run_id,
                "plan": self.plan,
                "replaced_by": self.replaced_by,
            }
        elif self.plan:
            facts |= {"database": self.database, "plan": self.plan}
        if self.kind == "unfinished":
            at = self.at.isoformat() if self.at else ""
            facts |= {"at": at, "backup": self.backup, "missing": json.dumps(dict(self.missing))}
        return f"Database Backup System: {_TEXTS[self.kind]}. {json.dumps(facts | {'comment': self.comment})}"


def label_of(name: str, comment: str | None) -> Label | None:
    """The label in the comment of database `name`; None when there is none, or it is that of another database."""
    match = _LABEL.fullmatch(comment or "")
    kinds: dict[str, Kind] = {text: kind for kind, text in _TEXTS.items()}
    if not match or match["text"] not in kinds:
        return None
    try:
        facts = json.loads(match["facts"])
        if facts["name"] != name:
            return None
        kind = kinds[match["text"]]
        if kind == "unfinished":
            return Label(
                kind,
                name,
                facts["database"],
                datetime.fromisoformat(facts["at"]),
                comment=facts["comment"],
                plan=facts["plan"],
                backup=facts["backup"],
                missing=tuple((int(number), str(entry)) for number, entry in json.loads(facts["missing"]).items()),
            )
        if kind != "kept":
            return Label(
                kind, name, str(facts.get("database", "")), comment=facts["comment"], plan=str(facts.get("plan", ""))
            )
        at = datetime.fromisoformat(facts["at"])
        return Label(
            "kept",
            name,
            facts["database"],
            at,
            facts["run_id"],
            facts["comment"],
            str(facts.get("plan", "")),
            str(facts.get("replaced_by", "restore")),
        )
    except (ValueError, KeyError, TypeError):
        return None


def own_comment(name: str, comment: str | None) -> str | None:
    """The comment that database `name` has by itself, whether or not a label stands around it."""
    label = label_of(name, comment)
    return label.comment if label else comment


def scratch_name(database: str, at: datetime) -> str:
    """The name of the scratch database of a restore, at most 63 bytes of UTF-8."""
    return _fitted(database, f"{_RESTORING}{at.astimezone(UTC):{_TIME}}")


def target_of(scratch: str) -> str:
    """The database of which `scratch` is named a scratch; empty when it is not, or its name is cut."""
    database = scratch.rpartition(_RESTORING)[0]
    return database if is_scratch_name(scratch, database) else ""


def verify_scratch_name(database: str, at: datetime) -> str:
    """The name of the scratch database of a verify run, at most 63 bytes of UTF-8."""
    return _fitted(database, f"{_VERIFYING}{at.astimezone(UTC):{_TIME}}")


def kept_name(database: str, at: datetime, taken: Collection[str] = ()) -> str:
    """The name of a kept database, at most 63 bytes of UTF-8; none of the names that are `taken`."""
    suffix, number = f"{_BEFORE}{at.astimezone(UTC):{_TIME}}", 1
    name = _fitted(database, suffix)
    while name in taken:
        number += 1
        name = _fitted(database, f"{suffix}_{number}")
    return name


def is_scratch_name(name: str, database: str) -> bool:
    """Whether `name` is what `scratch_name` gives for `database`, at whatever time."""
    return _is_named(name, database, _RESTORING)


def is_verify_scratch_name(name: str, database: str) -> bool:
    """Whether `name` is what `verify_scratch_name` gives for `database`, at whatever time."""
    return _is_named(name, database, _VERIFYING)


def _is_named(name: str, database: str, sign: str) -> bool:
    time = name.rpartition(sign)[2]
    return bool(re.fullmatch(_TIME_PATTERN, time, re.ASCII)) and name == _fitted(database, f"{sign}{time}")


def _fitted(database: str, suffix: str) -> str:
    if len(f"{database}{suffix}".encode()) <= LONGEST:
        return database + suffix
    ending = f"_{hashlib.sha256(database.encode()).hexdigest()[:8]}{suffix}"
    return database.encode()[: LONGEST - len(ending)].decode(errors="ignore") + ending
