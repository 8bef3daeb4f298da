"""Patterns for the databases of a server. Pure.

*          every database
shop_*     `*` stands for any text, `?` for any character; small and capital letters differ
!test_*    not these, whatever else names them
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tasks.errors import BadSetting

_WILD = {"*": ".*", "?": "."}


@dataclass(frozen=True)
class DatabasePatterns:
    """Which databases of a server a plan backs up; without any pattern, the one in its address alone."""

    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.wanted or self.unwanted)

    def mean(self, database: str) -> bool:
        """Whether a pattern names it, or none without `!` is there, and none with `!` names it."""
        return not _named(self.unwanted, database) and (_named(self.wanted, database) or not self.wanted)

    def name_exactly(self, database: str) -> bool:
        """Whether it is meant, and a pattern without `*` and `?` is its name."""
        return database in self.wanted and self.mean(database)


def checked_databases(texts: Iterable[str]) -> DatabasePatterns:
    """The patterns of a plan. Raises BadSetting for one that names no database."""
    patterns = [text.strip() for text in texts]
    for pattern in patterns:
        if not pattern.removeprefix("!") or "\0" in pattern:
            raise BadSetting(
                f"databases has {pattern!r}, which names no database: write a name, or a pattern such as *, shop_* "
                "or !test_*."
            )
    wanted = tuple(pattern for pattern in patterns if not pattern.startswith("!"))
    return DatabasePatterns(wanted, tuple(pattern[1:] for pattern in patterns if pattern.startswith("!")))


def _named(patterns: Collection[str], database: str) -> bool:
    return any(re.fullmatch(_expression(pattern), database, re.DOTALL) for pattern in patterns)


def _expression(pattern: str) -> str:
    return "".join(_WILD.get(character) or re.escape(character) for character in pattern)
