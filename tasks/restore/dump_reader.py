"""Reads a dump on its way into psql: cuts it into its entries, without the lines that psql must not get.

Three kinds of lines of pg_dump's own are taken out: the BEGIN and COMMIT that it writes around large objects, which
would end the transaction that the restore runs in; `SET lock_timeout = 0`, which would let it wait forever; and
`SET transaction_timeout = 0` for servers before 17, which do not know it. So is the pair of `\\restrict` and
`\\unrestrict`, whose place our own pair takes. Every other backslash command, and every statement that pg_dump does not
write in that way, is refused: psql would run it on this machine, or read on in another way than this reader.

Rows that go into tables which the same transaction made may be frozen as they are copied (COPY's FREEZE): no later
scan has to write to them once more, neither of a new index nor of the users.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tasks.backup.scanner import DumpScanner
from tasks.errors import BackupDamaged
from tasks.restore.dump_statements import ENTRY_LINE, HEAD, SIMPLE, STATEMENT
from tasks.storage.backup_values import TableData

_ENTRY = re.compile(
    ENTRY_LINE + rb"(?P<tag>.*); Type: (?P<kind>[A-Z][A-Z ]*); Schema: (?P<schema>.*?)(?:; Owner: (?P<owner>.*))?\n"
)
_UNRESTRICT = re.compile(rb"\\unrestrict [A-Za-z0-9]+\n\n")
_RESTRICT = re.compile(rb"\\restrict [A-Za-z0-9]+\n")
_TRANSACTION_TIMEOUT_SINCE = 170000
_SHOWN = 64  # bytes of what was refused
_FREEZE = b" WITH (FREEZE)"


@dataclass(frozen=True)
class Entry:
    """One entry of the dump, as the comment of pg_dump names it; number 0 is the text before the first entry.

    `kind` is what stands after `Type:`. Tags are not quoted, and line ends in them are blanks.
    """

    number: int
    kind: str
    schema: str
    tag: str
    owner: str = ""


#: What is not of the dump: statements of the restore's own.
NO_ENTRY = Entry(0, "", "-", "")


@dataclass(frozen=True)
class Piece:
    """Consecutive text of one entry. `rows` is true for the lines of COPY data, not for the statement and the `\\.`."""

    entry: Entry
    data: bytes
    rows: bool


@dataclass(frozen=True)
class _Mark:
    """How the text from offset `at` of the dump on is handled; `inserted` goes before it."""

    at: int
    entry: Entry
    rows: bool = False
    left_out: bool = False
    inserted: bytes = b""


class DumpReader:
    """Takes the plain text in chunks of any size; returns the pieces that psql gets, in order.

    With `freeze`, the rows of every table are frozen: only for a database that the same transaction fills.
    """

    def __init__(self, server_version: int, freeze: bool = False) -> None:
        self._scanner = _Scanner(server_version, freeze)

    def feed(self, chunk: bytes | memoryview) -> list[Piece]:
        """Pieces that are ready. Raises DumpFailed for what pg_dump does not write, BackupDamaged for a command."""
        self._scanner.feed(chunk)
        return self._scanner.taken()

    @property
    def tables(self) -> tuple[TableData, ...]:
        """The tables whose rows have been read to the end."""
        return self._scanner.tables

    @property
    def refused(self) -> bytes:
        """The beginning of what was refused; empty when nothing was, or when the text has ended too early."""
        return self._scanner.refused

    @property
    def reads_as(self) -> str:
        """standard_conforming_strings and client_encoding that the dump sets for psql, such as `on UTF8`."""
        return self._scanner.reads_as

    def finish(self) -> list[Piece]:
        """The last pieces. Raises DumpFailed when the dump is not whole."""
        self._scanner.finish()
        self._scanner.pass_tail()
        return self._scanner.taken()


class _Scanner(DumpScanner):
    """Marks where entries and rows begin and end, and which text is left out."""

    simple, head = SIMPLE, HEAD

    def __init__(self, server_version: int, freeze: bool) -> None:
        super().__init__()
        self._freeze = freeze
        self._keeps_timeout = server_version >= _TRANSACTION_TIMEOUT_SINCE
        self._entry = NO_ENTRY
        self._encoding = "UTF8"
        self._rows = self._left_out = False
        self._marks: list[_Mark] = []
        self._pieces: list[Piece] = []
        self.refused = b""

    def taken(self) -> list[Piece]:
        """The pieces read since the last call."""
        taken, self._pieces = self._pieces, []
        return taken

    @property
    def reads_as(self) -> str:
        return f"{'off' if self._escapes else 'on'} {self._encoding}"

    def feed(self, chunk: bytes | memoryview) -> None:
        chunk = bytes(chunk)
        if (at := chunk.find(b"\0")) >= 0:  # psql reads no further in that line
            raise self._unwritten(len(self._text) + at)
        super().feed(chunk)

    def pass_tail(self) -> None:
        """Passes the text after the trailer, which has been checked."""
        text, self._text = _UNRESTRICT.sub(b"", self._text, count=1), b""
        self.passed(text, len(text))

    def special(self, kind: str, start: int, end: int) -> int:
        if kind == "ours":
            if not (self._keeps_timeout and self._text.startswith(b"SET transaction_timeout", start)):
                self._mark(start, left_out=True)
                self._mark(end)
            return end
        line_end = self._text.find(b"\n", start) + 1
        if not line_end:
            return -1
        if self._text.find(b"\r", start, line_end) >= 0:  # for psql, the comment ends there
            raise self._unwritten(start)
        if match := _ENTRY.fullmatch(self._text, start, line_end):
            words = {name: text.decode("utf-8", "replace") for name, text in match.groupdict(b"").items()}
            number = self._latest.number + 1
            entry = Entry(number, words["kind"], words["schema"], words["tag"], words["owner"])
            self._mark(start, entry=entry)
        return line_end

    def passed(self, text: bytes, end: int) -> None:
        at = 0
        while self._marks and self._marks[0].at <= self._base + end:
            mark = self._marks.pop(0)
            self._add(text[at : mark.at - self._base])
            at = mark.at - self._base
            self._entry, self._rows, self._left_out = mark.entry, mark.rows, mark.left_out
            self._add(mark.inserted)
        self._add(text[at:end])

    def _add(self, data: bytes) -> None:
        if data and not self._left_out:
            self._pieces.append(Piece(self._entry, data, self._rows))

    @property
    def _latest(self) -> Entry:
        return self._marks[-1].entry if self._marks else self._entry

    def _mark(self, at: int, entry: Entry | None = None, **handling: Any) -> None:
        """Adds a mark at offset `at` of `_text`."""
        self._marks.append(_Mark(self._base + at, entry or self._latest, **handling))

    def _read_copy_head(self) -> bool:
        done = super()._read_copy_head()
        if done:
            rows = self._start - self._base
            if self._freeze:
                self._mark(rows - len(b";\n"), inserted=_FREEZE)
            self._mark(rows, rows=True)
        return done

    def _read_copy_data(self) -> bool:
        done = super()._read_copy_data()
        if done:
            self._mark(self.tables[-1].end - self._base)
        return done

    def _check_statement(self, at: int) -> None:
        statement = STATEMENT.match(self._text, at)
        if statement is None or (statement["top"] and self._latest.number):
            raise self._unwritten(at)
        if statement["grants"] and not self._latest.kind.endswith("ACL"):
            raise self._unwritten(at)
        if statement["encoding"]:
            self._encoding = statement["encoding"].decode()

    def _enter(self, token: bytes, escaped: bool) -> None:
        if token == b"\\":
            raise self._unexpected()
        super()._enter(token, escaped)

    def _enter_block_comment(self, at: int) -> None:
        raise self._unwritten(at - len(b"/*"))

    def _read_meta(self) -> bool:
        end = self._text.find(b"\n", self._at) + 1
        if not end:
            return False
        if self._restrict_key or self._latest.number or not _RESTRICT.fullmatch(self._text, self._at, end):
            raise self._unexpected()
        self._mark(self._at, left_out=True)
        self._mark(end)
        return super()._read_meta()

    def _unwritten(self, at: int) -> BackupDamaged:
        self.refused = self._text[at : at + _SHOWN]
        return BackupDamaged(
            f"At byte {self._base + at} the dump holds what pg_dump does not write: nothing of it was run; restore "
            "another backup."
        )

    def _unexpected(self) -> BackupDamaged:
        self.refused = self._text[self._at : self._at + _SHOWN]
        return BackupDamaged(
            f"At byte {self._base + self._at} the dump holds a command for psql that pg_dump does not write: "
            "nothing of it was run; restore another backup."
        )
