"""Compression of a dump on its way into the stored file. Stock tools undo each format.

none   the plain text, as pg_dump wrote it
zstd   one Zstandard frame (RFC 8878): `zstd -d`
gzip   one gzip member (RFC 1952): `gunzip`
"""

from __future__ import annotations

import zlib
from typing import Protocol

import zstandard

ZSTD_LEVEL = 1  # close to 3 in size on dumps, twice as fast
GZIP_LEVEL = 1


class Encoder(Protocol):
    """Takes plain bytes and gives stored bytes, which may come later."""

    def encode(self, chunk: memoryview) -> bytes | memoryview:
        """The stored bytes that are ready, perhaps none."""

    def finish(self) -> bytes:
        """The remaining stored bytes."""


class Plain:
    """No compression."""

    def encode(self, chunk: memoryview) -> memoryview:
        return chunk

    def finish(self) -> bytes:
        return b""


class Zstd:
    """One Zstandard frame with a checksum, made by two threads."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=2, write_checksum=True).compressobj()

    def encode(self, chunk: memoryview) -> bytes:
        return self._compressor.compress(chunk)

    def finish(self) -> bytes:
        return self._compressor.flush()


class Gzip:
    """One gzip member."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)

    def encode(self, chunk: memoryview) -> bytes:
        return self._compressor.compress(chunk)

    def finish(self) -> bytes:
        return self._compressor.flush()


ENCODERS: dict[str, type[Encoder]] = {"none": Plain, "zstd": Zstd, "gzip": Gzip}
