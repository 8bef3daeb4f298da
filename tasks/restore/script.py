"""What psql is given beside the dump itself, and which pieces of the dump it gets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from tasks.restore.dump_reader import Piece


class Selection(Protocol):
    """Decides which pieces of a dump go into psql; may hold pieces back until it knows."""

    def take(self, piece: Piece) -> Iterable[bytes]:
        """What goes in now."""

    def finish(self) -> Iterable[bytes]:
        """What was held back and goes in at the end of the dump."""


class Everything:
    """All of the dump."""

    def take(self, piece: Piece) -> Iterable[bytes]:
        return (piece.data,)

    def finish(self) -> Iterable[bytes]:
        return ()


@dataclass(frozen=True)
class Script:
    """One transaction: `before`, the selected pieces of the dump, `after`; all in SQL, in UTF-8.

    `skipped` are ranges of the plain text (start, end) that need not be read at all: rows of tables not chosen.
    """

    before: bytes = b""
    selection: Selection = field(default_factory=Everything)
    after: bytes = b""
    skipped: tuple[tuple[int, int], ...] = ()
