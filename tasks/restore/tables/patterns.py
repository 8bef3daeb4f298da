"""Which tables of a backup are meant: names and patterns as `psql` and `pg_dump -t` take them. Pure.

orders   Orders        the table orders, in every schema: what is not quoted folds to lower case
"Orders"   "a ""b"" c" exactly this name, and a "b" c
shop.orders   sho?.*   of one schema; `*` and `?` stand for any text and any character, outside of quotes
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.errors import BadSetting
from tasks.errors import named as error_sentence
from tasks.storage.backup_values import LeftOut, TableData

_NAMED_AT_MOST = 3
_ALIKE = 0.5  # of 1 for the same
_PART = r'(?:"(?:[^"]|"")*"|[^".])+'
_PATTERN = re.compile(rf"(?:(?P<schema>{_PART})\.)?(?P<table>{_PART})", re.DOTALL)
_PIECE = re.compile(r'"(?P<quoted>(?:[^"]|"")*)"|(?P<any>\*)|(?P<one>\?)|(?P<plain>[^"*?]+)', re.DOTALL)
_IDENTIFIER = r'(?:"(?:[^"]|"")+"|[^".]+)'
_NAME = re.compile(rf"({_IDENTIFIER})\.({_IDENTIFIER})", re.DOTALL)
_UPPER = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


@dataclass(frozen=True, order=True)
class TableName:
    """A table's name in its parts, as they are without quotes."""

    schema: str
    table: str


def name_in(written: str) -> TableName:
    """The name that is written with its schema, quoted where needed. Raises BadSetting for anything else."""
    match = _NAME.fullmatch(written)
    if not match:
        raise BadSetting(f"{written!r} is no name of a table with its schema: the backup's manifest is damaged.")
    return TableName(*(unquoted(part) for part in match.groups()))


def unquoted(part: str) -> str:
    """The name that is written with quotes around it, or without."""
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def partitions_of(chosen: Iterable[TableName], parents: Mapping[TableName, TableName]) -> set[TableName]:
    """The chosen tables and, at every depth, the partitions of those that are partitioned."""
    family = set(chosen)
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


@dataclass(frozen=True)
class Pattern:
    """What a person wrote to name one or more tables."""

    written: str
    schema: re.Pattern[str] | None
    table: re.Pattern[str]

    @classmethod
    def parse(cls, written: str) -> Pattern:
        """Raises BadSetting when the text cannot name a table."""
        text = written.strip()
        if text.replace('""', "").count('"') % 2:
            raise BadSetting(
                f'The table name {written!r} has a quote that is not closed: write "name", and "" for '
                "a quote within it."
            )
        match = _PATTERN.fullmatch(text)
        if not match or "\0" in text:
            raise BadSetting(
                f'{written!r} names no table: write table or schema.table, with "" around what is to be taken exactly.'
            )
        return cls(written, _expression(match["schema"]) if match["schema"] else None, _expression(match["table"]))

    def matches(self, name: TableName) -> bool:
        """Whether it names this table; without a schema it names those of every schema."""
        in_schema = self.schema is None or self.schema.fullmatch(name.schema) is not None
        return in_schema and self.table.fullmatch(name.table) is not None


def schema_pattern(written: str) -> re.Pattern[str]:
    """What a person wrote to name one or more schemas. Raises BadSetting when the text cannot name one."""
    text = written.strip()
    if text.replace('""', "").count('"') % 2 or "\0" in text or not re.fullmatch(_PART, text, re.DOTALL):
        raise BadSetting(
            f"{written!r} names no schema: write its name alone, with * and ? for any text and any character, and "
            'with "" around what is to be taken exactly.'
        )
    return _expression(text)


