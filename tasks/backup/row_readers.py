"""Several psql sessions that read the rows of large tables in the snapshot of the dump, and hand them over in order.

Each session reads one unit at a time and keeps at most `AHEAD` bytes of it, until its turn has come. The end of a unit
is known by a mark that psql prints behind it, which no row can hold but by chance (128 random bits).
"""

from __future__ import annotations

import os
import queue
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from psycopg2.extensions import connection as Connection

from tasks.backup.dump_errors import dump_error, lock_error
from tasks.backup.large_tables import Unit
from tasks.errors import BackupSystemError, Stopped
from tasks.postgres.child_processes import Child, child, killed_when, widen
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import rows

CHUNK = 1 << 20  # bytes that are read at once
AHEAD = 12 << 20  # bytes of a unit that wait for their turn
_LOOKS_EVERY = 0.2  # seconds
#: Bytes of SQL from which on several sessions are worth it, and how many at most, unless the plan says otherwise.
_WORTH_SEVERAL, _MOST_JOBS = 100 << 20, 4
_OTHER_SESSIONS = 4  # of a run: pg_dump, the snapshot, the catalogue, and one to spare; a restore has as many
_FREE_CONNECTIONS = """
    SELECT greatest(0, least(
             current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
               - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
             CASE WHEN rolconnlimit >= 0
                  THEN rolconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid) END,
             CASE WHEN datconnlimit >= 0
                  THEN datconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE datid = d.oid) END))::int AS free
      FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()
"""

_T = TypeVar("_T")
#: The pieces of one unit that wait for their turn; None ends them.
_Chunks = queue.Queue[bytes | None]


@dataclass(frozen=True)
class Session:
    """What a session needs to be one of the dump's own."""

    psql: str
    dsn: Dsn
    application_name: str
    commands: str
    """What it runs before it reads."""
    encoding: str

    @property
    def arguments(self) -> list[str]:
        return [
            self.psql,
            f"--dbname={self.dsn.conninfo(mostly_reads=True)}",
            "--no-psqlrc",
            "--no-password",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
        ]

    @property
    def environment(self) -> dict[str, str]:
        return {**self.dsn.child_environment(self.application_name), "PGCLIENTENCODING": self.encoding}


@contextmanager
def reading(session: Session, units: Iterable[Unit], jobs: int, must_stop: Callable[[], bool]) -> Iterator[Readers]:
    """`jobs` sessions read the units during the block, and end with it, or as soon as `must_stop` says so.

    Raises the error of a session that failed, which counts for more than what followed from it.
    """
    readers = Readers(session, units)
    with ThreadPoolExecutor(max(1, jobs), thread_name_prefix="reads rows") as pool:
        for _ in range(jobs):
            pool.submit(readers.work, must_stop)
        try:
            yield readers
        except BackupSystemError as error:
            raise readers.error or error from None
        finally:
            readers.stopped.set()


