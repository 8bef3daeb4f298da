"""The entries of a dump: their names as messages write them, which are left out, and which failed. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tasks.errors import EntriesFailed
from tasks.restore.dump_reader import Entry
from tasks.restore.tables.patterns import name_in, schema_pattern, unquoted

#: Kinds of entries that read rows, so that an error of theirs may repeat a value; or that hold a password.
READ_ROWS = frozenset(
    (
        "TABLE DATA",
        "BLOBS",
        "SEQUENCE SET",
        "INDEX",
        "CONSTRAINT",
        "CHECK CONSTRAINT",
        "FK CONSTRAINT",
        "TABLE ATTACH",
        "MATERIALIZED VIEW DATA",
        "STATISTICS DATA",
        "SUBSCRIPTION",
        "USER MAPPING",
    )
)
#: Kinds of entries that belong to no schema, and that what is in one may need.
_OF_NO_SCHEMA = frozenset(
    ("EXTENSION", "PROCEDURAL LANGUAGE", "ACCESS METHOD", "FOREIGN DATA WRAPPER", "SERVER", "USER MAPPING")
)
#: How the tags of comments and grants on these begin.
_ABOUT_THESE = ("EXTENSION ", "LANGUAGE ", "ACCESS METHOD ", "FOREIGN DATA WRAPPER ", "FOREIGN SERVER ", "SERVER ")
_NAMED_AT_MOST = 40
#: What to do about entries that failed.
_ADVICE = (
    "Nothing was replaced. Correct the cause and run the same restore again, or name the entries in `without` to leave "
    "them out: the rows that are loaded stay loaded for a day, and are not loaded again."
)


def entry_name(entry: Entry) -> str:
    """Kind, schema and name, such as `INDEX public.by_day` or `EXTENSION pg_cron`: what `without` takes."""
    return f"{entry.kind} {entry.tag}" if entry.schema in ("", "-") else f"{entry.kind} {entry.schema}.{entry.tag}"


def is_named(name: str, patterns: Sequence[str]) -> bool:
    """Whether an entry of this name is left out by one of `patterns`: names, with `*` and `?`."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True)
class FailedEntry:
    """An entry that the server did not take; nothing of it was done."""

    number: int
    name: str
    sqlstate: str
    """Empty when the server gave none."""
    reason: str
    """A sentence without a value of any row."""


class ChosenSchemas:
    """The schemas that are restored alone; without any, all are.

    With a schema come what belongs to it, and what belongs to no schema and may be needed: extensions with the schemas
    that they are in, languages, foreign servers. What spans schemas stays behind: publications, event triggers, casts,
    default privileges of the whole database, large objects. `pg_restore -n` leaves extensions behind too.
    """

    def __init__(self, patterns: Sequence[str] = (), of_extensions: Collection[str] = ()) -> None:
        """`patterns` are as psql takes them. Raises BadSetting for one that names no schema."""
        self._patterns = {written: schema_pattern(written) for written in patterns}
        self._of_extensions = frozenset(of_extensions)
        self._unused = set(self._patterns)

    def has(self, schema: str) -> bool:
        """Whether the schema is restored. Of each pattern it is remembered whether it has matched."""
        matching = {written for written, pattern in self._patterns.items() if pattern.fullmatch(schema)}
        self._unused -= matching
        return bool(matching) or not self._patterns

    def leaves_out(self, entry: Entry) -> bool:
        """Whether the entry belongs to another schema, or to none and is not needed."""
        if not self._patterns or not entry.number:
            return False
        if entry.schema not in ("", "-"):
            return not self.has(entry.schema) or entry.kind.startswith("PUBLICATION ")
        if entry.kind == "SCHEMA" or entry.tag.startswith("SCHEMA "):
            # pg_dump quotes the name in the tags of comments and grants alone.
            schema = entry.tag if entry.kind == "SCHEMA" else unquoted(entry.tag.removeprefix("SCHEMA "))
            return not self.has(schema) and schema not in self._of_extensions
        return entry.kind not in _OF_NO_SCHEMA and not entry.tag.startswith(_ABOUT_THESE)

    @property
    def unused(self) -> list[str]:
        """The patterns that have matched no schema of any entry."""
        return [written for written in self._patterns if written in self._unused]


