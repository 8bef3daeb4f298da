"""Runs pg_dump and turns its text, while it passes, into hashed part files in the spool.

pg_dump and the sessions for large tables ─pipes→ SHA-256 of the plain text, rows and ranges of every table → encoder
→ parts, each with SHA-256
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import IO

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import encodings

from tasks.backup.dump_errors import dump_error, lock_error
from tasks.backup.large_tables import (
    JoiningScanner,
    LargeTable,
    Unit,
    large_tables,
    lock_tables,
    renamed,
    session_commands,
    units_of,
)
from tasks.backup.row_readers import Session, psql_beside, reading
from tasks.backup.same_tables import AGAIN, SeenTables, seen_tables
from tasks.backup.scanner import DumpScanner
from tasks.backup.source import source_facts
from tasks.errors import DumpFailed, TablesChanged, named
from tasks.postgres.child_processes import CHUNK, child, killed_when, widen
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import source_session
from tasks.storage.backup_stages import BackupRun, Dump
from tasks.storage.backup_values import Part, SourceFacts, TableData, raw_name
from tasks.storage.encoders import ENCODERS, Encoder, Plain, encrypted
from tasks.storage.spool import Spool, private_file

LOCK_WAIT = 30  # seconds that pg_dump waits for a table; a longer wait would block other sessions behind it
_SNAPSHOTS = 3  # that one try takes, while tables change before pg_dump has locked them
#: Python's names of PostgreSQL's encodings. SQL_ASCII has none; it mostly holds UTF-8.
PYTHON_CODECS = {name: codec for name, codec in encodings.items() if name != "SQL_ASCII"}


def pg_dump_arguments(
    program: str,
    conninfo: str,
    snapshot: str,
    encoding: str,
    excluded: Sequence[str],
    without_rows: Sequence[str] = (),
    schemas: Sequence[str] = (),
) -> list[str]:
    """The argument list: plain format, a shared snapshot if there is one, no password, a bounded wait for locks. Pure.

    `encoding` is the database's own: another one may lack characters, and settings of the role ask for any. Names in
    `excluded`, `without_rows` and `schemas`, which are left out, are quoted where needed: each names one thing.
    """
    return [
        program,
        f"--dbname={conninfo}",
        "--format=plain",
        "--no-password",
        f"--lock-wait-timeout={LOCK_WAIT}s",
        *([f"--snapshot={snapshot}"] if snapshot else []),
        f"--encoding={encoding}",
        *(f"--exclude-schema={_argument(name, encoding)}" for name in schemas),
        *(f"--exclude-table={_argument(name, encoding)}" for name in excluded),
        *(f"--exclude-table-data={_argument(name, encoding)}" for name in without_rows),
    ]


def _argument(name: str, encoding: str) -> str:
    """A name as an argument: pg_dump takes its bytes for those of the database's encoding."""
    codec = PYTHON_CODECS.get(encoding, "utf-8")
    return os.fsdecode(raw_name(name).encode(codec, "surrogateescape"))


def dump(
    run: BackupRun,
    spool: Spool,
    dsn: Dsn,
    now: Callable[[], datetime],
    on_progress: Callable[[int], None],
) -> Dump:
    """Makes a whole dump, cut into parts in the spool. `on_progress` gets the number of stored bytes so far.

    Starts a new attempt of the spool: parts of an earlier try no longer count. Raises DumpFailed when another try may
    help, DumpRefused, DiskFull, or Stopped when the flow ended the work.
    """
    started_at = now()
    # Whatever several sessions failed for, another try does without: pg_dump alone needs the least of the server.
    jobs = run.jobs if spool.attempt() == 0 else 1
    locked: frozenset[str] = frozenset()
    for _ in range(_SNAPSHOTS - 1):
        try:
            return _dump(run, spool, dsn, now, on_progress, started_at, jobs, locked)
        except TablesChanged as changed:
            locked |= changed.tables
    return _dump(run, spool, dsn, now, on_progress, started_at, jobs, locked)


