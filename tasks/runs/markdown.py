"""Texts for people, in markdown or for a terminal: tables, names as they are, sizes, times and durations. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

#: Where GitHub's markdown makes a link of its own accord; it looks for that after it has decoded entities.
_AUTOLINK = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=[\w.+-]@)(?=[-\w]+\.)", re.IGNORECASE)
#: Stands where there is nothing to say.
NONE = "–"
_MARKUP = "|\\`*_{}[]()<>#+-!~&@:"


def cell(text: str) -> str:
    """`text` as it is, in a cell of a markdown table: no character of it acts as markup, HTML or a link."""
    return "<!---->".join(_escaped(piece) for piece in _AUTOLINK.split(printable(text)))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], align: Sequence[str] | None = None, most: int | None = None
) -> str:
    """A markdown table with a line end at its end. Cells are markdown already: see `cell`.

    `align` has `left` or `right` for each column. Of more than `most` rows the first are shown, and the number of the
    rest.
    """
    shown = [*rows]
    rest = 0 if most is None else max(0, len(shown) - most)
    sides = ["---:" if side == "right" else "---" for side in align or ["left"] * len(columns)]
    first, *others = [f"| {' | '.join(line)} |\n" for line in (columns, *shown[: len(shown) - rest])]
    text = "".join([first, f"|{'|'.join(sides)}|\n", *others])
    return f"{text}\n… and {rest:,} more.\n" if rest else text


def columns(rows: Sequence[Sequence[str]]) -> str:
    """The rows as text for a terminal, each cell as wide as its column, without control characters."""
    shown = [[printable(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in shown)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def printable(text: str) -> str:
    """`text` on one line, without control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def facts(values: Mapping[str, str]) -> str:
    """A table of names and values, without the values that are empty."""
    return table(("", ""), [(name, value) for name, value in values.items() if value])


def human_bytes(count: float | None) -> str:
    """`1.5 MiB`, for people."""
    if count is None:
        return NONE
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def percent(part: float, whole: float) -> str:
    """`97 %`; 100 % and 0 % only where that is exact."""
    if not whole:
        return NONE
    share = 100 * part / whole
    if 99 <= share < 100 or 0 < share < 1:
        return f"{min(max(share, 0.1), 99.9):.1f} %"
    return f"{share:.0f} %"


def growth(before: int | None, after: int | None) -> str:
    """`+3.4 %`; `–` when there is nothing to compare."""
    if not before or after is None:
        return NONE
    change = 100 * (after - before) / before
    return f"×{after / before:.0f}" if change >= 1000 else f"{change:+.1f} %"


def moment(at: datetime | None, seconds: bool = False) -> str:
    """`2026-03-01 02:00`, in UTC."""
    form = "%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M"
    return NONE if at is None else f"{at.astimezone(UTC):{form}}"


def duration(seconds: float | None) -> str:
    """`0.8 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds is None:
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _escaped(text: str) -> str:
    return "".join(f"&#{ord(letter)};" if letter in _MARKUP else letter for letter in text)
