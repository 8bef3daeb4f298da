"""What of a database will not load everywhere: looked for in its catalogue, in the snapshot of the dump.

Entries are named as messages of a restore name them. Only the catalogue is read, so a hot standby will do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from psycopg2.extensions import connection as Connection

from tasks.postgres.server import rows
from tasks.storage.backup_values import NOTHING_LEFT_OUT, Hindrance, LeftOut

_OF_SUPERUSERS = Path(__file__).with_name("source_superuser.sql")
_HINDRANCES = Path(__file__).with_name("source_hindrances.sql")
_FUNCTIONS = Path(__file__).with_name("source_functions.sql")
_LEFT_OUT = Path(__file__).with_name("source_left_out.sql")

_NAME = r'(?P<name>"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_NOISE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
_DEFINED = re.compile(rf"{_NAME}\s+AS\s*(?:(?:NOT\s+)?MATERIALIZED\s*)?\(", re.IGNORECASE)
_CALLED = re.compile(rf"(?<![.\w$])(?P<schema>{_NAME.replace('<name>', '<of_schema>')})\s*\.\s*{_NAME}\s*\(")
_READ = re.compile(
    rf"\b(?:FROM|JOIN)\s+(?:ONLY\s+)?(?:{_NAME.replace('<name>', '<of_schema>')}\s*\.\s*)?(?!ONLY\b){_NAME}(?![\w$])"
    r"(?!\s*[.(])",
    re.IGNORECASE,
)
#: A configuration or a dictionary of text search, as the first text that a function is given.
_GIVEN = re.compile(r"\(\s*'(?P<name>[^\W\d][\w$]*)'\s*[,:)]")
#: How the body of a function names a function, a table and a type without a schema.
_NAMED: Mapping[str, re.Pattern[str]] = {
    "functions": re.compile(rf'(?<![.\w$"]){_NAME}\s*\('),
    "tables": re.compile(rf"\b(?:FROM|JOIN)\s+(?:ONLY\s+)?(?!ONLY\b){_NAME}(?![\w$])(?!\s*[.(])", re.IGNORECASE),
    "types": re.compile(rf"::\s*{_NAME}(?![\w$])(?!\s*\.)"),
    "given": _GIVEN,
}
_ROWS = "TABLE DATA "
_TABLES = """
    SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relname = ANY (%(names)s::name[]) AND c.relkind IN ('r', 'p', 'v', 'm')
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
#: Which of these names exist outside of pg_catalog alone: those that a session finds by its search_path.
_BY_SEARCH_PATH = """
    WITH named (kind, name, schema) AS (
           SELECT 'functions', proname, pronamespace FROM pg_proc WHERE proname = ANY (%(functions)s::name[])
           UNION ALL SELECT 'tables', relname, relnamespace FROM pg_class WHERE relname = ANY (%(tables)s::name[])
           UNION ALL SELECT 'types', typname, typnamespace FROM pg_type WHERE typname = ANY (%(types)s::name[])
           UNION ALL SELECT 'given', cfgname, cfgnamespace FROM pg_ts_config WHERE cfgname = ANY (%(given)s::name[])
           UNION ALL SELECT 'given', dictname, dictnamespace FROM pg_ts_dict WHERE dictname = ANY (%(given)s::name[]))
    SELECT kind, name FROM named JOIN pg_namespace n ON n.oid = schema
     GROUP BY kind, name HAVING bool_and(n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
"""


def hindrances(
    connection: Connection, excluded: Collection[str] = (), left_out: LeftOut = NOTHING_LEFT_OUT
) -> tuple[Hindrance, ...]:
    """Every reason for which entries of the dump may not load, with the entries.

    `excluded` are all relations that the dump leaves out, `left_out` says what else the plan does.
    """
    left = {"excluded": list(excluded), "emptied": list(left_out.rows), "schemas": list(left_out.schemas)}
    functions = rows(connection, _FUNCTIONS.read_text(encoding="ascii"), **left)
    entries = _with_callees(functions)
    functions = [function for function in functions if entries[function["function"]]]
    by_path = tuple(_of_search_paths(connection, functions, entries))
    named = {hindrance.needs for hindrance in by_path}
    others = [function for function in functions if function["function"] not in named]
    return (
        *_of_superusers(connection, left),
        *_of_servers(connection, left),
        *by_path,
        *_of_other_tables(connection, others, entries),
        *_of_left_out(connection, left),
    )


def _of_superusers(connection: Connection, left: Mapping[str, list[str]]) -> Iterator[Hindrance]:
    [row] = rows(connection, "SELECT current_setting('is_superuser') = 'off' AS ordinary")
    entries = [row["name"] for row in rows(connection, _OF_SUPERUSERS.read_text(encoding="ascii"), **left)]
    if entries:
        yield Hindrance("superuser", "a superuser", _on_one_line(entries), here=row["ordinary"])


