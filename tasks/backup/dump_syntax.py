"""What the text of a dump is made of, as patterns over its bytes."""

from __future__ import annotations

import re
from string import ascii_letters, digits

# The start of a statement is looked at once this many bytes (or a whole line) are there.
HEAD_BYTES = 64
# A COPY statement names at most 1,600 columns of 63 bytes, each byte of which may be a doubled quote.
COPY_BYTES = 1 << 20
# pg_dump writes three short lines after its trailer comment.
TAIL_BYTES = 4096

WORD = rb"[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+"
TAG = rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+)?\$"
WORD_BYTES = frozenset(f"{ascii_letters}{digits}_$".encode() + bytes(range(128, 256)))
# No token of more than one byte ends in front of one of these: at the end of a chunk they wait for the next.
OPEN_ENDED = bytes(WORD_BYTES) + b"-/*&"

BLANK = re.compile(rb"[ \t\r\n\f\v]*+")
ATOM = rb"""[^'"$;()\\\r/-]++|(?<![eEbBxX&])'[^']*+'|"[^"]*+"|-(?!-)|/(?!\*)"""
NESTED = ATOM
for _ in range(4):
    NESTED = rb"%b|\((?:%b)*\)" % (ATOM, NESTED)


def head_pattern(more: bytes = b"") -> re.Pattern[bytes]:
    """What may stand where a statement may begin; `more` are alternatives, with named groups, that come first."""
    return re.compile(
        rb"(?P<trailer>-- PostgreSQL database dump complete\n)|"
        + (more + b"|" if more else b"")
        + rb"(?P<line>--)|(?P<block>/\*)|(?P<meta>\\)|(?P<copy>COPY )"
        rb"|SET standard_conforming_strings = (?P<strings>on|off);"
        rb"|(?P<routine>CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE) )|"
    )


#: Statements that are looked at one by one; of large objects, the long strings, for which bytes.find is faster.
NOT_SIMPLE = (
    rb"COPY |SET standard_conforming_strings |CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE) "
    rb"|SELECT pg_catalog\.lowrite\("
)


def simple_pattern(statements: bytes = b"", comments: bytes = b"") -> re.Pattern[bytes]:
    """Whole comment lines and whole statements of the common kind, as many as there are, to be passed at one go.

    `statements` and `comments` are alternatives: what begins so is not simple.
    """
    no_statement = NOT_SIMPLE + (b"|" + statements if statements else b"")
    no_comment = rb"-- PostgreSQL database dump complete\n" + (b"|" + comments if comments else b"")
    return re.compile(rb"(?:[ \t\r\n\f\v]++|(?!%b)--[^\r\n]*+\n|(?!%b)(?:%b)+;)*" % (no_comment, no_statement, NESTED))


HEAD, SIMPLE = head_pattern(), simple_pattern()
#: What pg_dump writes of a name: it quotes all but small letters, digits and the underscore.
_NAME = rb'(?:(?:"[^"]*+")++|[a-z0-9_]++)'
COPY = re.compile(rb"COPY (%b(?:\.%b)?) (?:\((?:%b(?:, )?)*+\))? FROM stdin;\n" % (_NAME, _NAME, _NAME))
COPY_END = re.compile(rb"\n\\\.")
FEW_BACKSLASHES = 1500  # that many are looked at one by one, at half the price of a search that no byte escapes
TOKEN = re.compile(rb"""['";()\\\r]|--|/\*|""" + TAG)
ROUTINE_TOKEN = re.compile(TOKEN.pattern + rb"|" + WORD)
ROUTINE_BLOCKS = frozenset((b"begin", b"case", b"end"))
ESCAPED = re.compile(rb"(?:[^'\\]++|\\.|'')*", re.DOTALL)
COMMENT_EDGE = re.compile(rb"/\*|\*/")
LINE_END = re.compile(rb"[\r\n]")
RESTRICT = re.compile(rb"\\restrict (\S+)\s*\Z")
TAIL = re.compile(rb"--\n\n(?:\\unrestrict (?P<key>[^\s]+)\n\n)?(?:(?:--[^\r\n]*+)?\n)*\Z")


def end_of_data(text: bytes, at: int) -> int:
    """Where the line end before a line stands that begins with `\\.`, from `at` on, or -1."""
    backslash = at
    for _ in range(FEW_BACKSLASHES):
        backslash = text.find(b"\\", backslash + 1)
        if backslash < 0:
            return -1
        if text[backslash - 1 : backslash + 2] == b"\n\\.":
            return backslash - 1
    found = COPY_END.search(text, backslash)
    return found.start() if found else -1
