"""Which entry of a dump psql was at, by the line of its input that its message names."""

from __future__ import annotations

from bisect import bisect_right

from tasks.restore.dump_reader import NO_ENTRY, Entry


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
