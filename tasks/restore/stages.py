"""Loads a whole dump into a scratch database, entry by entry, and accounts for each of them.

A scratch database is nobody's yet, so it need not be one transaction: few locks are held at a time, and an entry that
fails does not take the others with it. All failures are collected, so that one run names them all.

    group       consecutive entries in one transaction; when it fails, each of them is tried by itself
    stream      one entry that is too large to keep: a transaction of its own, such as the rows of a large table
    builds      indexes, keys and foreign keys of large tables, which several sessions make at once (`builds`)

psql stops at the first error, so no row of a COPY that failed is ever taken for a command. A new psql then goes on
with the next entry, after what the dump has set for its session.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from typing import Protocol

from tasks.errors import RestoreRefused
from tasks.restore.builds import LARGE_TABLE, Build, Sizes, build_of, is_about_build, make_at_once
from tasks.restore.crew import Crew
from tasks.restore.dump_reader import NO_ENTRY, Entry, Piece
from tasks.restore.entries import READ_ROWS, FailedEntry, LeftOut, entry_name
from tasks.restore.hands import Turn
from tasks.restore.psql_session import PsqlSession
from tasks.restore.tables.entry_text import COPY_HEAD, is_about_event_trigger, split_trailing
from tasks.restore.values import LARGE

_GROUP_ENTRIES = 100
_GROUP_SECONDS = 0.5
#: Entries of some hundred kilobytes at most, of which every line may have to be changed.
_KEPT_WHOLE = ("BLOB METADATA",)
_TAIL = 4096  # bytes: what pg_dump writes behind an entry for those that follow is shorter
_SETTING = re.compile(rb"SET (\w+) = [^\n]*;\n")


class Remaining(Protocol):
    """Which entries are to be restored, and what notes that one is."""

    def __contains__(self, entry: Entry) -> bool: ...

    @property
    def is_all(self) -> bool:
        """Whether nothing was restored before."""

    def note(self, entry: Entry, turn: Turn) -> bytes:
        """A statement for the entry's own transaction."""

    def done(self, entry: Entry) -> None:
        """The transaction was committed."""