def _dump(
    run: BackupRun,
    spool: Spool,
    dsn: Dsn,
    now: Callable[[], datetime],
    on_progress: Callable[[int], None],
    started_at: datetime,
    jobs: int,
    locked: frozenset[str],
) -> Dump:
    """The same with one snapshot; tables in `locked` are locked before it is taken. Raises TablesChanged too."""
    name = application_name(run.run_id)
    with _shared_snapshot(dsn, name, run, jobs, locked) as (snapshot, source, rows):
        attempt = spool.begin_attempt()
        writer = PartWriter(spool, attempt)
        without_rows = [*run.left_out.rows, *(table.pattern for table in rows.tables)]
        encoding, conninfo = source.database.encoding, dsn.conninfo(mostly_reads=True)
        arguments = pg_dump_arguments(
            run.pg_dump, conninfo, snapshot, encoding, run.not_dumped, without_rows, run.left_out.schemas
        )
        commands = session_commands(rows.tables, snapshot)
        session = Session(psql_beside(run.pg_dump), dsn, name, commands, encoding)
        with (
            encrypted(ENCODERS[run.codec](), run.recipients) as encoder,
            reading(session, rows.units, jobs if rows.tables else 0, spool.is_stopped) as readers,
            child(arguments, dsn.child_environment(name)) as pg_dump,
            killed_when(pg_dump, lambda: spool.is_stopped() or readers.error is not None),
        ):
            sink = TextSink(encoder, writer, on_progress)
            scanner = _pump(pg_dump.stdout, sink, readers.pieces() if rows.tables else (), rows.check)
            status = pg_dump.wait()
            spool.check_stopped()
            if status != 0:
                raise dump_error(dsn, status, pg_dump.complaints())
            rows.check_schemas()
    codec = PYTHON_CODECS.get(source.database.encoding, "utf-8")
    tables = tuple(table.named_in(codec) for table in scanner.finish())
    parts = writer.close()
    spool.finish(attempt, len(parts))
    return sink.result(tables, parts, source, started_at, now())


def application_name(run_id: str) -> str:
    """The name of a run's sessions in pg_stat_activity (63 bytes at most)."""
    return f"backup {run_id}"[:63]


class TextSink:
    """Takes the text of a dump: hashes it, encodes it, and cuts what is stored into parts."""

    def __init__(self, encoder: Encoder, writer: PartWriter, on_progress: Callable[[int], None]) -> None:
        self._encoder, self._writer, self._on_progress = encoder, writer, on_progress
        self._plain = hashlib.sha256()
        self._stored = self._plain if isinstance(encoder, Plain) else hashlib.sha256()
        self.plain_size = self._stored_size = 0

    def take(self, text: memoryview) -> None:
        """The next text. Raises what `PartWriter.write` raises."""
        self._plain.update(text)
        self.plain_size += len(text)
        self._store(self._encoder.encode(text))
        self._on_progress(self._stored_size)

    def finish(self) -> None:
        """The text has ended."""
        self._store(self._encoder.finish())

    def _store(self, encoded: bytes | memoryview) -> None:
        self._stored_size += len(encoded)
        if self._stored is not self._plain:
            self._stored.update(encoded)
        self._writer.write(memoryview(encoded))

    def result(
        self,
        tables: tuple[TableData, ...],
        parts: tuple[Part, ...],
        source: SourceFacts,
        start: datetime,
        end: datetime,
    ) -> Dump:
        """The dump whose text has been taken."""
        return Dump(
            plain_size=self.plain_size,
            plain_sha256=self._plain.hexdigest(),
            stored_size=self._stored_size,
            stored_sha256=self._stored.hexdigest(),
            parts=parts,
            tables=tables,
            source=source,
            started_at=start,
            finished_at=end,
        )


def _pump(
    stdout: IO[bytes], sink: TextSink, rows: Iterable[tuple[Unit, Iterator[bytes]]], on_beginning: Callable[[], None]
) -> DumpScanner:
    """Reads the text to its end, with the rows of large tables. When it begins, pg_dump has locked all tables."""
    widen(stdout)
    buffer = memoryview(bytearray(CHUNK))
    scanner = JoiningScanner(sink.take, rows)
    begun = False
    while count := stdout.readinto(buffer):  # type: ignore[attr-defined]
        if not begun:
            on_beginning()
            begun = True
        scanner.feed(buffer[:count])
    scanner.hand_over_tail()
    sink.finish()
    return scanner


