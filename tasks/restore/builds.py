"""Indexes, keys and foreign keys of large tables, which several sessions make at once.

Indexes and keys depend on nothing but tables, rows and functions; foreign keys also on keys. So those of one sort wait
until an entry of another kind comes, and are made then. Two that lock one table against each other are never made at
the same time, and keep their order. An entry that fails is tried once more, by itself: what it shared the server with
may have been the cause, such as a lock.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tasks.errors import RestoreFailed, RestoreRefused
from tasks.restore.crew import Psqls
from tasks.restore.dump_reader import Entry
from tasks.restore.tables.entry_text import concern_of, statement
from tasks.restore.tables.patterns import TableName, name_in
from tasks.storage.backup_values import TableData, raw_name

#: Bytes of rows in the dump from which on a table is worth several sessions. What belongs to smaller ones is soon made.
LARGE_TABLE = 4 << 20
_CODEC = "utf-8"
_KINDS = ("INDEX", "CONSTRAINT", "FK CONSTRAINT")
_LOOKS_EVERY = 0.01  # seconds
_KEY = re.compile(r"ALTER TABLE [^\n]+\n +ADD CONSTRAINT [^\n]*? (?:PRIMARY KEY|UNIQUE|EXCLUDE)\b")
#: CREATE INDEX and nothing else, such as a CLUSTER ON.
_INDEX_ALONE = re.compile(r"""CREATE (?:UNIQUE )?INDEX (?:[^'";]|'[^']*'|"[^"]*")*;\s*(?:--\n)?\s*\Z""")
_COMMENT = re.compile("COMMENT ON (?:INDEX|CONSTRAINT) ")


@dataclass(frozen=True)
class Build:
    """An entry that makes an index, a key or a foreign key."""

    entry: Entry
    text: bytes
    sort: str
    """`index` or `foreign key`."""
    tables: frozenset[TableName]
    """Those that it locks."""
    shares: bool
    """Whether another one like it may work on the same table at the same time."""
    size: int = 0
    """Bytes of rows that it reads."""


class Sizes:
    """The bytes of each table's rows in the dump."""

    def __init__(self, tables: Iterable[TableData]) -> None:
        self._sizes: Counter[TableName] = Counter()
        for table in tables:
            self._sizes[name_in(raw_name(table.name))] += table.end - table.start

    def of(self, tables: Collection[TableName]) -> int:
        """The bytes of all the tables."""
        return sum(self._sizes[table] for table in tables)


def build_of(entry: Entry, text: bytes, sizes: Sizes) -> Build | None:
    """What the entry makes; None when it is an entry of another kind."""
    if entry.kind not in _KINDS:
        return None
    concern, words = concern_of(entry.kind, text, _CODEC), statement(text, _CODEC)
    if concern.table is None:
        return None
    if entry.kind == "FK CONSTRAINT" and concern.other is not None:
        tables, sort, shares = frozenset((concern.table, concern.other)), "foreign key", False
    elif entry.kind == "INDEX" or (entry.kind == "CONSTRAINT" and _KEY.match(words)):
        tables, sort, shares = frozenset((concern.table,)), "index", bool(_INDEX_ALONE.match(words))
    else:
        return None
    return Build(entry, text, sort, tables, shares, sizes.of(tables))


def is_about_build(kind: str, text: bytes) -> bool:
    """Whether the entry comments an index or a constraint, and can wait until that is made."""
    return kind == "COMMENT" and bool(_COMMENT.match(statement(text, _CODEC)))


def next_of(waiting: Sequence[Build], under_way: Iterable[Build]) -> Build | None:
    """The largest of those that nothing under way hinders, and nothing that waits and comes before it. Pure."""
    shared: dict[TableName, bool] = {}
    for build in under_way:
        _lock(build, shared)
    free = []
    for build in waiting:
        if all(build.shares and shared[table] for table in build.tables & shared.keys()):
            free.append(build)
        _lock(build, shared)
    return max(free, key=lambda build: build.size, default=None)


def _lock(build: Build, shared: dict[TableName, bool]) -> None:
    """Adds the tables of the build to those that are locked, each with whether others may work on it too."""
    shared.update({table: build.shares and shared.get(table, True) for table in build.tables})


def make_at_once(builds: Sequence[Build], psqls: Sequence[Psqls], note: Callable[[Build], None]) -> list[Build]:
    """Makes them, each in a transaction of its own; returns those that failed, in their order.

    `note` gets each that the server has committed. Raises RestoreFailed, RestoreRefused or BackupDamaged for what is no
    entry's fault.
    """
    waiting, failed = list(builds), list[Build]()
    while waiting:
        failed += _make(waiting, _ready(psqls), note)
    return sorted(failed, key=lambda build: build.entry.number)


def _ready(psqls: Sequence[Psqls]) -> list[Psqls]:
    """Those that are connected, or can be now. To be called while none is at work.

    A loader can log in for the moment in which one connects, and code of the database must not make use of that.
    The first must connect; without the others there is less help. Raises RestoreFailed or RestoreRefused.
    """
    first, *others = psqls
    first.session()
    return [first, *(psql for psql in others if psql.is_connected())]


def _make(waiting: list[Build], idle: list[Psqls], note: Callable[[Build], None]) -> list[Build]:
    """Takes from those that wait until none does or no psql is left; returns those that failed."""
    under_way: dict[Psqls, Build] = {}
    failed: list[Build] = []
    while True:
        while idle and (build := next_of(waiting, under_way.values())):
            waiting.remove(build)
            under_way[idle[-1]] = build
            _begin(idle.pop(), build)
        if not under_way:
            return failed
        for psql in _done(under_way):
            build = under_way.pop(psql)
            if _has_made(psql):
                note(build)
                idle.append(psql)
            else:
                failed.append(build)


def _begin(psql: Psqls, build: Build) -> None:
    with suppress(BrokenPipeError):  # it has ended, which shows soon
        psql.session().begin_all([b"BEGIN;\n", build.text, b"\n", b"COMMIT;\n"])


def _done(under_way: Collection[Psqls]) -> list[Psqls]:
    """Waits until at least one is done, or has ended."""
    while True:
        if done := [psql for psql in under_way if not psql.session().is_at_work(_LOOKS_EVERY)]:
            return done


def _has_made(psql: Psqls) -> bool:
    """Whether the server took the entry. Raises for what is no entry's fault."""
    try:
        psql.session().end_all()
    except (BrokenPipeError, RestoreFailed, RestoreRefused):
        psql.fail_beside_others()
        return False
    return True
