"""A dump's text as pg_dump wrote it, where something wrote it down in another way: PowerShell's `>`, an editor.

UTF-16 becomes the encoding that the dump names, a byte order mark goes, and line ends of Windows become those of
pg_dump. pg_dump writes a carriage return among rows as `\\r`, so no value of a row changes by that.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import chain

from tasks.adopt.layers import HEAD, begin_of
from tasks.backup.dump import PYTHON_CODECS
from tasks.errors import AdoptionRefused

_ENCODING = re.compile(r"^SET client_encoding = '([A-Z0-9_]+)';", re.MULTILINE)
_UTF16 = (("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff"), ("utf-16-le", b"-\0"), ("utf-16-be", b"\0-"))
_LOST = "\N{REPLACEMENT CHARACTER}"
UTF16_NOTE = (
    "It was written in UTF-16, as PowerShell's > does: that can change characters outside ASCII before they reach the "
    "file, which nothing in it shows. Compare some of them after the drill."
)
WINDOWS_NOTE = "Its line ends are those of Windows, and were made those of pg_dump."


def plain_sql(chunks: Iterator[bytes]) -> tuple[Iterator[bytes], tuple[str, ...]]:
    """The text, and a sentence for each thing that was undone. Reading raises AdoptionRefused for lost characters."""
    head, chunks = begin_of(chunks)
    notes = []
    if codec := next((codec for codec, mark in _UTF16 if head.startswith(mark)), ""):
        notes.append(UTF16_NOTE)
        chunks = _from_utf16(chunks, codec, _encoding_of(head, codec))
        head, chunks = begin_of(chunks)
    if head.startswith(codecs.BOM_UTF8):
        chunks = chain([head.removeprefix(codecs.BOM_UTF8)], _after(chunks))
    if head.partition(b"\n")[0].endswith(b"\r"):
        notes.append(WINDOWS_NOTE)
        chunks = _without_returns(chunks)
    return chunks, tuple(notes)


def _after(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """All but the first chunk."""
    next(chunks)
    return chunks


def _encoding_of(head: bytes, codec: str) -> str:
    named = _ENCODING.search(head[: HEAD // 2 * 2].decode(codec, "ignore"))
    return str(PYTHON_CODECS.get(named[1] if named else "UTF8", "utf-8"))


def _from_utf16(chunks: Iterator[bytes], codec: str, wanted: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        for chunk in chain(chunks, [b""]):
            text = decoder.decode(chunk, final=not chunk).removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
            if _LOST in text:
                raise AdoptionRefused(
                    "Characters were lost when it was written (it has U+FFFD in their place): write the dump with "
                    "pg_dump -f FILE, not with >."
                )
            yield text.encode(wanted)
    except UnicodeError:
        raise AdoptionRefused(
            "Its text in UTF-16 is cut or changed, or has characters that the encoding of the dump lacks: write the "
            "dump with pg_dump -f FILE, not with >."
        ) from None


def _without_returns(chunks: Iterator[bytes]) -> Iterator[bytes]:
    kept = b""
    for chunk in chunks:
        text = kept + chunk
        kept = b"\r" if text.endswith(b"\r") else b""
        yield text[: len(text) - len(kept)].replace(b"\r\n", b"\n")
    yield kept
