"""Texts for people, in markdown: names as they are, sizes that can be read. Pure."""

from __future__ import annotations

import re

#: Where GitHub's markdown makes a link of its own accord; it looks for that after it has decoded entities.
_AUTOLINK = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=[\w.+-]@)(?=[-\w]+\.)", re.IGNORECASE)
_MARKUP = "|\\`*_{}[]()<>#+-!~&@:"


def cell(text: str) -> str:
    """`text` as it is, in a cell of a markdown table: no character of it is taken for markup, HTML or a link."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return "<!---->".join(_escaped(piece) for piece in _AUTOLINK.split(shown))


def human_bytes(count: float) -> str:
    """`1.5 MiB`, for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _escaped(text: str) -> str:
    return "".join(f"&#{ord(one)};" if one in _MARKUP else one for one in text)
