"""Undoes what encrypts, compresses or packs a dump, as often as needed. The content says what it is, not the name.

age file → age_filter          gzip, one member or several → zlib          Zstandard, one frame or several → zstandard
archive of pg_dump in custom format → pg_restore, which writes it as text
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import IO

import zstandard

from tasks.errors import AdoptionRefused, BackupDamaged
from tasks.postgres.child_processes import CHUNK, child, killed_when
from tasks.restore.decode import Chunks
from tasks.storage.encoders import Filtered, decrypted

#: Bytes that are looked at before the rest: the head of an archive in tar format, and all that pg_dump says of itself.
HEAD = 1 << 16
_MOST_LAYERS = 4
#: Bytes of a Zstandard frame that are decompressed at once: each can stand for 32 KiB of text.
_PIECE = 1 << 10
_KINDS = (
    ("age", re.compile(rb"age-encryption\.org/v1\n")),
    ("gzip", re.compile(rb"\x1f\x8b")),
    ("zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")),
    ("archive", re.compile(rb"PGDMP")),
)
_DIRECTORY = re.compile(rb"(?s:PGDMP.{5})\x05")
_TAR = re.compile(rb"(?s:.{257})ustar")  # pg_restore waits for ever for the end of one that is cut
_FOREIGN = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf": "7-Zip",
    b"-----BEGIN AGE ENCRYPTED FILE-----": "age, as armoured text",
    b"-----BEGIN PGP MESSAGE-----": "PGP",
}


@contextmanager
def opened(
    stored: Iterator[bytes], identities: Sequence[str], pg_restore: Callable[[], str], is_stopped: Callable[[], bool]
) -> Iterator[Iterator[bytes]]:
    """The text in chunks, for the length of a `with` block. `pg_restore` gives the program, when it is needed.

    A program that works ends as soon as `is_stopped` says so.

    Reading raises AdoptionRefused when the object is cut or changed, or is not for one of the identities.
    """
    with ExitStack() as held:
        chunks = stored
        for _ in range(_MOST_LAYERS):
            head, chunks = begin_of(chunks)
            kind = kind_of(head)
            if not kind:
                yield chunks
                return
            if kind == "archive":
                text = held.enter_context(_as_text(_file(chunks), pg_restore(), is_stopped))
                chunks = _read(text, "pg_restore cannot read all of it")
            else:
                chunks = _undone(kind, held, _file(chunks), identities)
        raise AdoptionRefused(f"It is packed more than {_MOST_LAYERS} times: unpack it first.")


def begin_of(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first `HEAD` bytes, or all when there are fewer; and everything, those bytes among it."""
    head = b""
    while len(head) < HEAD and (chunk := next(chunks, b"")):
        head += chunk
    return head, chain([head] if head else [], chunks)


def kind_of(head: bytes) -> str:
    """What has to be undone: age, gzip, zstd or archive; empty for text. Raises AdoptionRefused for what nobody can."""
    if _DIRECTORY.match(head):
        raise AdoptionRefused(
            "It is toc.dat, one file of a dump in directory format: make one file of the whole directory with "
            "pg_restore -f dump.sql DIRECTORY, and adopt that."
        )
    if _TAR.match(head):
        raise AdoptionRefused(
            "It is a tar file, which cannot be read while it comes: download it, make a text of it with "
            "pg_restore -f dump.sql FILE, and adopt that."
        )
    for mark, name in _FOREIGN.items():
        if head.startswith(mark):
            raise AdoptionRefused(f"It is packed with {name}, which is not read here: unpack it first.")
    return next((kind for kind, mark in _KINDS if mark.match(head)), "")


def _file(chunks: Iterator[bytes]) -> IO[bytes]:
    return io.BufferedReader(Chunks(chunks), CHUNK)  # type: ignore[arg-type,return-value]


def _undone(kind: str, held: ExitStack, source: IO[bytes], identities: Sequence[str]) -> Iterator[bytes]:
    if kind == "age":
        if not identities:
            raise AdoptionRefused("It is encrypted with age, and the plan has no identity: enter one in the plan.")
        return _read(held.enter_context(decrypted(source, identities)), "It cannot be decrypted with the plan's keys")
    if kind == "zstd":
        return _decompressed(_frames(source))
    return _decompressed(_read(gzip.GzipFile(fileobj=source), ""))  # type: ignore[arg-type]


@contextmanager
def _as_text(archive: IO[bytes], program: str, is_stopped: Callable[[], bool]) -> Iterator[IO[bytes]]:
    arguments = [program, "-f", "-"]
    with child(arguments, {"LC_ALL": "C"}, with_input=True) as reading, killed_when(reading, is_stopped):
        yield io.BufferedReader(Filtered(archive, reading), CHUNK)  # type: ignore[arg-type]


def _read(plain: IO[bytes], failure: str) -> Iterator[bytes]:
    try:
        while chunk := plain.read(CHUNK):
            yield chunk
    except BackupDamaged as error:
        why = str(error)[str(error).find("(") : str(error).rfind(")") + 1]
        if "unsupported version" in why:
            raise AdoptionRefused(
                f"A newer pg_dump made the archive than this worker's pg_restore reads {why}: install client programs "
                "of that version."
            ) from None
        raise AdoptionRefused(f"{failure} {why}: it is cut or changed, or it is something else.") from None


def _decompressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise AdoptionRefused(f"It cannot be decompressed ({error}): it is cut or changed.") from None


def _frames(stored: IO[bytes]) -> Iterator[bytes]:
    """The text of all frames. zstandard's own reader passes over a frame whose end is missing."""
    piece = stored.read(_PIECE)
    while piece:
        frame = zstandard.ZstdDecompressor().decompressobj()
        while True:
            if text := frame.decompress(piece):
                yield text
            piece = frame.unused_data if frame.eof else stored.read(_PIECE)
            if frame.eof:
                break
            if not piece:
                raise EOFError("the end of the frame is missing")
        piece = piece or stored.read(_PIECE)
