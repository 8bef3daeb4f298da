"""What of a database will not load everywhere: looked for in its catalogue, in the snapshot of the dump.

Entries are named as messages of a restore name them. Only the catalogue is read, so a hot standby will do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from psycopg2.extensions import connection as Connection

from tasks.postgres.server import rows
from tasks.storage.backup_values import Hindrance

_OF_SUPERUSERS = Path(__file__).with_name("source_superuser.sql")
_HINDRANCES = Path(__file__).with_name("source_hindrances.sql")
_FUNCTIONS = Path(__file__).with_name("source_functions.sql")

_NAME = r'(?P<name>"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_NOISE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
_DEFINED = re.compile(rf"{_NAME}\s+AS\s*(?:(?:NOT\s+)?MATERIALIZED\s*)?\(", re.IGNORECASE)
#: How the body of a function names a function, a table and a type without a schema.
_NAMED: Mapping[str, re.Pattern[str]] = {
    "functions": re.compile(rf'(?<![.\w$"]){_NAME}\s*\('),
    "tables": re.compile(rf"\b(?:FROM|JOIN)\s+(?:ONLY\s+)?(?!ONLY\b){_NAME}(?![\w$])(?!\s*[.(])", re.IGNORECASE),
    "types": re.compile(rf"::\s*{_NAME}(?![\w$])(?!\s*\.)"),
}
#: Which of these names exist outside of pg_catalog alone: those that a session finds by its search_path.
_BY_SEARCH_PATH = """
    WITH named (kind, name, schema) AS (
           SELECT 'functions', proname, pronamespace FROM pg_proc WHERE proname = ANY (%(functions)s::name[])
           UNION ALL SELECT 'tables', relname, relnamespace FROM pg_class WHERE relname = ANY (%(tables)s::name[])
           UNION ALL SELECT 'types', typname, typnamespace FROM pg_type WHERE typname = ANY (%(types)s::name[]))
    SELECT kind, name FROM named JOIN pg_namespace n ON n.oid = schema
     GROUP BY kind, name HAVING bool_and(n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
"""


def hindrances(connection: Connection) -> tuple[Hindrance, ...]:
    """Every reason for which entries of the dump may not load, with the entries."""
    return (*_of_superusers(connection), *_of_servers(connection), *_of_search_paths(connection))


def _of_superusers(connection: Connection) -> Iterator[Hindrance]:
    [row] = rows(connection, "SELECT current_setting('is_superuser') = 'off' AS ordinary")
    entries = [row["name"] for row in rows(connection, _OF_SUPERUSERS.read_text(encoding="ascii"))]
    if entries:
        yield Hindrance("superuser", "a superuser", _on_one_line(entries), here=row["ordinary"])


def _of_servers(connection: Connection) -> Iterator[Hindrance]:
    for row in rows(connection, _HINDRANCES.read_text(encoding="ascii")):
        yield Hindrance(row["kind"], row["needs"], _on_one_line(row["entries"]), row["here"])


def _of_search_paths(connection: Connection) -> Iterator[Hindrance]:
    """Functions that name others, or tables or types, without their schema: a restore has an empty search_path."""
    functions = rows(connection, _FUNCTIONS.read_text(encoding="ascii"))
    named = [unqualified(function["body"]) for function in functions]
    wanted: dict[str, Any] = {kind: sorted({name for k, name in set().union(*named) if k == kind}) for kind in _NAMED}
    if not any(wanted.values()):
        return
    found = {(row["kind"], row["name"]) for row in rows(connection, _BY_SEARCH_PATH, **wanted)}
    for function, names in zip(functions, named, strict=True):
        if names & found:
            yield Hindrance("search_path", function["function"], _on_one_line(function["entries"]), here=True)


def unqualified(body: str) -> set[tuple[str, str]]:
    """What the body of a function names without a schema: `("functions", "f")`, `("tables", "t")` and so on. Pure.

    Nothing of a body that sets a search_path. Comments and texts are passed over, and so are WITH queries.
    """
    if "search_path" in body.lower():
        return set()
    text = _NOISE.sub(" '' ", body)
    defined = {_as_stored(match["name"]) for match in _DEFINED.finditer(text)}
    named = {(kind, _as_stored(match["name"])) for kind, names in _NAMED.items() for match in names.finditer(text)}
    return {(kind, name) for kind, name in named if kind != "tables" or name not in defined}


def _as_stored(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def _on_one_line(entries: Iterable[str]) -> tuple[str, ...]:
    """The names as in the comments of pg_dump."""
    return tuple(re.sub(r"[\r\n]", " ", entry) for entry in entries)
