"""COPY of whole tables: in from made rows, and out and in again until the order of the rows stays as it is."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO

from psycopg2.extensions import cursor as Cursor

from deployments.sample import rows

Progress = Callable[[str], None]
#: Opens a transaction of its own: committed at the end of its `with` block, rolled back on an error.
Begin = Callable[[], AbstractContextManager[Cursor]]

ROUNDS = 6
_REPORT_EVERY = 250_000_000  # bytes
_CHUNK = 1 << 16
#: Text as pg_dump writes it, so that COPY gathers as many rows a batch as it does in a restore.
_AS_PG_DUMP = """
    SET LOCAL TimeZone TO DEFAULT;
    SET LOCAL extra_float_digits = 3;
    SET LOCAL synchronize_seqscans = off;
"""


def load(cursor: Cursor, content: rows.Content, report: Progress, option: str = "") -> None:
    """Stream one table's rows to the server; memory holds one batch."""
    stream = _Stream(content, report)
    cursor.copy_expert(f"COPY {content.table} ({content.columns}) FROM STDIN {option}", stream, size=_CHUNK)
    report(f"{content.table}: {cursor.rowcount:,} rows")


def settle(begin: Begin, table: str, columns: str) -> bool:
    """Whether the rows of `table`, now, come in an order that a plain restore of their dump keeps.

    COPY puts a narrow row into the gap that a wide one left on an earlier page, unless its own transaction
    made the table. So the rows are taken out and put back, as a dump and a restore would, until they come out
    as they went in; False when they still did not after ROUNDS rounds. Memory holds one chunk: the rows are
    in a temporary file meanwhile, and lost when the program dies.
    """
    before = b""
    with tempfile.TemporaryFile() as spool:
        for _ in range(ROUNDS):
            with begin() as cursor:
                after = _take_out(cursor, table, columns, spool)
                if after == before:
                    return True
                cursor.execute(f"TRUNCATE {table}")
            with begin() as cursor:
                cursor.copy_expert(f"COPY {table} ({columns}) FROM STDIN", spool, size=_CHUNK)
            before = after
        with begin() as cursor:
            return _take_out(cursor, table, columns, spool) == before


def _take_out(cursor: Cursor, table: str, columns: str, spool: BinaryIO) -> bytes:
    """The digest of the table's rows in their order; `spool` has them, and is at its start."""
    cursor.execute(_AS_PG_DUMP)
    spool.seek(0)
    spool.truncate()
    writer = _Digested(spool)
    cursor.copy_expert(f"COPY {table} ({columns}) TO STDOUT", writer)
    spool.seek(0)
    return writer.digest.digest()


class _Digested(io.RawIOBase):
    """A file to write to, and the SHA-256 of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """All of `data`."""
        self.digest.update(data)
        return self._file.write(data)


class _Stream(io.RawIOBase):
    """A table's rows as the file that COPY reads from; a read gives at most `size` bytes."""

    def __init__(self, content: rows.Content, report: Progress) -> None:
        self._table, self._batches, self._report = content.table, content.batches, report
        self._pieces: Iterator[bytes] = iter(())
        self._sent = self._reported = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        piece = next(self._pieces, b"")
        while not piece:
            batch = next(self._batches, None)
            if batch is None:
                return b""
            data = batch.encode()
            step = size if size > 0 else max(len(data), 1)
            self._pieces = (data[at : at + step] for at in range(0, len(data), step))
            piece = next(self._pieces, b"")
        self._sent += len(piece)
        if self._sent - self._reported >= _REPORT_EVERY:
            self._reported = self._sent
            self._report(f"{self._table}: {self._sent // 1_000_000:,} MB so far")
        return piece
