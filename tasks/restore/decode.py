"""From the stored file back to plain text: decryption, then decompression, in bounded memory."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import zstandard

from tasks.errors import BackupDamaged
from tasks.storage.encryption import decrypted

CHUNK = 1 << 20  # bytes


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

    Reading raises BackupDamaged when the bytes are not what the codec or age writes. A file that is cut off may just
    end: whoever reads compares size and SHA-256.
    """
    if codec == "none" and not identities:
        yield stored
        return
    with _opened(io.BufferedReader(Chunks(stored), CHUNK), identities) as opened:  # type: ignore[arg-type]
        yield _read(_decompressed(opened, codec))


@contextmanager
def _opened(stored: IO[bytes], identities: Sequence[str]) -> Iterator[IO[bytes]]:
    if not identities:
        yield stored
        return
    with decrypted(stored, identities) as opened:
        yield opened


def _decompressed(stored: IO[bytes], codec: str) -> IO[bytes]:
    if codec == "zstd":
        return zstandard.ZstdDecompressor().stream_reader(stored, read_size=CHUNK)
    return gzip.GzipFile(fileobj=stored) if codec == "gzip" else stored  # type: ignore[return-value]


def _read(plain: IO[bytes]) -> Iterator[bytes]:
    try:
        while chunk := plain.read(CHUNK):
            yield chunk
    except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise BackupDamaged(
            f"The stored file cannot be decompressed ({error}): nothing was restored; restore another backup."
        ) from None