class Stages:
    """Takes the pieces of a dump in order; afterwards `failed` holds the entries that the server did not take."""

    def __init__(
        self,
        crew: Crew,
        left_out: LeftOut,
        freezable: Callable[[], Collection[bytes]],
        remaining: Remaining,
        sizes: Sizes,
    ) -> None:
        """`freezable` gives the tables whose rows can be frozen, once they are made, as COPY writes their names."""
        self.failed: list[FailedEntry] = []
        self._crew, self._left_out, self._remaining, self._ask_freezable = crew, left_out, remaining, freezable
        crew.settles(self._end_group)
        self._freezable: frozenset[bytes] | None = None
        self._entry = NO_ENTRY
        self._text = bytearray()
        self._head = 0  # bytes of `_text` before the first row; 0: there is no row
        self._streams = self._passes_over = False
        self._turn: Turn = "loader"  # of the group, or of the entry that is streamed
        self._owners: list[tuple[int, bytes]] = []  # numbers of entries, and what gives them their owners
        self._taken: list[bytes] = []  # statements that take back what an earlier restore has made
        self._later: list[tuple[Entry, bytes]] = []
        self._handed_over = False
        self._event_triggers: list[tuple[Entry, bytes]] = []  # for the very end: what follows on them would fire them
        self._group: list[tuple[Entry, bytes]] = []
        self._group_failed = False
        self._sizes = sizes
        self._builds: list[Build] = []
        self._behind_builds: list[tuple[Entry, bytes]] = []
        self._began = 0.0
        self._open: set[int] = set()  # numbers of entries of which nothing is known yet

    def take(self, piece: Piece) -> None:
        """Sends the piece, or keeps it until its entry is whole. Raises RestoreFailed for what another try may cure."""
        if piece.entry != self._entry:
            self._end_entry()
            self._entry = piece.entry
            self._passes_over = piece.entry.number > 0 and not self._is_wanted(piece.entry)
            if piece.entry.number and not self._passes_over:
                self._open.add(piece.entry.number)
        if piece.rows and self._passes_over:
            return
        if piece.rows and self._streams:
            self._put([bytes(self._text), piece.data])
            self._text.clear()
            return
        if piece.rows and not self._head:
            self._head = len(self._text)
        self._text += piece.data
        if self._passes_over:
            del self._text[:-_TAIL]
        elif self._streams or (len(self._text) > LARGE and piece.entry.number and piece.entry.kind not in _KEPT_WHOLE):
            self._stream()

    def finish(self) -> None:
        """Returns when each entry was committed, or is among those that failed. Raises RestoreRefused if one is not."""
        self._end_entry()
        self._hand_over()
        for entry, text in self._event_triggers:
            share = self._crew.share(entry.kind, text)
            self._run(entry, share.turn, share.text)
        self._end_group()
        self._crew.finish()
        if self._open:
            raise RestoreRefused(
                f"{len(self._open)} entries of the dump were neither restored nor refused: nothing was replaced. This "
                "is a fault of this program: please report it, with the log of this run."
            )

    def _is_wanted(self, entry: Entry) -> bool:
        remains = entry in self._remaining
        left = self._left_out.takes(entry, is_there=not remains)  # asked of each, so that a name that none has is known
        return remains and not left

    def _end_entry(self) -> None:
        entry, (body, trailing) = self._entry, split_trailing(bytes(self._text))
        self._text.clear()
        if entry.number == 0:
            self._crew.keep(b"", body)
        elif self._streams:
            self._end_stream(body)
        elif not self._passes_over:
            self._add(entry, body)
        elif entry not in self._remaining:
            self._take_back(entry, body)
        self._head, self._streams, self._passes_over = 0, False, False
        settings = list(_SETTING.finditer(trailing))
        if settings:
            self._settle()
        for setting in settings:
            self._crew.keep(setting[1], setting[0])

    # --- groups

    def _add(self, entry: Entry, text: bytes) -> None:
        if is_about_event_trigger(entry.kind, text):
            self._event_triggers.append((entry, text))
            return
        share = self._crew.share(entry.kind, text)
        if share.turn == "later" and not self._handed_over:
            self._later.append((entry, text))
            return
        if share.turn == "last":
            self._hand_over()
        if share.owner:
            self._owners.append((entry.number, share.owner))
        self._run(entry, share.turn, share.text)

    def _run(self, entry: Entry, turn: Turn, text: bytes) -> None:
        if not self._remaining.is_all:
            self._run_alone(entry, turn, text)
            return
        if self._waits(entry, turn, text):
            return
        if self._crew.of(turn) is not self._crew.of(self._turn):
            self._end_group()
        if not self._group:
            self._began, self._turn = time.monotonic(), turn
        self._group.append((entry, text))
        self._in_group([b"BEGIN;\n"] * (len(self._group) == 1) + [text], wait=entry.kind in READ_ROWS)
        if len(self._group) >= _GROUP_ENTRIES or time.monotonic() - self._began > _GROUP_SECONDS:
            self._end_group()

    def _in_group(self, texts: list[bytes], wait: bool) -> None:
        """Sends to the psql of the group, unless that has failed."""
        if self._group_failed:
            return
        psqls = self._crew.of(self._turn)
        session = psqls.session()  # if psql cannot even begin, that is no entry's fault
        try:
            session.send_all(texts)
            if wait:
                session.run_all(())
        except (BrokenPipeError, RestoreRefused):
            psqls.failure()
            self._group_failed = True

    def _end_group(self) -> None:
        if not self._group:
            return
        self._in_group([b"COMMIT;\n"], wait=True)
        group, failed = self._group, self._group_failed
        self._group, self._group_failed = [], False
        if not failed:
            self._open.difference_update(entry.number for entry, _ in group)
            return
        for entry, text in group:
            self._run_alone(entry, self._turn, text)

    def _run_alone(self, entry: Entry, turn: Turn, text: bytes) -> None:
        self._own_taken()
        work = [b"BEGIN;\n", text, b"\n", self._remaining.note(entry, turn), b"COMMIT;\n"]
        if self._in_own_transaction(entry, turn, lambda session: session.run_all(work)):
            self._remaining.done(entry)
        self._open.discard(entry.number)

    def _in_own_transaction(self, entry: Entry, turn: Turn, work: Callable[[PsqlSession], None]) -> bool:
        """Whether `work` of an entry succeeded; else its error is noted."""
        psqls = self._crew.of(turn)
        session = psqls.session()
        try:
            work(session)
        except (BrokenPipeError, RestoreRefused):
            error = psqls.failure()
            reason = error.sentence(entry.kind in READ_ROWS)
            self.failed.append(FailedEntry(entry.number, entry_name(entry), error.sqlstate, reason))
            return False
        return True

    # --- builds

    def _waits(self, entry: Entry, turn: Turn, text: bytes) -> bool:
        """Whether the entry waits, to be made at once with others; what does not may end the waiting of others."""
        if len(self._crew.loaders) == 1 or self._handed_over:
            return False
        build = build_of(entry, text, self._sizes) if turn == "loader" else None
        if build is None and self._builds and turn == "loader" and is_about_build(entry.kind, text):
            self._behind_builds.append((entry, text))
            return True
        if build is None or (self._builds and self._builds[0].sort != build.sort):
            self._make_builds()
        if build is None or build.size < LARGE_TABLE:
            return False
        self._builds.append(build)
        return True

    def _make_builds(self) -> None:
        builds, self._builds = self._builds, []
        if not builds:
            return
        self._end_group()
        if len(builds) > 1:
            builds = make_at_once(builds, self._crew.loaders, lambda build: self._open.discard(build.entry.number))
        for build in builds:
            self._run_alone(build.entry, "loader", build.text)
        behind, self._behind_builds = self._behind_builds, []
        for entry, text in behind:
            self._run(entry, "loader", text)

    def _settle(self) -> None:
        """All that came so far is done."""
        self._make_builds()
        self._end_group()

    # --- owners

    def _take_back(self, entry: Entry, text: bytes) -> None:
        """What an earlier restore has made is the loader's while the rest is restored."""
        take, give = self._crew.taken_back(text)
        if take:
            self._taken.append(take)
            self._owners.append((entry.number, give))

    def _own_taken(self) -> None:
        taken, self._taken = self._taken, []
        self._crew.own(taken)

    def _hand_over(self) -> None:
        """Once: everything gets its owner, then what waited for that is done."""
        if self._handed_over:
            return
        self._settle()
        self._handed_over, self._taken = True, []
        failed = {entry.number for entry in self.failed}
        self._crew.hand_over([owner for number, owner in self._owners if number not in failed])
        for entry, text in self._later:
            self._run(entry, "later", text)
        self._later = []

    # --- streams

    def _stream(self) -> None:
        """Sends what there is of the entry, without its end, which may be for later entries."""
        if not self._streams:
            self._settle()
            self._own_taken()
            self._turn = self._crew.share(self._entry.kind, bytes(self._text)).turn
            if self._turn == "last":
                self._hand_over()
            self._streams = True
            self._put([b"BEGIN;\n", self._frozen(bytes(self._text[: self._head]))])
            del self._text[: self._head]
        self._put([bytes(self._text[:-_TAIL])])
        del self._text[:-_TAIL]

    def _put(self, texts: list[bytes]) -> None:
        if not self._passes_over:
            self._passes_over = not self._in_own_transaction(
                self._entry, self._turn, lambda session: session.send_all(texts)
            )

    def _end_stream(self, rest: bytes) -> None:
        entry, turn = self._entry, self._turn
        self._open.discard(entry.number)
        if self._passes_over:
            return
        share = self._crew.ending(turn, rest)
        work = [share.text, b"\n", self._remaining.note(entry, turn), b"COMMIT;\n"]
        if self._in_own_transaction(entry, turn, lambda session: session.run_all(work)):
            self._remaining.done(entry)
            if share.owner:
                self._owners.append((entry.number, share.owner))

    def _frozen(self, head: bytes) -> bytes:
        """The text before the rows; where the table allows it, its rows are frozen as they are copied."""
        copy = COPY_HEAD.search(head)
        if copy is None:
            return head
        if self._freezable is None:
            self._freezable = frozenset(self._ask_freezable())
        if copy["table"] not in self._freezable:
            return head
        return head[: copy.start()] + b"TRUNCATE ONLY %b;\n%b WITH (FREEZE);\n" % (copy["table"], copy["statement"])
