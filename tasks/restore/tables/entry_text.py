"""What the statements of a dump are about, by the fixed forms in which pg_dump writes them. Pure.

The comment before each statement (`-- Name: a b; Type: CONSTRAINT`) cannot tell: `a b` may be constraint b of table a,
or the first of a table that is called so. The statement itself names schema and table, quoted where needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.restore.tables.patterns import TableName

_I = r'(?:"(?:[^"]|"")++"|[a-z_][a-z0-9_$]*+)'
_Q = rf"{_I}\.{_I}"
_TEXT = r"""(?:[^'";]|'(?:[^']|'')*+'|"(?:[^"]|"")*+")"""
_OF = rf"(?:(?:TABLE|FOREIGN TABLE) (?P<table>{_Q})|COLUMN (?P<table2>{_Q})\.{_I}"
_OTHERS = rf"|(?P<other_kind>SEQUENCE|INDEX|STATISTICS) (?P<other>{_Q})|SCHEMA (?P<schema>{_I})"
_LABELLED = rf"|(?P<label_kind>CONSTRAINT|TRIGGER|RULE|POLICY) (?P<label>{_I}) ON (?P<table3>{_Q}))"
_PRIVILEGES = rf"(?:[A-Z, ]|\((?:{_I}|[, ])*+\))+?"
_TABLE = rf"ALTER (?:FOREIGN )?TABLE (?:ONLY )?(?P<table>{_Q})"

#: The forms, by the kind of the entry. Groups: table, other (what else is named), label (a name within the table).
_FORMS = {
    "TABLE": rf"CREATE (?:UNLOGGED )?TABLE (?P<table>{_Q})",
    "FOREIGN TABLE": rf"CREATE FOREIGN TABLE (?P<table>{_Q})",
    "MATERIALIZED VIEW DATA": rf"REFRESH MATERIALIZED VIEW (?P<other>{_Q})",
    "SCHEMA": rf"CREATE SCHEMA (?P<schema>{_I})",
    "SEQUENCE": rf"CREATE (?:UNLOGGED )?SEQUENCE (?P<other>{_Q})"
    rf"|{_TABLE} ALTER COLUMN {_I} ADD GENERATED [A-Z ]+ AS IDENTITY \(\s+SEQUENCE NAME (?P<other2>{_Q})",
    "SEQUENCE OWNED BY": rf"ALTER SEQUENCE (?P<other>{_Q}) OWNED BY (?P<table>{_Q})\.{_I};",
    "TABLE DATA": rf"COPY (?P<table>{_Q}) ",
    "TABLE ATTACH": rf"{_TABLE} ATTACH PARTITION (?P<other>{_Q}) ",
    "FK CONSTRAINT": rf"{_TABLE}\s+ADD CONSTRAINT (?P<label>{_I}) FOREIGN KEY {_TEXT}*? REFERENCES (?P<other>{_Q})\(",
    "CONSTRAINT": rf"{_TABLE}\s+ADD CONSTRAINT (?P<label>{_I}) ",
    "CHECK CONSTRAINT": rf"{_TABLE}\s+ADD CONSTRAINT (?P<label>{_I}) ",
    "DEFAULT": _TABLE,
    "ROW SECURITY": _TABLE,
    "INDEX": rf"CREATE (?:UNIQUE )?INDEX (?P<label>{_I}) ON (?:ONLY )?(?P<table>{_Q}) ",
    "INDEX ATTACH": rf"ALTER INDEX (?P<other>{_Q}) ATTACH PARTITION (?P<other2>{_Q});",
    "TRIGGER": rf"CREATE (?:CONSTRAINT )?TRIGGER (?P<label>{_I}) {_TEXT}*? ON (?P<table>{_Q})"
    rf"|(?P<state>){_TABLE.replace('<table>', '<table2>')} [A-Z ]+ TRIGGER ",
    "RULE": rf"CREATE RULE (?P<label>{_I}) AS\s+ON [A-Z]+ TO (?P<table>{_Q})",
    "POLICY": rf"CREATE POLICY (?P<label>{_I}) ON (?P<table>{_Q})",
    "STATISTICS": rf"CREATE STATISTICS (?P<other>{_Q}) {_TEXT}*? FROM (?P<table>{_Q});",
    "PUBLICATION TABLE": rf"ALTER PUBLICATION (?P<label>{_I}) ADD TABLE (?:ONLY )?(?P<table>{_Q})",
    "COMMENT": rf"COMMENT ON {_OF}{_OTHERS}{_LABELLED} IS ",
    "SECURITY LABEL": rf"SECURITY LABEL FOR {_I} ON {_OF}{_OTHERS}{_LABELLED} IS ",
    "ACL": rf"(?:SET SESSION AUTHORIZATION (?:{_I}|'[^']*');\s+)?(?:GRANT|REVOKE) {_PRIVILEGES} ON "
    rf"(?:TABLE (?P<table>{_Q})|(?P<other_kind>SEQUENCE) (?P<other>{_Q})|SCHEMA (?P<schema>{_I})) ",
}
_COMPILED = {kind: re.compile(form, re.DOTALL) for kind, form in _FORMS.items()}
_HEADER = re.compile(r"(?:--[^\n]*\n|\s+)*")
_SEQUENCE_SET = re.compile(r"SELECT pg_catalog\.setval\(E?'((?:[^']|'')*)', ")
_EVENT_TRIGGER_COMMENT = re.compile("COMMENT ON EVENT TRIGGER ")
_OF_NO_TABLE = re.compile(
    r"(?:COMMENT|SECURITY LABEL FOR [^;']+|(?:GRANT|REVOKE) [A-Z, ]+) ON (?:LARGE OBJECT|SUBSCRIPTION) "
)
_TRAILING = re.compile(
    rb"(?:\n|\A)(?P<settings>(?:SET (?:default_tablespace|default_table_access_method) = "
    rb"""(?:''|"(?:[^"]|"")+"|[a-z0-9_]+);\n\n)*)"""
    rb"(?:--\n)?(?P<trailer>-- PostgreSQL database dump complete\n--\n\n(?:\\unrestrict [A-Za-z0-9]+\n\n)?)?\Z"
)


#: The statement before the rows of a table, at the end of a text.
COPY_HEAD = re.compile(
    rb'^(?P<statement>COPY (?P<table>(?:"[^"]*+"|[^"() \n]++)+) (?:\((?:"[^"]*+"|[^"()]++)*\) )?FROM stdin);\n\Z',
    re.MULTILINE,
)


@dataclass(frozen=True)
class Concern:
    """What an entry is about. Which of the fields are set depends on its kind.

    `table` is the table that it belongs to; `other` the other end: the sequence, the table that a foreign key refers
    to, the view that is filled, the partition that is attached, the parent's index; `other2` the partition's index, or
    the sequence's name should backslashes be doubled in the dump's strings. `label` is a name within the table (of a
    constraint, index, trigger …) or a publication's; `schema` the schema that the entry creates, comments or grants.
    `other_kind` is the kind of `other`, or of what `label` names, in comments and grants.
    """

    kind: str
    table: TableName | None = None
    other: TableName | None = None
    other2: TableName | None = None
    label: str = ""
    schema: str = ""
    other_kind: str = ""
    only_state: bool = False
    """The entry enables or disables a trigger that a partition has from its parent."""


def concern_of(kind: str, data: bytes, codec: str) -> Concern:
    """What the entry with this text is about; all but `kind` is empty when no table has to do with it."""
    text = statement(data, codec)
    if kind == "SEQUENCE SET":
        match = _SEQUENCE_SET.match(text)
        named = match[1].replace("''", "'") if match else ""
        return Concern(kind, other=_name(named), other2=_name(named.replace("\\\\", "\\")))
    match = _COMPILED[kind].match(text) if kind in _COMPILED else None
    if match is None:
        return Concern(kind)
    groups = {name: value for name, value in match.groupdict().items() if value is not None}
    table = next((groups[name] for name in ("table", "table2", "table3") if name in groups), None)
    other, other2 = groups.get("other"), groups.get("other2")
    if kind == "SEQUENCE":
        other, other2 = other or other2, None
    return Concern(
        kind,
        _name(table),
        _name(other),
        _name(other2),
        _part(groups.get("label", "")),
        _part(groups.get("schema", "")),
        groups.get("other_kind", "") or groups.get("label_kind", ""),
        "state" in groups,
    )


def statement(data: bytes, codec: str) -> str:
    """The entry's text from its first statement on; `encode` gives back bytes that are no text in `codec`."""
    text = data.decode(codec, "surrogateescape")
    header = _HEADER.match(text)
    return text[header.end() :] if header else text


def is_about_event_trigger(kind: str, data: bytes) -> bool:
    """Whether an entry creates or comments an event trigger."""
    return kind == "EVENT TRIGGER" or bool(_EVENT_TRIGGER_COMMENT.match(statement(data, "latin-1")))


def has_no_part_in_tables(kind: str, data: bytes) -> bool:
    """Whether an entry is about large objects or subscriptions."""
    return kind.startswith(("BLOB", "SUBSCRIPTION")) or bool(_OF_NO_TABLE.match(statement(data, "latin-1")))


def split_trailing(data: bytes) -> tuple[bytes, bytes]:
    """An entry's own text, and what follows it that is for later entries or for psql: settings, the dump's end."""
    match = _TRAILING.search(data)
    if not match or not (match["settings"] or match["trailer"]):
        return data, b""
    return data[: match.start("settings")], data[match.start("settings") :]


def copied_table(head: bytes) -> bytes:
    """The table whose rows follow on `head`, as COPY writes it; empty when that is not the end of `head`."""
    match = COPY_HEAD.search(head)
    return match["table"] if match else b""


def _name(written: str | None) -> TableName | None:
    match = re.fullmatch(rf"({_I})\.({_I})", written or "", re.DOTALL)
    return TableName(_part(match[1]), _part(match[2])) if match else None


def _part(written: str) -> str:
    return written[1:-1].replace('""', '"') if written.startswith('"') else written
