"""Which role runs an entry of the dump, where a superuser restores: the loader, or the superuser itself.

Whatever can run code that the database's users wrote is the loader's: a CHECK, a domain, a generated column, and any
expression, since a constant in it is read when the statement is. The superuser runs what the loader may not, and only
statements that run no such code. The statement decides, not the comment above it: a schema may be called
`x; Type: EXTENSION`. An error never decides, since code can raise any.

    loader      its own until the hand-over; the owner in the dump comes then
    superuser   at once, with the owner
    later       at the hand-over, behind the owners: comments, labels, user mappings
    last        behind the hand-over: privileges, event triggers, REFRESH of materialised views
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Protocol

from tasks.restore.owners import LAST_OWNER, OF_SUPERUSERS
from tasks.restore.tables.entry_text import concern_of, statement
from tasks.restore.tables.patterns import TableName

Turn = Literal["loader", "superuser", "later", "last"]
_CODEC = "latin-1"  # every byte is kept; in all encodings of servers, ASCII stands for nothing else
_I = r'(?:"(?:[^"]|"")+"|[a-z_\x80-\xff][a-z0-9_$\x80-\xff]*)'
_LAST = re.compile(
    "(?:GRANT|REVOKE|ALTER DEFAULT PRIVILEGES|SET SESSION AUTHORIZATION|CREATE EVENT TRIGGER|ALTER EVENT TRIGGER"
    "|COMMENT ON EVENT TRIGGER|REFRESH MATERIALIZED VIEW) "
)
_LATER = re.compile("(?:COMMENT ON|SECURITY LABEL FOR|CREATE USER MAPPING FOR) ")
#: Each runs no code but that of extensions, and of functions in C.
_SUPERUSERS = re.compile(
    "CREATE (?:EXTENSION|(?:OR REPLACE )?(?:TRUSTED )?(?:PROCEDURAL )?LANGUAGE|OPERATOR|ACCESS METHOD|CAST|TRANSFORM"
    "|TEXT SEARCH PARSER|TEXT SEARCH TEMPLATE|FOREIGN DATA WRAPPER|SERVER|PUBLICATION|SUBSCRIPTION) "
    r"|ALTER (?:PUBLICATION|SUBSCRIPTION|OPERATOR FAMILY) |SELECT pg_catalog\.(?:lo_create|lo_open)\('"
)
_TYPE = re.compile(rf"CREATE TYPE (?P<name>{_I}\.{_I})(?P<rest> AS | \(|;)")
#: What is the superuser's to make, and the loader's from then on, since later entries need it.
_LENT = re.compile(rf"CREATE (?P<kind>SERVER|FOREIGN TABLE) (?P<name>{_I}(?:\.{_I})?) ")
#: A foreign table with none of these has no expression: options of wrappers such as file_fdw are a superuser's.
_EXPRESSIONS = re.compile(r"\b(?:DEFAULT|CHECK|CONSTRAINT|GENERATED|PARTITION|INHERITS)\b")
_SCHEMA = re.compile(rf"CREATE SCHEMA (?P<name>{_I});")
_EXTENSION = re.compile(rf"CREATE EXTENSION (?:IF NOT EXISTS )?{_I} WITH SCHEMA (?P<schema>{_I});")
_ROUTINE = re.compile("CREATE (?:FUNCTION|PROCEDURE) ")
_LANGUAGE = re.compile(rf"\n    LANGUAGE (?P<name>{_I})")
_CLOSED_WORDS = re.compile(r"\s(?:LEAKPROOF|SUPPORT)\s")
_SETTING = re.compile(rf"\n    SET (?P<name>{_I}(?:\.{_I})*) TO ")
_INTERNAL_STATE = re.compile(r"\n    M?STYPE = internal[,\n]")
_QUOTED = re.compile("'(?:[^']|'')*'" + r'|"(?:[^"]|"")*"')
_ROWS = ("TABLE DATA", "SEQUENCE SET")
_NEVER_LENT = frozenset(
    (
        "EVENT TRIGGER",
        "FOREIGN DATA WRAPPER",
        "LANGUAGE",
        "LARGE OBJECT",
        "OPERATOR CLASS",
        "OPERATOR FAMILY",
        "PROCEDURAL LANGUAGE",
        "PUBLICATION",
        "SUBSCRIPTION",
    )
)


class Server(Protocol):
    """What the server says of what an entry uses."""

    def trusts(self, language: str) -> bool:
        """Whether ordinary roles may write functions in a language."""

    def frees(self, setting: str) -> bool:
        """Whether every role may change a setting."""

    def made_by_extension(self, relation: TableName) -> bool:
        """Whether a table or sequence is an extension's own."""


@dataclass(frozen=True)
class Share:
    """Who runs an entry, when, and what; `owner` is the statement that gives it its owner at the hand-over."""

    turn: Turn
    text: bytes
    owner: bytes = b""


