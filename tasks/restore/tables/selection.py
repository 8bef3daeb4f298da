"""Lets through what belongs to chosen tables, entry by entry, as the statements of the dump themselves show.

The definitions are held back until the first rows, or the first thing that follows them: only then is known which
sequences the tables own, and which tables are partitions of which.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence

from tasks.backup.dump import PYTHON_CODECS
from tasks.errors import BadSetting
from tasks.restore.dump_reader import NO_ENTRY, Entry, Piece
from tasks.restore.entries import LeftOut
from tasks.restore.tables.entry_text import Concern, concern_of, split_trailing
from tasks.restore.tables.patterns import Pattern, TableName, name_in, partitions_of, written_name
from tasks.storage.backup_values import StoredBackup

#: With the first entry of one of these kinds, all definitions have been seen.
_AFTER_DEFINITIONS = {
    "TABLE DATA",
    "SEQUENCE SET",
    "BLOBS",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "STATISTICS",
    "STATISTICS DATA",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "PUBLICATION",
    "PUBLICATION TABLE",
    "MATERIALIZED VIEW DATA",
    "EVENT TRIGGER",
}
_TAIL = 4096  # bytes that are kept of a long text that is left out


class TableSelection(ABC):
    """What both modes share: puts entries together from pieces, and works out which tables are wanted."""

    def __init__(
        self, backup: StoredBackup, patterns: Sequence[str], chosen: Collection[str], left_out: LeftOut | None = None
    ) -> None:
        self._codec = PYTHON_CODECS.get(backup.database.encoding, "utf-8")
        self._patterns = [Pattern.parse(pattern) for pattern in patterns]
        self._with_rows = {name_in(table.name) for table in backup.tables}
        self._chosen = {name_in(name) for name in chosen}
        self._left_out = left_out or LeftOut()
        self._left: list[tuple[Entry, Concern]] = []
        self._entry = NO_ENTRY
        self._text = bytearray()
        self._passing: bool | None = None
        self.is_resolved = False
        self._tables: set[TableName] = set()
        self.parents: dict[TableName, TableName] = {}
        """Partition → what it is a partition of."""
        self._indexes: set[TableName] = set()
        self._statistics: set[TableName] = set()
        self.wanted: set[TableName] = set()
        """The chosen tables, partitioned ones and partitions among them; known once the definitions have been seen."""

    @abstractmethod
    def definition(self, concern: Concern, body: Piece) -> Iterable[Piece]:
        """What goes in of an entry that comes before `resolved`."""

    @abstractmethod
    def resolved(self) -> Iterable[Piece]:
        """What goes in when `wanted` has become known."""

    @abstractmethod
    def later(self, concern: Concern, body: Piece) -> Iterable[Piece]:
        """What goes in of an entry that comes after `resolved`."""

    @abstractmethod
    def is_theirs(self, concern: Concern) -> bool:
        """Whether an entry goes in for the sake of the chosen tables; known once `wanted` is."""

    def settings(self, text: bytes) -> Iterable[Piece]:
        """What goes in, and when, of settings that are for later entries."""
        return (own(text),) if text else ()

    def take(self, piece: Piece) -> Iterable[Piece]:
        """What goes in now. Raises BadSetting for partitions that the manifest does not list."""
        out: list[Piece] = []
        if piece.entry != self._entry:
            out += self._end()
            self._entry, self._passing = piece.entry, None
            if piece.entry.kind in _AFTER_DEFINITIONS:
                out += self._resolve()
        if piece.rows and self._passing is None:
            concern = concern_of("TABLE DATA", bytes(self._text), self._codec)
            self._passing = concern.table in self.wanted and not self._leaves(piece.entry, concern)
            out += [Piece(piece.entry, bytes(self._text), rows=False)] if self._passing else []
            self._text.clear()
        if self._passing:
            out.append(piece)
        elif not piece.rows:
            self._text += piece.data
            if piece.entry.kind == "BLOBS":
                del self._text[:-_TAIL]
        return out

    def finish(self) -> Iterable[Piece]:
        """What was held back."""
        held = [*self._end(), *self._resolve()]
        for entry, concern in self._left:
            if self.is_theirs(concern):
                self._left_out.note(entry)
        return held

    def owns(self, other: TableName | None) -> bool:
        """Whether an index or statistics of this name belong to a chosen table."""
        return other in self._indexes or other in self._statistics

    def in_sql(self, text: str) -> bytes:
        """The text as a string constant, in the dump's encoding."""
        return b"E'%b'" % text.replace("\\", "\\\\").replace("'", "''").encode(self._codec, "surrogateescape")

    def setting(self, name: str, names: Iterable[TableName]) -> Piece:
        """The statement that sets an array of names for the length of the transaction."""
        return own(
            b"SET LOCAL restore_tables.%b = %b;\n" % (name.encode(), self.in_sql(array_text(map(written_name, names))))
        )

    def _end(self) -> Iterable[Piece]:
        data, kind = bytes(self._text), self._entry.kind
        self._text.clear()
        if not kind or self._passing is not None:
            return [own(data if not kind else split_trailing(data)[1])]
        body, trailing = split_trailing(data)
        concern = concern_of(kind, body, self._codec)
        self._note(concern)
        if self._leaves(self._entry, concern):
            body = b""
        handled = self.later if self.is_resolved else self.definition
        return [*handled(concern, Piece(self._entry, body, rows=False)), *self.settings(trailing)]

    def _leaves(self, entry: Entry, concern: Concern) -> bool:
        """Whether the entry is left out, as somebody asked."""
        leaves = self._left_out.matches(entry)
        if leaves:
            self._left.append((entry, concern))
        return leaves

    def _note(self, concern: Concern) -> None:
        if concern.table is None:
            return
        if concern.kind in ("TABLE", "FOREIGN TABLE"):
            self._tables.add(concern.table)
        elif concern.kind == "TABLE ATTACH" and concern.other:
            self.parents[concern.other] = concern.table
        elif concern.kind in ("INDEX", "CONSTRAINT") and concern.table in self.wanted:
            self._indexes.add(TableName(concern.table.schema, concern.label))
        elif concern.kind == "STATISTICS" and concern.other and concern.table in self.wanted:
            self._statistics.add(concern.other)

    def _resolve(self) -> Iterable[Piece]:
        if self.is_resolved:
            return ()
        self.is_resolved = True
        shown = {name: self._shown(name) for name in self._tables}
        meant = {
            name
            for name, seen in shown.items()
            if seen in self._chosen or any(pattern.matches(seen) for pattern in self._patterns)
        }
        self.wanted = partitions_of(meant, self.parents) | (self._chosen - set(shown.values()))
        unknown = {name for name in self.wanted if shown.get(name) in self._with_rows - self._chosen}
        if unknown:
            names = ", ".join(sorted(written_name(name) for name in unknown)[:10])
            raise BadSetting(
                "The chosen tables have partitions that the backup's manifest does not list: "
                f"name them as well: {names}."
            )
        return self.resolved()

    def _shown(self, name: TableName) -> TableName:
        """The name as the manifest shows it."""
        parts = (part.encode(self._codec, "surrogateescape") for part in (name.schema, name.table))
        return TableName(*(part.decode(self._codec, "backslashreplace") for part in parts))


def own(statements: bytes) -> Piece:
    """Statements that belong to no entry."""
    return Piece(NO_ENTRY, statements, rows=False)


def array_text(elements: Iterable[str]) -> str:
    """The elements as PostgreSQL writes an array of texts."""
    quoted = (element.replace("\\", "\\\\").replace('"', '\\"') for element in elements)
    return "{" + ",".join(f'"{element}"' for element in quoted) + "}"


def unread(backup: StoredBackup, chosen: Collection[str]) -> tuple[tuple[int, int], ...]:
    """The ranges of the plain text that hold rows of other tables."""
    wanted = set(chosen)
    others = (table for table in backup.tables if table.name not in wanted and table.end > table.start)
    return tuple((table.start, table.end) for table in others)
