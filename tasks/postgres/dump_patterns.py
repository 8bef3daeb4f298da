"""Patterns for names of tables, read as pg_dump reads those of --exclude-table. Pure.

log_*      what is not quoted folds to lower case; `*` and `?` stand for any text and any character
"Log"      exactly this name
shop.log   in this schema; without a schema, a pattern names what the search_path finds
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tasks.errors import BadSetting

#: What has a meaning of its own in a regular expression, and is taken as it is within quotes.
_SPECIAL = frozenset("|*+?()[]{}.^$\\")
_WILD = {"*": ".*", "?": "."}
#: A dollar, and the bracket of `[]`, are taken as they are outside of quotes too.
_TOKEN = re.compile(
    r'"(?P<quoted>(?:[^"]|"")*)"|(?P<open>")|(?P<dot>\.)|(?P<escaped>\$|\[(?=\]))|(?P<plain>.)', re.DOTALL
)


@dataclass(frozen=True)
class DumpPattern:
    """What a person wrote, and the regular expressions of PostgreSQL that names of schemas and of tables match."""

    written: str
    schema: str
    """Empty where the pattern has no schema."""
    name: str

    @classmethod
    def parse(cls, written: str) -> DumpPattern:
        """Raises BadSetting for a text that names no table."""
        *schemas, name = _expressions(written)
        if len(schemas) > 1 or not name or "" in schemas or "\0" in written:
            raise BadSetting(
                f"{written!r} names no table: write table or schema.table, as for pg_dump --exclude-table."
            )
        return cls(written, _whole(schemas[0]) if schemas else "", _whole(name))


def checked_patterns(field: str, texts: Iterable[str]) -> tuple[DumpPattern, ...]:
    """The patterns of a field of a plan; empty ones are left out. Raises BadSetting."""
    try:
        return tuple(DumpPattern.parse(text.strip()) for text in texts if text.strip())
    except BadSetting as error:
        raise BadSetting(f"{field}: {error}") from None


def checked_schemas(field: str, texts: Iterable[str]) -> tuple[DumpPattern, ...]:
    """The same for names of schemas."""
    patterns = checked_patterns(field, texts)
    for pattern in patterns:
        if pattern.schema:
            raise BadSetting(f"{field}: {pattern.written!r} names no schema: write its name alone.")
    return patterns


def _whole(expression: str) -> str:
    return f"^({expression})$"


def _expressions(written: str) -> list[str]:
    """What stands between the dots, each as a regular expression."""
    parts = [""]
    for token in _TOKEN.finditer(written):
        if token["open"]:
            raise BadSetting(f'{written!r} has a quote that is not closed: write "name", and "" for a quote within it.')
        if token["dot"]:
            parts.append("")
        else:
            parts[-1] += _expression(token)
    return parts


def _expression(token: re.Match[str]) -> str:
    if token["quoted"] is not None:
        return "".join(f"\\{it}" if it in _SPECIAL else it for it in token["quoted"].replace('""', '"'))
    if token["escaped"]:
        return f"\\{token['escaped']}"
    plain = token["plain"]
    return _WILD.get(plain) or (plain.lower() if plain.isascii() else plain)