_ALL = ChosenSchemas()


class LeftOut:
    """Which entries are left out: those that are named, and what the target can never take."""

    def __init__(
        self,
        patterns: Sequence[str] = (),
        foreign_superusers: Collection[str] = (),
        kinds: Collection[str] = (),
        schemas: ChosenSchemas = _ALL,
    ) -> None:
        """`patterns` are names, with `*` and `?`. Default privileges of `foreign_superusers` cannot be set.

        Entries of these `kinds` are left out, whatever their names, and what is not in one of `schemas`.
        """
        self._patterns, self._foreign, self._kinds = patterns, frozenset(foreign_superusers), frozenset(kinds)
        self._schemas = schemas
        self._used: set[str] = set()
        self.entries: list[tuple[int, str]] = []
        """Number and name of the entries left out so far."""
        self.too_late: list[str] = []
        """The entries that are named, and that an earlier restore has restored."""

    def takes(self, entry: Entry, is_there: bool = False) -> bool:
        """Whether the entry is left out; `is_there` says that an earlier restore has restored it."""
        named = self._is_named(entry)
        leaves = self._schemas.leaves_out(entry) or named or self._is_foreign(entry) or entry.kind in self._kinds
        if leaves and is_there and named:
            self.too_late.append(entry_name(entry))
        elif leaves and not is_there:
            self.note(entry)
        return leaves

    def matches(self, entry: Entry) -> bool:
        """The same for an entry that may not be wanted at all: `note` it, if it is."""
        return self._is_named(entry) or self._is_foreign(entry) or entry.kind in self._kinds

    def note(self, entry: Entry) -> None:
        """Counts the entry among those that were left out."""
        self.entries.append((entry.number, entry_name(entry)))

    def _is_named(self, entry: Entry) -> bool:
        name = entry_name(entry)
        used = {pattern for pattern in self._patterns if is_named(name, [pattern])}
        self._used |= used
        return bool(used)

    def _is_foreign(self, entry: Entry) -> bool:
        return entry.kind == "DEFAULT ACL" and entry.owner in self._foreign

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the entries left out so far."""
        return tuple(name for _, name in self.entries)

    @property
    def unused(self) -> list[str]:
        """The patterns that no entry has matched."""
        return [pattern for pattern in self._patterns if pattern not in self._used]

    @property
    def unused_schemas(self) -> list[str]:
        """The same of the schemas."""
        return self._schemas.unused


def rows_entry(table: str) -> str:
    """The name of the entry with the rows of a table, which is named as the manifest writes it. Pure."""
    name = name_in(table)
    return re.sub(r"[\r\n]", " ", f"TABLE DATA {name.schema}.{name.table}")


def entries_failed(
    filename: str, place: str, failed: Sequence[FailedEntry], unused: Sequence[str], unused_schemas: Sequence[str] = ()
) -> EntriesFailed:
    """The error for entries that failed, each named with its reason, and for names that no entry or schema has."""
    text = ""
    if failed:
        listed = "; ".join(f"{entry.name}: {entry.reason}" for entry in failed[:_NAMED_AT_MOST])
        more = f"; and {len(failed) - _NAMED_AT_MOST} more" if len(failed) > _NAMED_AT_MOST else ""
        count = "One entry" if len(failed) == 1 else f"{len(failed)} entries"
        text = f"{count} of {filename} could not be restored into {place}: {listed}{more}."
    if unused:
        text = f"{text} {no_such_entry(filename, unused)}".strip()
    if unused_schemas:
        text = f"{text} {filename} has nothing in a schema {', '.join(unused_schemas)} (schemas).".strip()
    return EntriesFailed(text, _ADVICE, [(entry.name, entry.sqlstate, entry.reason) for entry in failed])


def no_such_entry(filename: str, unused: Sequence[str]) -> str:
    """The sentence for names in `without` that no entry has. Pure."""
    return f"No entry of {filename} is called {', '.join(unused)} (without): write the name as a message writes it."