def _of_servers(connection: Connection, left: Mapping[str, list[str]]) -> Iterator[Hindrance]:
    for row in rows(connection, _HINDRANCES.read_text(encoding="ascii"), **left):
        yield Hindrance(row["kind"], row["needs"], _on_one_line(row["entries"]), row["here"])


def _of_left_out(connection: Connection, left: Mapping[str, list[str]]) -> Iterator[Hindrance]:
    if any(left.values()):
        for row in rows(connection, _LEFT_OUT.read_text(encoding="ascii"), **left):
            yield Hindrance("left_out", row["needs"], _on_one_line(row["entries"]), here=True)


def _of_search_paths(
    connection: Connection, functions: Sequence[Mapping[str, Any]], entries: Mapping[str, set[str]]
) -> Iterator[Hindrance]:
    """Functions that name others, or tables or types, without their schema: a restore has an empty search_path."""
    functions = [function for function in functions if not function["fixed"]]
    named = [unqualified(function["body"]) for function in functions]
    wanted: dict[str, Any] = {kind: sorted({name for k, name in set().union(*named) if k == kind}) for kind in _NAMED}
    if not any(wanted.values()):
        return
    found = {(row["kind"], row["name"]) for row in rows(connection, _BY_SEARCH_PATH, **wanted)}
    for function, names in zip(functions, named, strict=True):
        if names & found:
            name = function["function"]
            yield Hindrance("search_path", name, _on_one_line(sorted(entries[name])), here=True)


def _of_other_tables(
    connection: Connection, functions: Sequence[Mapping[str, Any]], entries: Mapping[str, set[str]]
) -> Iterator[Hindrance]:
    """Functions that read tables while rows are checked: pg_dump does not know whose rows have to be there first."""
    checking = {
        function["function"]: sorted(entry for entry in entries[function["function"]] if entry.startswith(_ROWS))
        for function in functions
    }
    functions = [function for function in functions if checking[function["function"]]]
    read = [tables_read(function["body"]) for function in functions]
    wanted = sorted({name for _, name in set().union(*read)})
    there = {(row["schema"], row["name"]) for row in rows(connection, _TABLES, names=wanted)} if wanted else set()
    there |= {("", name) for _, name in there}
    for function, names in zip(functions, read, strict=True):
        if function["reads"] or names & there:
            name = function["function"]
            yield Hindrance("other_tables", name, _on_one_line(checking[name]), here=True)


def _with_callees(functions: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    """The entries that run each function, also by way of others that call it with its schema."""
    by_name: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for function in functions:
        by_name.setdefault((function["schema"], function["name"]), []).append(function)
    entries: dict[str, set[str]] = {function["function"]: set() for function in functions}
    reached = [(function, set(function["entries"] or ())) for function in functions]
    while reached:
        caller, more = reached.pop()
        if more <= entries[caller["function"]]:
            continue
        entries[caller["function"]] |= more
        reached += [(callee, more) for name in qualified_calls(caller["body"]) for callee in by_name.get(name, [])]
    return entries


def tables_read(body: str) -> set[tuple[str, str]]:
    """What may be the names of tables after FROM and JOIN: `("schema", "t")`, or `("", "t")` without one. Pure."""
    return {
        (_as_stored(match["of_schema"] or ""), _as_stored(match["name"]))
        for match in _READ.finditer(_NOISE.sub(" ", body))
    }


def qualified_calls(body: str) -> set[tuple[str, str]]:
    """What a body calls with its schema: `("schema", "f")`. Nothing where it sets a search_path. Pure."""
    if "search_path" in body.lower():
        return set()
    return {
        (_as_stored(match["schema"]), _as_stored(match["name"])) for match in _CALLED.finditer(_NOISE.sub(" ", body))
    }


def unqualified(body: str) -> set[tuple[str, str]]:
    """What the body of a function names without a schema: `("functions", "f")`, `("tables", "t")` and so on. Pure.

    Nothing of a body that sets a search_path. Comments and texts are passed over, and so are WITH queries.
    """
    if "search_path" in body.lower():
        return set()
    text, with_texts = _NOISE.sub(" '' ", body), _COMMENT.sub(" ", body)
    defined = {_as_stored(match["name"]) for match in _DEFINED.finditer(text)}
    named = {
        (kind, _as_stored(match["name"]))
        for kind, names in _NAMED.items()
        for match in names.finditer(with_texts if names is _GIVEN else text)
    }
    return {(kind, name) for kind, name in named if kind != "tables" or name not in defined}


def _as_stored(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def _on_one_line(entries: Iterable[str]) -> tuple[str, ...]:
    """The names as in the comments of pg_dump."""
    return tuple(re.sub(r"[\r\n]", " ", entry) for entry in entries)