def chosen(
    patterns: Sequence[str], tables: Sequence[TableData], parents: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """The tables with rows that the patterns name, in the dump's order, written as the manifest writes them.

    A pattern without a schema names tables of every schema. A pattern that names a partitioned table names all of its
    partitions, which are in `parents` (partition → partitioned table, both written like the others). A partitioned
    table has no rows of its own, and no entry among `tables`.

    Raises BadSetting for a pattern that is badly quoted, or that names nothing, with the names most like it; and for a
    partition whose rows the dump holds as rows of the partitioned table.
    """
    wanted = meant(patterns, tables, parents)
    _check_own_rows(wanted, tables, parents or {})
    return tuple(dict.fromkeys(table.name for table in tables if name_in(table.name) in wanted))


def left_out_of(
    patterns: Sequence[str], left_out: LeftOut, tables: Sequence[TableData], parents: Mapping[str, str]
) -> list[str]:
    """A sentence, if the patterns name a table that the backup was made without, or without its rows; else nothing.

    A partition counts for its table: without it, the table would not be what it was. Raises BadSetting for a pattern
    that is badly quoted.
    """
    without = {name_in(name) for name in (*left_out.tables, *left_out.rows)}
    tree = {name_in(child): name_in(parent) for child, parent in parents.items()}
    names = {*without, *tree, *tree.values(), *(name_in(table.name) for table in tables)}
    parsed = [Pattern.parse(pattern) for pattern in patterns]
    wanted = partitions_of((name for name in names if any(pattern.matches(name) for pattern in parsed)), tree)
    return error_sentence(
        "The backup was made without these tables or their rows, so it cannot bring them back: ",
        [written_name(name) for name in sorted(wanted & without)],
        "choose other tables.",
    )


def _check_own_rows(wanted: Collection[TableName], tables: Sequence[TableData], parents: Mapping[str, str]) -> None:
    """Raises BadSetting for a partition whose rows cannot be told from those of its partitioned table."""
    with_rows = {name_in(table.name) for table in tables}
    tree = {name_in(child): name_in(parent) for child, parent in parents.items()}
    for name in sorted(set(wanted) - with_rows):
        above = tree.get(name)
        while above is not None:
            if above in with_rows and above not in wanted:
                raise BadSetting(
                    f"The backup holds the rows of {written_name(name)} among those of {written_name(above)}, its "
                    f"partitioned table: choose {written_name(above)}."
                )
            above = tree.get(above)


def meant(
    patterns: Sequence[str], tables: Sequence[TableData], parents: Mapping[str, str] | None = None
) -> set[TableName]:
    """The tables of `chosen` and the partitioned tables that the patterns name. Raises as `chosen` does."""
    tree = {name_in(child): name_in(parent) for child, parent in (parents or {}).items()}
    return partitions_of(named({*(name_in(table.name) for table in tables), *tree, *tree.values()}, patterns), tree)


def named(names: Collection[TableName], patterns: Sequence[str]) -> set[TableName]:
    """Those of `names` that patterns name. Raises BadSetting for a pattern that names none."""
    all_named: set[TableName] = set()
    for pattern in map(Pattern.parse, patterns):
        matching = {name for name in names if pattern.matches(name)}
        if not matching:
            raise _names_nothing(pattern, names)
        all_named |= matching
    return all_named


def written_name(name: TableName) -> str:
    """The name with its schema, both quoted where a pattern needs it."""
    return ".".join(
        part if re.fullmatch("[a-z_][a-z0-9_$]*", part) else '"' + part.replace('"', '""') + '"'
        for part in (name.schema, name.table)
    )


def _expression(part: str) -> re.Pattern[str]:
    pieces = []
    for piece in _PIECE.finditer(part):
        if piece["any"] or piece["one"]:
            pieces.append(".*" if piece["any"] else ".")
        elif piece["quoted"] is not None:
            pieces.append(re.escape(piece["quoted"].replace('""', '"')))
        else:
            pieces.append(re.escape(piece["plain"].translate(_UPPER)))
    return re.compile("".join(pieces), re.DOTALL)


def _names_nothing(pattern: Pattern, names: Collection[TableName]) -> BadSetting:
    wanted = pattern.written.replace('"', "").lower()
    likeness = {
        name: max(_likeness(wanted, text) for text in (name.table, f"{name.schema}.{name.table}")) for name in names
    }
    near = sorted((name for name in names if likeness[name] >= _ALIKE), key=lambda name: (-likeness[name], name))
    nearest = ", ".join(map(written_name, near[:_NAMED_AT_MOST]))
    known = f"the nearest names are {nearest}" if near else f"it holds {len(names)} others"
    return BadSetting(f"The backup has no table {pattern.written!r}: {known}; upper case needs quotes.")


def _likeness(wanted: str, spelling: str) -> float:
    return difflib.SequenceMatcher(None, wanted, spelling.lower()).ratio()
