"""Texts for people, in markdown: tables, names as they are, sizes that can be read. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

#: Where GitHub's markdown makes a link of its own accord; it looks for that after it has decoded entities.
_AUTOLINK = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=[\w.+-]@)(?=[-\w]+\.)", re.IGNORECASE)
_MARKUP = "|\\`*_{}[]()<>#+-!~&@:"


def cell(text: str) -> str:
    """`text` as it is, in a cell of a markdown table: no character of it is taken for markup, HTML or a link."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return "<!---->".join(_escaped(piece) for piece in _AUTOLINK.split(shown))


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


def facts(values: Mapping[str, str]) -> str:
    """A table of names and values, without the values that are empty."""
    return table(("", ""), [(name, value) for name, value in values.items() if value])


def human_bytes(count: float) -> str:
    """`1.5 MiB`, for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _escaped(text: str) -> str:
    return "".join(f"&#{ord(one)};" if one in _MARKUP else one for one in text)