class PartWriter:
    """Cuts a stream of stored bytes into parts of the spool, each hashed as it is written."""

    def __init__(self, spool: Spool, attempt: int) -> None:
        self._spool, self._attempt = spool, attempt
        self._part_size, self._room = spool.size_of_parts(), 0
        self._parts: list[Part] = []
        self._file: IO[bytes] | None = None
        self._digest, self._size = hashlib.sha256(), 0

    def write(self, data: memoryview) -> None:
        """Appends; publishes every part that it fills. Raises DiskFull or Stopped."""
        while len(data):
            if self._file is None:
                self._open()
            piece = data[: self._part_size - self._size]
            self._digest.update(piece)
            self._write(piece)
            data = data[len(piece) :]
            if self._size == self._part_size:
                self._publish()

    def close(self) -> tuple[Part, ...]:
        """Publishes what is left; returns all parts."""
        if self._file is not None:
            self._publish()
        return tuple(self._parts)

    def _open(self) -> None:
        self._spool.check_stopped()
        if len(self._parts) == self._spool.most_parts:
            self._spool.note_too_small(self._attempt)
            raise DumpFailed(
                f"The dump is larger than expected and needs more than {self._spool.most_parts} parts of "
                f"{self._part_size} bytes: it starts over with larger ones."
            )
        if self._room < self._part_size:
            self._room = self._spool.wait_for_room(self._attempt)
        self._room -= self._part_size
        with self._spool.disk_errors():
            self._file = private_file(self._spool.unfinished(self._attempt))
        self._digest, self._size = hashlib.sha256(), 0

    def _write(self, piece: memoryview) -> None:
        assert self._file is not None
        with self._spool.disk_errors():
            self._size += len(piece)
            while len(piece):
                piece = piece[self._file.write(piece) :]

    def _publish(self) -> None:
        assert self._file is not None
        with self._spool.disk_errors():
            self._file.close()
        self._file = None
        part = Part(len(self._parts) + 1, self._size, self._digest.hexdigest())
        self._spool.publish(self._attempt, part)
        self._parts.append(part)


@dataclass(frozen=True)
class _Rows:
    """The large tables, which are locked, and what is to be read of them; and what the snapshot saw of all tables."""

    tables: tuple[LargeTable, ...]
    units: Iterator[Unit]
    seen: SeenTables
    session: Connection
    dsn: Dsn

    def check(self) -> None:
        """pg_dump has locked the tables: are they what they were? Raises DumpFailed."""
        if self.tables:
            with source_session(self.dsn, "backup: locked tables") as connection:
                self.seen.check(connection)
            return
        # pg_dump has snapshot and locks now, and nothing needs the session that made them: it costs no more connection.
        with self.session.cursor() as cursor:
            cursor.execute("ROLLBACK")
        self.seen.check(self.session)

    def check_schemas(self) -> None:
        """All rows have been read: are the schemas what they were? Raises DumpFailed."""
        with source_session(self.dsn, "backup: names of schemas") as connection:
            self.seen.check_schemas(connection)


@contextmanager
def _shared_snapshot(
    dsn: Dsn, name: str, run: BackupRun, jobs: int, locked: frozenset[str]
) -> Iterator[tuple[str, SourceFacts, _Rows]]:
    """A snapshot for pg_dump to share, the facts about the database in it, and the rows of large tables."""
    without_rows = [*run.not_dumped, *run.left_out.rows]
    with source_session(dsn, name) as connection:
        tables = large_tables(connection, without_rows) if jobs > 1 else ()
        with connection.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            _lock(connection, tables, locked, dsn)
            cursor.execute("SELECT pg_export_snapshot()")
            (snapshot,) = cursor.fetchone() or ("",)
        try:
            facts = source_facts(connection, run.not_dumped, run.left_out, run.recipients)
            seen = seen_tables(connection, without_rows)
        except psycopg2.errors.QueryCanceled as error:
            raise DumpFailed(f"{dsn.place} did not answer what it holds: {dsn.clean(str(error))}") from None
        yield str(snapshot), facts, _Rows(tables, units_of(connection, tables), seen, connection, dsn)


def _lock(connection: Connection, tables: Sequence[LargeTable], others: frozenset[str], dsn: Dsn) -> None:
    names = [*(table.pattern for table in tables), *sorted(others)]
    if not names:
        return
    try:
        lock_tables(connection, names, LOCK_WAIT)
    except psycopg2.errors.LockNotAvailable:
        raise lock_error(dsn, f"A table of {dsn.place} was locked for {LOCK_WAIT} s.") from None
    except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
        raise DumpFailed(f"A table of {dsn.place} was dropped when the dump began.") from None
    for sentence in named("Renamed when the dump began: ", renamed(connection, tables), AGAIN):
        raise DumpFailed(sentence)
