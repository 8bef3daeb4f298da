"""Reads a plain-format dump while its bytes pass, and says which tables it holds and whether it is whole.

The text is read as psql reads it: what stands inside a string, a quoted identifier, a function body or a
comment is never taken for a COPY statement, for the end of its data or for the end of the dump.

Two facts keep this fast and its memory small. Inside COPY data, only the line `\\.` is looked for and line ends
are counted, by one bulk search each. Elsewhere, whole simple statements are passed over at one go, and in others
only the next character that could begin or end something is looked for. At most the last word, the start of
one statement, or one COPY statement is carried from one chunk to the next.

psql takes a column named begin, end or case in the body of an SQL function (BEGIN ATOMIC) for the keyword. A dump
in which it therefore never finds the end of the function cannot be restored by psql, and is refused here.
"""

from __future__ import annotations

from collections.abc import Callable

from tasks.backup.dump_syntax import (
    BLANK,
    COMMENT_EDGE,
    COPY,
    COPY_BYTES,
    ESCAPED,
    HEAD,
    HEAD_BYTES,
    LINE_END,
    OPEN_ENDED,
    RESTRICT,
    ROUTINE_BLOCKS,
    ROUTINE_TOKEN,
    SIMPLE,
    TAIL,
    TAIL_BYTES,
    TOKEN,
    WORD_BYTES,
    end_of_data,
)
from tasks.errors import BackupSystemError, DumpFailed
from tasks.storage.backup_values import TableData