class Hands:
    """Decides entry by entry, in the dump's order."""

    def __init__(self, loader: str, server: Server, lends_superuser: bool = False) -> None:
        """`loader` is a name that needs no quotes.

        With `lends_superuser`, no role of the dump is a superuser; PostgreSQL demands it of some owners, so these are
        superusers within the entry's transaction.
        """
        self._loader, self._server, self._lends_superuser = loader, server, lends_superuser
        self._shells: set[str] = set()
        self._schemas: dict[str, bytes] = {}  # what gives each schema its owner

    def share(self, kind: str, text: bytes) -> Share:
        """Who runs an entry; of one that is streamed, `text` is the beginning."""
        words = statement(text, _CODEC)
        turn = self._turn(kind, words)
        if turn == "loader":
            share = self.without_owner(text) if kind not in _ROWS else Share(turn, text)
            if schema := _SCHEMA.match(words):
                self._schemas[schema["name"]] = share.owner
            return share
        if extension := _EXTENSION.match(words):
            return Share(turn, self._in_owned_schema(extension["schema"], text))
        if lent := _LENT.match(words):
            to_loader = f"ALTER {lent['kind']} {lent['name']} OWNER TO {self._loader};\n"
            return self.without_owner(text, to_loader, turn)
        return Share(turn, self._by_superuser(text) if self._lends_superuser else text)

    def _by_superuser(self, text: bytes) -> bytes:
        owner = LAST_OWNER.search(text.decode(_CODEC))
        if owner is None or owner["kind"] not in OF_SUPERUSERS:
            return text
        role = owner["owner"].encode(_CODEC)
        return b"ALTER ROLE %b SUPERUSER;\n%b\nALTER ROLE %b NOSUPERUSER;\n" % (role, text, role)

    def _in_owned_schema(self, schema: str, text: bytes) -> bytes:
        """What the script of an extension grants on its schema is noted with the owner's name: so that comes first."""
        owner = self._schemas.get(schema)
        if not owner:
            return text
        return b"%b%b\nALTER SCHEMA %b OWNER TO %b;\n" % (owner, text, schema.encode(_CODEC), self._loader.encode())

    def taken_back(self, text: bytes) -> tuple[bytes, bytes]:
        """For an entry that an earlier restore has made: what gives it to the loader, and what gives it back."""
        owner = LAST_OWNER.search(text.decode(_CODEC))
        if owner is None or owner["kind"] in _NEVER_LENT:
            return b"", b""
        return f"{owner['start']}{self._loader};\n".encode(_CODEC), _statement(owner)

    def without_owner(self, text: bytes, more: str = "", turn: Turn = "loader") -> Share:
        """The text of an entry, or the end of one, without the owner, which comes at the hand-over."""
        owner = LAST_OWNER.search(text.decode(_CODEC))
        if owner is None:
            return Share(turn, text)
        rest = owner.string[: owner.start()] + "\n" + more
        return Share(turn, rest.encode(_CODEC), _statement(owner))

    def _turn(self, kind: str, words: str) -> Turn:
        if _LAST.match(words):
            return "last"
        if _LATER.match(words):
            return "later"
        return "superuser" if self._needs_superuser(kind, words) else "loader"

    def _needs_superuser(self, kind: str, words: str) -> bool:
        if _SUPERUSERS.match(words):
            return True
        if words.startswith("CREATE FOREIGN TABLE "):
            return not _EXPRESSIONS.search(_QUOTED.sub("", words))
        if match := _TYPE.match(words):
            return self._is_closed_type(match)
        if words.startswith("CREATE AGGREGATE "):
            return bool(_INTERNAL_STATE.search(_QUOTED.sub("", words)))
        if _ROUTINE.match(words):
            return self._is_closed_routine(words)
        if kind in _ROWS:
            concern = concern_of(kind, words.encode(_CODEC), _CODEC)
            relation = concern.table or concern.other
            return relation is not None and self._server.made_by_extension(relation)
        return False

    def _is_closed_type(self, match: re.Match[str]) -> bool:
        """A base type, or what only announces one; and what was announced is its maker's."""
        if match["rest"] == ";":
            self._shells.add(match["name"])
        return match["rest"] != " AS " or match["name"] in self._shells

    def _is_closed_routine(self, words: str) -> bool:
        """Whether language, attributes or settings are a superuser's alone."""
        head = _head(words)
        language = _LANGUAGE.search(head)
        if language is None:
            return False
        if _CLOSED_WORDS.search(head) or language["name"] in ("c", "internal"):
            return True
        settings = _SETTING.findall(head)
        return not self._is_trusted(language["name"]) or not all(map(self._server.frees, settings))

    def _is_trusted(self, language: str) -> bool:
        return language in ("sql", "plpgsql") or self._server.trusts(language.strip('"'))


def _head(words: str) -> str:
    """What stands before the body of a routine; constants are empty, and names in quotes hold no blanks."""
    return re.split(r"\n    (?:AS|BEGIN ATOMIC|RETURN) ?", _QUOTED.sub(_harmless, words), maxsplit=1)[0]


def _harmless(quoted: re.Match[str]) -> str:
    return "''" if quoted[0].startswith("'") else f'"{re.sub("[^a-zA-Z0-9_]", "_", quoted[0][1:-1])}"'


def _statement(owner: re.Match[str]) -> bytes:
    return f"{owner['start']}{owner['owner']};\n".encode(_CODEC)
