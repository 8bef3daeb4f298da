"""How a restore's own databases are known: by their names, and by the comment that each of them carries. Pure.

    <name>__restoring_20260301T020000Z    a scratch database, which psql writes to
    <name>__before_20260301T020000Z       a kept one: the database that a swap replaced
    <name>__verifying_20260301T020000Z    the scratch of a drill, which tries a backup out

A name that would be longer than PostgreSQL's 63 bytes is cut between two characters, and eight digits of its hash
stand for the rest. Names alone are no proof, since people may choose such names too: the label is, which stands in
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
Kind = Literal["kept", "scratch", "drill"]
_TEXTS: dict[Kind, str] = {
    "kept": "kept for undo-restore",
    "scratch": "a restore that is not finished",
    "drill": "a backup that is being tried out",
}
_LABEL = re.compile(r"Database Backup System: (?P<text>[a-z -]+)\. (?P<facts>\{.*\})", re.DOTALL)


@dataclass(frozen=True)
class Label:
    """What the comment of a database of ours says of it."""

    kind: Kind
    name: str
    """The name of the database itself."""
    database: str = ""
    """Which database a kept one was, and a scratch is to be."""
    at: datetime | None = None
    """When it was replaced."""
    run_id: str = ""
    """Which run replaced it."""
    comment: str | None = None
    """The comment that it has by itself."""
    plan: str = ""
    """Whose restore replaced it, or made it: that plan's clean-up drops it."""
    replaced_by: str = "restore"
    """What replaced a kept one: `restore`, or `undo-restore`."""

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
        return f"Database Backup System: {_TEXTS[self.kind]}. {json.dumps(facts | {'comment': self.comment})}"


def label_of(name: str, comment: str | None) -> Label | None:
    """The label in the comment of database `name`; None when it is not one, or is that of another database."""
    found = _LABEL.fullmatch(comment or "")
    kinds: dict[str, Kind] = {text: kind for kind, text in _TEXTS.items()}
    if not found or found["text"] not in kinds:
        return None
    try:
        facts = json.loads(found["facts"])
        if facts["name"] != name:
            return None
        kind = kinds[found["text"]]
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
    """What the scratch database of a restore is called, at most 63 bytes of UTF-8."""
    return _fitted(database, f"{_RESTORING}{at.astimezone(UTC):{_TIME}}")


def target_of(scratch: str) -> str:
    """The database of which `scratch` is named a scratch; empty when it is not, or its name is cut."""
    database = scratch.rpartition(_RESTORING)[0]
    return database if is_scratch_name(scratch, database) else ""


def drill_name(database: str, at: datetime) -> str:
    """What the scratch database of a drill is called, at most 63 bytes of UTF-8."""
    return _fitted(database, f"{_VERIFYING}{at.astimezone(UTC):{_TIME}}")


def kept_name(database: str, at: datetime, taken: Collection[str] = ()) -> str:
    """What a replaced database is called, at most 63 bytes of UTF-8; none of the names that are `taken`."""
    suffix, number = f"{_BEFORE}{at.astimezone(UTC):{_TIME}}", 1
    name = _fitted(database, suffix)
    while name in taken:
        number += 1
        name = _fitted(database, f"{suffix}_{number}")
    return name


def is_scratch_name(name: str, database: str) -> bool:
    """Whether `name` is what `scratch_name` calls a scratch of `database`, at whatever time."""
    return _is_named(name, database, _RESTORING)


def is_drill_name(name: str, database: str) -> bool:
    """Whether `name` is what `drill_name` calls a drill's scratch of `database`, at whatever time."""
    return _is_named(name, database, _VERIFYING)


def _is_named(name: str, database: str, sign: str) -> bool:
    time = name.rpartition(sign)[2]
    return bool(re.fullmatch(_TIME_PATTERN, time, re.ASCII)) and name == _fitted(database, f"{sign}{time}")


def _fitted(database: str, suffix: str) -> str:
    if len(f"{database}{suffix}".encode()) <= LONGEST:
        return database + suffix
    ending = f"_{hashlib.sha256(database.encode()).hexdigest()[:8]}{suffix}"
    return database.encode()[: LONGEST - len(ending)].decode(errors="ignore") + ending