class Readers:
    """The sessions of one dump, and what waits for its turn."""

    def __init__(self, session: Session, units: Iterable[Unit]) -> None:
        self._session, self._units = session, iter(units)
        self._claimed: queue.Queue[tuple[Unit, _Chunks] | None] = queue.Queue()
        self._lock = threading.Lock()
        self.stopped = threading.Event()
        self.error: BaseException | None = None

    def pieces(self) -> Iterator[tuple[Unit, Iterator[bytes]]]:
        """Each unit with its bytes, in order. Raises the error of the session that failed."""
        while claimed := self._wait_for(self._claimed):
            unit, chunks = claimed
            yield unit, iter(partial(self._wait_for, chunks), None)

    def _wait_for(self, answers: queue.Queue[_T]) -> _T:
        while True:
            try:
                return answers.get(timeout=_LOOKS_EVERY)
            except queue.Empty:
                if self.error is not None:
                    raise self.error from None

    def work(self, must_stop: Callable[[], bool]) -> None:
        """Reads unit after unit, in a session of its own."""
        try:
            with (
                child(self._session.arguments, self._session.environment, with_input=True) as psql,
                killed_when(psql, lambda: self.stopped.is_set() or must_stop()),
            ):
                self._read_units(psql)
        except BaseException as error:
            self.error = self.error or error

    def _read_units(self, psql: Child) -> None:
        widen(psql.stdout)
        ask = _Asking(psql, self._session)
        for _ in ask.answers(self._session.commands):
            pass
        while claimed := self._claim():
            unit, chunks = claimed
            for chunk in ask.answers(unit.commands):
                self._put(chunks, chunk)
            self._put(chunks, None)

    def _claim(self) -> tuple[Unit, _Chunks] | None:
        """The next unit, with an empty queue; from now on whoever takes the pieces waits for it."""
        with self._lock:
            unit = next(self._units, None)
            claimed = (unit, _Chunks(AHEAD // CHUNK)) if unit else None
            self._claimed.put(claimed)
            return claimed

    def _put(self, chunks: _Chunks, chunk: bytes | None) -> None:
        while not self.stopped.is_set():
            try:
                return chunks.put(chunk, timeout=_LOOKS_EVERY)
            except queue.Full:
                continue
        raise Stopped("The dump has ended.")


class _Asking:
    """Sends commands to psql, and reads what it prints up to the mark behind them."""

    def __init__(self, psql: Child, session: Session) -> None:
        self._psql, self._session = psql, session
        self._mark = secrets.token_hex(16).encode()

    def answers(self, commands: str) -> Iterator[bytes]:
        """What psql prints. Raises DumpFailed or DumpRefused when it ends."""
        end = self._mark + b"\n"
        try:
            self._psql.send(b"%b\\echo %b\n" % (commands.encode("ascii"), self._mark))
            self._psql.flush()
        except BrokenPipeError:
            raise self._error() from None
        kept = b""
        while read := os.read(self._psql.stdout.fileno(), CHUNK):
            kept += read
            if kept.endswith(end):
                yield kept[: -len(end)]
                return
            if len(kept) > len(end):
                yield kept[: -len(end)]
                kept = kept[-len(end) :]
        raise self._error()

    def _error(self) -> BaseException:
        status, complaints, dsn = self._psql.wait(), self._psql.complaints(), self._session.dsn
        if "lock timeout" in complaints:
            return lock_error(dsn, f"Another session waits to lock a table of {dsn.place} that is dumped.")
        return dump_error(dsn, status, complaints, "psql")


def wanted_jobs(jobs: int, size: int) -> int:
    """The sessions that a plan with these `jobs` wants for a database of `size` bytes; 0 is by size and cores."""
    return jobs or (min(_MOST_JOBS, os.cpu_count() or 1) if size >= _WORTH_SEVERAL else 1)


def possible_jobs(connection: Connection, wanted: int, pg_dump: str) -> tuple[int, tuple[str, ...]]:
    """How many of the wanted sessions can read rows, and a sentence when that is fewer."""
    if wanted > 1 and not psql_beside(pg_dump):
        return 1, (f"There is no psql beside {pg_dump}: pg_dump reads all rows itself.",)
    return possible_sessions(connection, wanted, "read rows")


def possible_sessions(connection: Connection, wanted: int, work: str) -> tuple[int, tuple[str, ...]]:
    """How many of the wanted sessions there can be for that work, and a sentence when that is fewer."""
    if wanted == 1:
        return 1, ()
    [row] = rows(connection, _FREE_CONNECTIONS)
    jobs = max(1, min(wanted, row["free"] - _OTHER_SESSIONS))
    if jobs == wanted:
        return jobs, ()
    return jobs, (f"{jobs} in place of {wanted} sessions {work}: the server has {row['free']} free connections.",)


def psql_beside(pg_dump: str) -> str:
    """The psql in the directory of this pg_dump; empty when there is none."""
    path = Path(pg_dump).with_name("psql")
    return str(path) if os.access(path, os.X_OK) else ""
