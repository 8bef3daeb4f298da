"""The server's error that ended psql, as psql printed it, without values of rows.

psql ends at the first error, so the last message with an SQLSTATE is that error; what came before were warnings.
The messages are read in the form that `\\set VERBOSITY verbose` gives, which is the same in every language:
`psql:<stdin>:12: FEHLER:  23505: …`, and lines for details. Details (`Key (x)=(a)`, `Failing row contains …`) and the
context of a COPY show rows, so they are not repeated.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import takewhile

from tasks.postgres.server_errors import condition, may_show_values
from tasks.restore.dump_reader import NO_ENTRY, Entry

_MESSAGE = re.compile(r"^psql:<stdin>:(?P<line>\d+): (?P<severity>[^:\n]{1,30}):  (?P<code>[0-9A-Z]{5}): (?P<text>.*)$")
_NEXT = re.compile(r"^(?:psql:<stdin>:\d+: |LINE \d+: |[^\s:][^:\n]{0,30}:  )")
_DEPENDENT = "2B"
_NAMES = {"TABLE NAME": "table", "COLUMN NAME": "column", "CONSTRAINT NAME": "constraint"}


@dataclass(frozen=True)
class SqlError:
    """The server's error that ended psql."""

    sqlstate: str
    text: str
    """The primary message."""
    about: str = ""
    """Table, column and constraint that the server names."""
    line: int = 0
    """The line of psql's input that it had read up to."""
    dependents: str = ""
    """What depends on an object that was to be dropped, as the detail of such an error lists it."""

    @property
    def may_show_values(self) -> bool:
        """Whether the message may repeat a value of a row, when the statement reads rows."""
        return may_show_values(self.sqlstate)

    def sentence(self, reads_rows: bool) -> str:
        """The error in words. Where the statement reads rows, without a text that may repeat a value of one."""
        if not (reads_rows and self.may_show_values):
            return f"{self.text}{self.dependents} (SQLSTATE {self.sqlstate})"
        about = f" in {self.about}" if self.about else ""
        return f"{condition(self.sqlstate)}{about} (SQLSTATE {self.sqlstate})"


def last_error(printed: str) -> SqlError | None:
    """The error that ended psql; None when the server gave none, such as for a broken connection. Pure."""
    lines = printed.splitlines()
    for number in range(len(lines) - 1, -1, -1):
        if match := _MESSAGE.match(lines[number]):
            following = lines[number + 1 :]
            return SqlError(
                match["code"],
                _whole(match["text"], following),
                _about(following),
                int(match["line"]),
                _dependents(following) if match["code"].startswith(_DEPENDENT) else "",
            )
    return None


def warnings_in(printed: str) -> list[str]:
    """The server's warnings, without SQLSTATE; not the message that ended psql.

    A warning of a function may repeat a value of a row: of that one only the name of its condition is given.
    """
    lines, warnings = printed.splitlines(), []
    for number, line in enumerate(lines):
        match = _MESSAGE.match(line)
        if match and match["severity"] == "WARNING":
            following = takewhile(lambda after: not _MESSAGE.match(after), lines[number + 1 :])
            of_a_function = any(after.startswith("CONTEXT:") for after in following)
            text = f"{condition(match['code'])} of a function" if of_a_function else match["text"]
            warnings.append(f"WARNING:  {text}")
    return warnings


def _whole(first: str, following: list[str]) -> str:
    """A primary message of several lines, on one line."""
    words = [first]
    for line in following:
        if _NEXT.match(line):
            break
        words.append(line)
    return " ".join(" ".join(words).split())


def _about(following: list[str]) -> str:
    named = (line.partition(":  ") for line in following)
    return ", ".join(f"{_NAMES[label]} {name}" for label, _, name in named if label in _NAMES)


def _dependents(following: list[str]) -> str:
    for number, line in enumerate(following):
        if line.startswith("DETAIL:  "):
            return f" ({_whole(line.removeprefix('DETAIL:  '), following[number + 1 :])})"
    return ""


class SentLines:
    """Counts the lines that psql is sent, and remembers at which of them each entry begins."""

    def __init__(self) -> None:
        self._line = 1
        self._begins = [1]
        self._entries = [NO_ENTRY]

    def add(self, text: bytes, entry: Entry = NO_ENTRY) -> None:
        """`text` was sent; without an entry, it is the restore's own."""
        if entry.number != self._entries[-1].number:
            self._begins.append(self._line)
            self._entries.append(entry)
        self._line += text.count(b"\n")

    def entry_at(self, line: int) -> Entry:
        """The entry that the line belongs to; NO_ENTRY for the restore's own."""
        return self._entries[bisect_right(self._begins, line) - 1]
