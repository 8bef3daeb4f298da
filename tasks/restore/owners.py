"""Who owns what a dump makes: the last statement of an entry says it, and another role can be put there. Pure."""

from __future__ import annotations

import re

from tasks.backup.dump import PYTHON_CODECS

_CODEC = "latin-1"  # every byte is kept; in all encodings of servers, ASCII stands for nothing else
_I = r'(?:"(?:[^"]|"")+"|[a-z_\x80-\xff][a-z0-9_$\x80-\xff]*)'
#: The last statement of an entry. Quotation marks are always in pairs, so no text within another can look like it.
LAST_OWNER = re.compile(
    rf'\n(?P<start>ALTER (?P<kind>[A-Z]+(?: [A-Z]+)*) (?:[^\'";]|"(?:[^"]|"")*")+ OWNER TO )'
    rf"(?P<owner>{_I});\n\s*(?:--\n)?\Z"
)
#: What only a superuser may own, in one version or another.
OF_SUPERUSERS = ("EVENT TRIGGER", "FOREIGN DATA WRAPPER", "PUBLICATION", "SUBSCRIPTION")
#: One entry can hold many large objects, each with an owner, and nothing else.
_LARGE_OBJECT = re.compile(rf"(?m)^(ALTER LARGE OBJECT \d+ OWNER TO ){_I};$")
_HEADER = re.compile(rb"(?m)^(-- (?:Data for )?Name: .*; Type: .*; Schema: .*); Owner: .*$")
_ACL_HEADER = re.compile(rb"(?m)^(-- Name: .*; Type: ACL; Schema: .*); Owner: .*$")
_ROLE = re.compile(rb'"(?:[^"]|"")+"|[a-zA-Z_\x80-\xff][a-zA-Z0-9_$\x80-\xff]*')
_ROLES = re.compile(rb" TO ((?:%b)(?:, (?:%b))+)(?= USING \(| WITH CHECK \(|;)" % (_ROLE.pattern, _ROLE.pattern))


def raw_role(name: str, encoding: str) -> bytes:
    """The name of a role as SQL writes it, in the encoding of a dump; nothing for no name."""
    quoted = name.replace('"', '""')
    return f'"{quoted}"'.encode(PYTHON_CODECS.get(encoding, "utf-8")) if name else b""


def with_owner(text: bytes, owner: bytes) -> bytes:
    """The text of an entry, or its end, with another owner; without one where that has to be a superuser."""
    words, role = text.decode(_CODEC), owner.decode(_CODEC)
    found = LAST_OWNER.search(words)
    if found is None:
        return text
    if found["kind"] == "LARGE OBJECT":
        return _LARGE_OBJECT.sub(lambda match: f"{match[1]}{role};", words).encode(_CODEC)
    given = "" if found["kind"] in OF_SUPERUSERS else f"{found['start']}{role};\n"
    return f"{words[: found.start()]}\n{given}".encode(_CODEC)


def without_owner(text: bytes) -> bytes:
    """The text of an entry, or its end, without the statement that gives it an owner."""
    words = text.decode(_CODEC)
    if found := LAST_OWNER.search(words):
        words = words[: found.start()]
        if found["kind"] == "LARGE OBJECT":
            words = _LARGE_OBJECT.sub("", words)
    return f"{words.rstrip()}\n".encode(_CODEC)


def without_owner_above(text: bytes) -> bytes:
    """The beginning of an entry, whose comment names no owner."""
    return _HEADER.sub(rb"\1", text, count=1)


def on_any_server(kind: str, text: bytes, any_owner: bool = False) -> bytes:
    """The beginning of an entry, without what depends on the server and not on the database. Pure.

    That is who owns what PostgreSQL or an extension has made, in the comment above a grant; and the order of the roles
    of a policy, which is the one in which they were made.
    """
    if kind == "ACL":
        return _ACL_HEADER.sub(rb"\1", text, count=1)
    if any_owner:
        text = without_owner_above(text)
    if kind == "POLICY":
        return _ROLES.sub(lambda roles: b" TO " + b", ".join(sorted(_ROLE.findall(roles[1]))), text)
    return text
