"""Stored parts → decryption → decompression → plain text → pieces of the dump, proved, in bounded memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import zstandard

from tasks.errors import BackupDamaged, DumpFailed
from tasks.restore.download import Parts
from tasks.restore.dump_reader import DumpReader, Piece
from tasks.storage.backup_values import StoredBackup
from tasks.storage.encoders import decrypted

CHUNK = 1 << 20  # bytes
#: Bytes of a Zstandard frame that are decompressed at once: each can stand for 32 KiB of text.
_PIECE = 1 << 10


@contextmanager
def plain_text(parts: Parts, backup: StoredBackup, identities: Sequence[str]) -> Iterator[Iterator[tuple[int, bytes]]]:
    """Offset in the plain text, and text, decrypted and decompressed. Raises BackupDamaged naming the file."""
    if backup.codec == "none" and not backup.encrypted:
        yield parts.stored_bytes()
        return
    stored = (chunk for _, chunk in parts.stored_bytes())
    try:
        with decoded(stored, backup.codec, identities) as chunks:
            yield _numbered(chunks)
    except BackupDamaged as error:
        if backup.filename in str(error):
            raise
        raise BackupDamaged(f"{backup.filename}: {error}") from None


def _numbered(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    at = 0
    for chunk in chunks:
        yield at, chunk
        at += len(chunk)


def without(chunk: bytes, offset: int, skipped: Sequence[tuple[int, int]]) -> Iterator[bytes | memoryview]:
    """What of a chunk lies in none of the skipped ranges, which are in order."""
    if not skipped:
        yield chunk
        return
    at, end = offset, offset + len(chunk)
    view = memoryview(chunk)
    for low, high in skipped:
        if high > at and low < end:
            if low > at:
                yield view[at - offset : low - offset]
            at = min(high, end)
    if at < end:
        yield view[at - offset :]


class Chunks(io.RawIOBase):
    """A file to read, made of an iterator of its bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._left = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._left:
            self._left = memoryview(next(self._chunks, b""))
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


@contextmanager
def decoded(stored: Iterator[bytes], codec: str, identities: Sequence[str]) -> Iterator[Iterator[bytes]]:
    """The plain text in chunks, for the length of a `with` block; `identities` decrypt it when there are any.

    Reading raises BackupDamaged when the bytes are not what the codec or age writes, or end too early.
    """
    if codec == "none" and not identities:
        yield stored
        return
    with _opened(io.BufferedReader(Chunks(stored), CHUNK), identities) as opened:  # type: ignore[arg-type]
        yield _read(_zstd_text(opened) if codec == "zstd" else _chunks(_decompressed(opened, codec)))


@contextmanager
def _opened(stored: IO[bytes], identities: Sequence[str]) -> Iterator[IO[bytes]]:
    if not identities:
        yield stored
        return
    with decrypted(stored, identities) as opened:
        yield opened


def _decompressed(stored: IO[bytes], codec: str) -> IO[bytes]:
    return gzip.GzipFile(fileobj=stored) if codec == "gzip" else stored  # type: ignore[return-value]


def _chunks(plain: IO[bytes]) -> Iterator[bytes]:
    while chunk := plain.read(CHUNK):
        yield chunk


def _zstd_text(stored: IO[bytes]) -> Iterator[bytes]:
    """The text of one frame. zstandard's own reader passes over a frame whose end is missing."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    while not frame.eof and (piece := stored.read(_PIECE)):
        if text := frame.decompress(piece):
            yield text
    if not frame.eof:
        raise EOFError("the end of the frame is missing")
    if frame.unused_data or stored.read(1):
        raise zstandard.ZstdError("bytes follow the frame")


def _read(chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise BackupDamaged(
            f"The stored file cannot be decompressed ({error}): nothing was restored; restore another backup."
        ) from None


def feed(
    take: Callable[[Piece], None],
    backup: StoredBackup,
    parts: Parts,
    identities: Sequence[str],
    skipped: Sequence[tuple[int, int]],
    reader: DumpReader,
    show: Callable[[int], None],
) -> int:
    """Gives `take` every piece of the dump but the ranges of the text that are `skipped`; returns the bytes read.

    When this returns, all of the text is proved, and the dump is whole. Each part was proved before `take` got it.
    `show` gets the bytes of SQL read so far. Raises BackupDamaged.
    """
    proof, read = hashlib.sha256(), 0
    with plain_text(parts, backup, identities if backup.encrypted else ()) as chunks:
        for offset, chunk in chunks:
            if offset + len(chunk) > backup.plain_size:
                raise BackupDamaged(
                    f"{backup.filename}: the SQL text is longer than the {backup.plain_size} bytes that the field "
                    "plain.size of its manifest says: nothing was restored; restore another backup."
                )
            if not parts.partial:
                proof.update(chunk)
            read += len(chunk)
            for wanted in without(chunk, offset, skipped):
                for piece in _pieces(reader.feed, backup, wanted):
                    take(piece)
            show(read)
    if not parts.partial and (read, proof.hexdigest()) != (backup.plain_size, backup.plain_sha256):
        raise BackupDamaged(
            f"{backup.filename}: the SQL text is not what was dumped (plain.sha256 and plain.size of the manifest say "
            f"otherwise; {read} bytes came out, {backup.plain_size} were expected): nothing was restored."
        )
    for piece in _pieces(reader.finish, backup):
        take(piece)
    return read


def _pieces(read: Callable[..., list[Piece]], backup: StoredBackup, *chunk: bytes | memoryview) -> list[Piece]:
    try:
        return read(*chunk)
    except (DumpFailed, BackupDamaged) as error:
        raise BackupDamaged(f"{backup.filename}: {error}") from None
