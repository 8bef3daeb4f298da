"""What the text of a dump says about the database that it comes from. All else is `unknown`, and says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from tasks.backup.dump import PYTHON_CODECS
from tasks.errors import AdoptionRefused
from tasks.restore.dump_reader import NO_ENTRY, Entry, Piece
from tasks.storage.backup_values import (
    UNKNOWN,
    Conditions,
    DatabaseProperties,
    Extension,
    Partition,
    SourceFacts,
)

_NAME = rb'(?:"(?:[^"]|"")+"|[^\s".,;()]+)'
_TABLE = rb"%b\.%b" % (_NAME, _NAME)
_EXTENSION = re.compile(rb"CREATE EXTENSION (?:IF NOT EXISTS )?(%b)(?: WITH SCHEMA (%b))?;" % (_NAME, _NAME))
_ATTACH = re.compile(rb"ALTER TABLE ONLY (?P<parent>%b) ATTACH PARTITION (?P<child>%b) " % (_TABLE, _TABLE))
_PARTITION_OF = re.compile(
    rb"CREATE (?:UNLOGGED |FOREIGN )?TABLE (?P<child>%b) PARTITION OF (?P<parent>%b)" % (_TABLE, _TABLE)
)
_POLICY_ROLES = re.compile(
    rb"CREATE POLICY %b ON %b (?:AS RESTRICTIVE )?(?:FOR [A-Z]+ )?TO (%b(?:, %b)*)" % (_NAME, _TABLE, _NAME, _NAME)
)
_MAPPED = re.compile(rb"CREATE USER MAPPING FOR (%b) SERVER " % _NAME)
_WORD = re.compile(rb'"(?:[^"]|"")+"|[^\s".,;()]+')
_BEFORE_ROLE = frozenset((b"TO", b"FROM", b"ROLE", b"AUTHORIZATION", b"BY"))
_LARGE_OBJECT = b"SELECT pg_catalog.lo_create("
_READ = ("EXTENSION", "TABLE ATTACH", "TABLE", "FOREIGN TABLE", "POLICY", "USER MAPPING", "ACL", "DEFAULT ACL")
#: Kinds of entries that define nothing.
_CONTENT = ("TABLE DATA", "SEQUENCE SET", "BLOBS", "BLOB", "BLOB COMMENTS", "BLOB METADATA", "STATISTICS DATA")
_NUMBERS = re.compile(r"(\d{1,3})(?:\.(\d{1,3}))?(?:\.(\d{1,3}))?", re.ASCII)


class DumpFacts:
    """Reads the pieces of a dump, and remembers what they say."""

    def __init__(self) -> None:
        self._entry, self._text = NO_ENTRY, b""
        self._kinds: set[str] = set()
        self._roles: set[str] = set()
        self._extensions: list[Extension] = []
        self._partitions: list[Partition] = []
        self._large_objects = 0
        self._codec = "utf-8"

    @property
    def is_content_alone(self) -> bool:
        """Whether the dump holds rows and defines nothing."""
        return "TABLE DATA" in self._kinds and self._kinds <= {*_CONTENT}

    def take(self, piece: Piece, encoding: str) -> None:
        """Adds a piece, in the dump's order."""
        if piece.entry != self._entry:
            self._end_entry()
            self._codec = PYTHON_CODECS.get(encoding, "utf-8")
            self._entry = piece.entry
            self._begin_entry(piece.entry)
        if not piece.rows and (piece.entry.kind in _READ or piece.entry.kind.startswith("BLOB")):
            self._text += piece.data
            if piece.entry.kind == "BLOBS":  # their content, which may be large
                self._text = b""

    def facts(self, server_version: str, encoding: str, plain_size: int) -> SourceFacts:
        """What the manifest holds of the database, once the last piece was taken."""
        self._end_entry()
        return SourceFacts(
            database=properties(server_version, encoding, plain_size),
            extensions=tuple(self._extensions),
            roles=tuple(sorted(self._roles)),
            large_objects=self._large_objects,
            partitions=tuple(dict.fromkeys(self._partitions)),
            conditions=Conditions((), True, (), ()),
        )

    def _begin_entry(self, entry: Entry) -> None:
        self._kinds.add(entry.kind)
        owner = entry.owner.partition("; Tablespace: ")[0]
        if owner not in ("", "-"):
            self._note_role(owner)

    def _end_entry(self) -> None:
        text, kind, self._text = self._text, self._entry.kind, b""
        self._large_objects += text.count(_LARGE_OBJECT)
        for role in _roles_in(kind, text):
            self._note_role(self._unquoted(role))
        if kind == "EXTENSION" and (made := _EXTENSION.search(text)):
            schema = self._unquoted(made[2]) if made[2] else "public"
            self._extensions.append(Extension(self._unquoted(made[1]), UNKNOWN, schema))
        if attached := (_ATTACH.search(text) or _PARTITION_OF.search(text)):
            self._partitions.append(Partition(self._read(attached["child"]), self._read(attached["parent"])))

    def _note_role(self, name: str) -> None:
        if name != "PUBLIC" and not name.startswith("pg_"):
            self._roles.add(name)

    def _read(self, name: bytes) -> str:
        return name.decode(self._codec, "backslashreplace")

    def _unquoted(self, name: bytes) -> str:
        text = self._read(name)
        return text[1:-1].replace('""', '"') if text.startswith('"') else text


def _roles_in(kind: str, text: bytes) -> Iterator[bytes]:
    """The roles that an entry names beside its owner, quoted where needed. Pure."""
    if kind in ("ACL", "DEFAULT ACL"):
        words = [word for line in text.split(b"\n") if not line.startswith(b"--") for word in _WORD.findall(line)]
        yield from (role for before, role in pairwise(words) if before in _BEFORE_ROLE)
    elif kind == "POLICY" and (named := _POLICY_ROLES.search(text)):
        yield from _WORD.findall(named[1])
    elif kind == "USER MAPPING" and (mapped := _MAPPED.search(text)):
        yield mapped[1]


def properties(server_version: str, encoding: str, plain_size: int) -> DatabaseProperties:
    """The database, as far as the text of a dump knows it: not its name, owner, locale, tablespace or settings. Pure.

    The encoding is that of the text, and the size that of the text, as the least that the database takes.
    """
    return DatabaseProperties(
        name=UNKNOWN,
        owner=UNKNOWN,
        encoding=encoding,
        collate=UNKNOWN,
        ctype=UNKNOWN,
        locale_provider="libc",
        icu_locale=None,
        icu_rules=None,
        builtin_locale=None,
        collation_version=None,
        tablespace=UNKNOWN,
        connection_limit=-1,
        is_template=False,
        comment=None,
        grants=None,
        settings=(),
        size=plain_size,
        server_version=server_version,
        server_version_number=_number(server_version),
    )


def _number(version: str) -> int:
    """150018 for 15.18, 90624 for 9.6.24. Raises AdoptionRefused for what is older than 9.0. Pure."""
    match = _NUMBERS.match(version)
    first, second, third = (int(number or 0) for number in match.groups()) if match else (0, 0, 0)
    number = first * 10_000 + (second if first >= 10 else second * 100 + third)
    if number < 90_000:
        raise AdoptionRefused(f"It comes from PostgreSQL {version[:20]}: only dumps of 9.0 and newer can be adopted.")
    return number