class DumpScanner:
    """Reads a dump in chunks of any size, cut anywhere; answers which tables it holds, and whether it is whole."""

    #: What is passed over at one go, and what may begin behind it; a reader with more to look for has its own.
    simple, head = SIMPLE, HEAD

    def __init__(self) -> None:
        self._text = b""  # what has been fed and not been read yet, from offset `_base` of the dump on
        self._base = 0
        self._at = 0  # where in `_text` reading goes on
        self._safe = 0  # where in `_text` the last whole token ends at the latest; 0: not looked for yet
        self._read: Callable[[], bool] = self._read_between
        self._inside = False  # a statement has begun, at offset `_begun` of the dump, and not ended
        self._begun = 0
        self._parens = 0
        self._routine_blocks: int | None = None  # open BEGIN and CASE of a function; None: not in a function
        self._comments = 0
        self._tag = b""
        self._escapes = False  # standard_conforming_strings is off
        self._restrict_key: bytes | None = None
        self._tables: list[TableData] = []
        self._table = ""
        self._start = 0
        self._line_ends = 0

    def feed(self, chunk: bytes | memoryview) -> None:
        """Read on. Raises DumpFailed when the text is not what pg_dump writes."""
        self._text = self._text + chunk if self._text else bytes(chunk)
        self._at = self._safe = 0
        while self._read():
            pass
        self.passed(self._text, self._at)
        self._base += self._at
        self._text = self._text[self._at :]

    def passed(self, text: bytes, end: int) -> None:
        """Called with what has been read for good: `text` up to `end`."""

    def special(self, kind: str, start: int, end: int) -> int:
        """Called for what `head` has found and this class does not know, between `start` and `end` of the text.

        Returns where reading goes on in it, or -1 when more of it is needed.
        """
        raise AssertionError((kind, start, end))

    def _check_statement(self, at: int) -> None:
        """Called where a statement begins, at offset `at` of the text; a reader may refuse it."""

    def _before_trailer(self, at: int) -> None:
        """Called where the trailer begins, at offset `at` of the text."""

    def finish(self) -> tuple[TableData, ...]:
        """The tables in the dump's order. Raises DumpFailed when the dump is not whole."""
        if self._read != self._read_tail:
            raise DumpFailed(f"The dump ends after {self.size} bytes {self._place()}; back up again.")
        tail = TAIL.match(self._text)
        if tail is None or tail["key"] != self._restrict_key:
            raise DumpFailed(
                f"The dump of {self.size} bytes does not end as pg_dump ends one after its trailer; back up again."
            )
        return tuple(self._tables)

    @property
    def size(self) -> int:
        """Bytes seen."""
        return self._base + len(self._text)

    @property
    def rows(self) -> int:
        """Rows seen, those of a table still being read among them."""
        return sum(table.rows for table in self._tables) + max(0, self._line_ends - 1)

    @property
    def tables(self) -> tuple[TableData, ...]:
        """The tables whose data has been read to the end."""
        return tuple(self._tables)

    def _place(self) -> str:
        if self._read == self._read_copy_data:
            return f"inside the data of table {self._table}"
        if self._read in (self._read_plain, self._read_escaped, self._read_dollar, self._read_identifier):
            return "inside a quoted string"
        if self._inside and self._routine_blocks:
            return f"inside the function body that begins at byte {self._begun}, of which psql sees no end"
        if self._inside or self._read == self._read_copy_head:
            return "inside a statement"
        return "without its trailer"

    def _last_safe(self) -> int:
        """Where reading of tokens stops for now: no token that begins before this place ends behind it."""
        if not self._safe:
            ending = self._text[-HEAD_BYTES:]
            if not ending.rstrip(OPEN_ENDED):
                ending = self._text
            self._safe = len(self._text) - len(ending) + len(ending.rstrip(OPEN_ENDED))
        return max(self._at, self._safe)

    # Each of the following reads on from `_at` and answers whether there is more to read in `_text`.

    def _read_between(self) -> bool:
        text = self._text
        skipped = (BLANK if self._escapes else self.simple).match(text, self._at)
        self._at = at = skipped.end() if skipped else self._at
        if at == len(text) or (len(text) - at < HEAD_BYTES and text.find(b"\n", at) < 0):
            return False
        head = self.head.match(text, at)
        kind = head.lastgroup if head else None
        if head is None or kind in (None, "strings", "routine"):
            if kind == "strings" and head is not None:
                self._escapes = head["strings"] == b"off"
            self._check_statement(at)
            self._inside, self._parens, self._begun = True, 0, self._base + at
            self._routine_blocks = 0 if kind == "routine" else None
            self._read = self._read_statement
        elif kind == "trailer":
            self._before_trailer(at)
            self._at = head.end()
            self._read = self._read_tail
        elif kind == "copy":
            self._read = self._read_copy_head
        elif kind == "block":
            self._enter_block_comment(head.end())
        elif kind in ("meta", "line"):
            self._read = self._read_meta if kind == "meta" else self._read_line_comment
        else:
            self._at = max(at, after := self.special(kind, at, head.end()))
            return after >= 0
        return True

    def _read_statement(self) -> bool:
        floor, safe = self._at, self._last_safe()
        token_in = TOKEN if self._routine_blocks is None else ROUTINE_TOKEN
        for found in token_in.finditer(self._text, floor, safe):
            token, at = found[0], found.end()
            if token == b"(":
                self._parens += 1
            elif token == b")":
                self._parens = max(0, self._parens - 1)
            elif token == b";":
                if not self._parens and not self._routine_blocks:
                    self._inside = False
                    self._read = self._read_between
                    self._at = at
                    return True
            elif token == b"\r":
                raise self._unwritten(found.start())  # within a line it continues strings for psql
            elif token[0] in b"'\"\\-/":
                self._at = at
                self._enter(token, escaped=token == b"'" and self._has_escapes(found.start(), floor))
                return True
            elif token[0] != 0x24:
                self._count_block(token.lower(), found.start(), floor)
            elif not self._continues_word(found.start(), floor):
                self._at, self._tag = at, token
                self._read = self._read_dollar
                return True
        self._at = safe
        return False

    def _enter(self, token: bytes, escaped: bool) -> None:
        if token == b"'":
            self._read = self._read_escaped if escaped else self._read_plain
        elif token == b'"':
            self._read = self._read_identifier
        elif token == b"/*":
            self._enter_block_comment(self._at)
        else:
            self._read = self._read_meta if token == b"\\" else self._read_line_comment

    def _continues_word(self, at: int, floor: int) -> bool:
        """Whether `at` is inside a word. Raises DumpFailed for 1$x$, 1E'x', 1begin: versions of psql differ."""
        start = at
        while start > floor and self._text[start - 1] in WORD_BYTES:
            start -= 1
        if start < at and self._text[start] in b"0123456789$":
            raise self._unwritten(start)
        return start < at

    def _has_escapes(self, quote: int, floor: int) -> bool:
        """Whether a backslash escapes in the string that begins with this quote."""
        mark = self._text[quote - 1 : quote] if quote > floor else b""
        if mark == b"&" and self._escapes:  # U&'...'
            raise self._unwritten(quote)
        if mark and mark in b"eEbBxX" and not self._continues_word(quote - 1, floor):
            return mark in b"eE"
        return self._escapes

    def _unwritten(self, at: int) -> BackupSystemError:
        """The error for what stands at offset `at` of `_text`."""
        return DumpFailed(f"At byte {self._base + at} the dump holds what pg_dump does not write; back up again.")

    def _count_block(self, word: bytes, start: int, floor: int) -> None:
        if word in ROUTINE_BLOCKS:
            self._continues_word(start, floor)
        blocks = self._routine_blocks or 0
        if self._parens:
            return
        if word == b"begin" or (word == b"case" and blocks):
            self._routine_blocks = blocks + 1
        elif word == b"end":
            self._routine_blocks = max(0, blocks - 1)

    def _read_plain(self) -> bool:
        return self._read_until(b"'")

    def _read_identifier(self) -> bool:
        return self._read_until(b'"')

    def _read_dollar(self) -> bool:
        return self._read_until(self._tag)

    def _read_until(self, end: bytes) -> bool:
        found = self._text.find(end, self._at)
        if found < 0:
            self._at = max(self._at, len(self._text) - len(end) + 1)
            return False
        self._at = found + len(end)
        self._read = self._read_statement
        return True

    def _read_escaped(self) -> bool:
        found = ESCAPED.match(self._text, self._at)
        self._at = found.end() if found else self._at
        if len(self._text) - self._at < 2:
            return False  # a last quote may be the first of two, a last backslash lacks what it escapes
        self._at += 1
        self._read = self._read_statement
        return True

    def _read_line_comment(self) -> bool:
        found = LINE_END.search(self._text, self._at)
        self._at = found.end() if found else len(self._text)
        return found is not None and self._leave()

    def _enter_block_comment(self, at: int) -> None:
        self._at, self._comments = at, 1
        self._read = self._read_block_comment

    def _read_block_comment(self) -> bool:
        safe = self._last_safe()
        for found in COMMENT_EDGE.finditer(self._text, self._at, safe):
            self._comments += 1 if found[0] == b"/*" else -1
            self._at = found.end()
            if not self._comments:
                return self._leave()
        self._at = safe
        return False

    def _read_meta(self) -> bool:
        end = self._text.find(b"\n", self._at)
        if end < 0:
            return False
        restrict = RESTRICT.match(self._text[self._at : end])
        if restrict and not self._inside:
            self._restrict_key = restrict[1]
        self._at = end + 1
        return self._leave()

    def _leave(self) -> bool:
        self._read = self._read_statement if self._inside else self._read_between
        return True

    def _read_copy_head(self) -> bool:
        text, at = self._text, self._at
        head = COPY.match(text, at) if text.find(b" FROM stdin;\n", at) >= 0 else None
        if head is None:
            if len(text) - at > COPY_BYTES:
                raise DumpFailed(f"At byte {self._base + at} the dump holds a COPY statement no pg_dump writes.")
            return False
        self._table = head[1].decode("utf-8", "surrogateescape")
        self._start = self._base + head.end()
        self._at = head.end() - 1  # the line end before the data: `\.` may be the first line
        self._line_ends = 0
        self._read = self._read_copy_data
        return True

    def _read_copy_data(self) -> bool:
        text, at = self._text, self._at
        end = end_of_data(text, at)
        if end >= 0 and text[end + 3 : end + 4] not in (b"", b"\n"):
            raise self._unwritten(end + 1)
        if end < 0 or end + 4 > len(text):
            self._at = max(at, len(text) - 3)
            self._line_ends += text.count(b"\n", at, self._at)
            return False
        rows = self._line_ends + text.count(b"\n", at, end + 1) - 1
        self._tables.append(TableData(self._table, rows, self._start, self._base + end + 1))
        self._line_ends = 0
        self._at = end + 4
        self._read = self._read_between
        return True

    def _read_tail(self) -> bool:
        if len(self._text) - self._at > TAIL_BYTES:
            raise DumpFailed(f"After its trailer, at byte {self._base + self._at}, the dump goes on.")
        return False
