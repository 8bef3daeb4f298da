"""One run of psql: what it is sent, what it answers, which error ended it, and whether it has committed."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress

from tasks.errors import (
    AccessRefused,
    BackupDamaged,
    BackupSystemError,
    RestoreFailed,
    RestoreRefused,
    RowsDiffer,
    Unreachable,
)
from tasks.postgres.child_processes import Child
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import rows, source_session
from tasks.restore.compare import Expected, difference, expected_rows, without_partitions
from tasks.restore.dump_reader import Piece
from tasks.restore.entries import READ_ROWS, entry_name, rows_entry
from tasks.restore.sql_errors import SentLines, SqlError, last_error, warnings_in
from tasks.restore.values import LARGE_OBJECTS, RestoreRun, TableCount
from tasks.storage.backup_values import raw_name

#: Variables that psql sets. In an array slice such as a[1:"USER"] it would replace the column by their value.
_VARIABLES = (
    "DBNAME",
    "ENCODING",
    "HOST",
    "PORT",
    "SERVER_VERSION_NAME",
    "SERVER_VERSION_NUM",
    "SERVICE",
    "USER",
    "VERSION",
    "VERSION_NAME",
    "VERSION_NUM",
)
_UTF8 = b"\nSET client_encoding = 'UTF8'; SET standard_conforming_strings = on;\n"
_READS_AS = (
    "pg_catalog.current_setting('standard_conforming_strings') || ' ' || pg_catalog.current_setting('client_encoding')"
)
_READS = "reads as"
#: What psql says of a backslash command after `\\restrict`.
_RESTRICTED = "backslash commands are restricted"
#: With it psql prints the SQLSTATE of an error, which shows in every language whose fault the error is.
#: The context shows which message comes from within a function.
_VERBOSE = "\\set VERBOSITY verbose\n\\set SHOW_CONTEXT always\n"
#: What psql prints when a connection broke, or could not be made at the moment.
_MAY_PASS = (
    "server closed the connection",
    "terminating connection",
    "connection to server",
    "connection not open",
    "could not receive data from server",
    "could not send data to server",
    "SSL connection has been closed",
    "SSL error",
    "the database system is",
    "deadlock detected",
)
_ADVICE = {
    "max_locks_per_transaction": "raise max_locks_per_transaction on the server (to 1024, say), and restart it.",
    "No space left on device": "make room on the server's disk, and try again.",
    "must be owner of": "restore as the owner or as a superuser.",
    "permission denied": "grant it, or restore as a superuser.",
    "lock timeout": "end what holds the lock, and try again.",
}
_ADVICE_ON_ENTRY = "correct the cause and run the same restore again, or name the entry in `without` to leave it out."
_LONGEST = 2000  # characters of what psql printed last
_OUTCOME_SECONDS = 60.0
#: How long the server may wait for psql, in seconds, while psql has all that it needs.
LONGEST_SILENCE = 300.0
_LOOKS_EVERY = 10.0  # seconds
_WAITS_FOR_PSQL = """
    SELECT backend_start, query_start, state_change, state FROM pg_catalog.pg_stat_activity
     WHERE pid = %(pid)s AND wait_event = 'ClientRead'
"""


class PsqlSession:
    """A running psql, fed by `send_all`; what it prints is read all the while, so neither waits for the other.

    What is sent after `prepare` stands between `\\restrict` and `\\unrestrict` with a key that no dump can know:
    psql refuses every backslash command in it, wherever it sees strings end.
    """

    def __init__(
        self, psql: Child, dsn: Dsn, filename: str, holders: Callable[[], str], reads_as: Callable[[], str], key: str
    ) -> None:
        """`reads_as` says how the dump is read, as `DumpReader.reads_as`; `key` is that of the brackets, if any."""
        self.filename = filename
        self._reads_as, self._key = reads_as, key
        self._psql, self._dsn, self._holders = psql, dsn, holders
        self._sign = f"{secrets.token_hex(8)}:"
        self._answers: dict[str, str] = {}
        self._changed = threading.Condition()
        self._ended = False
        self._lines = SentLines()
        self._xid = ""
        self._silence = Silence(dsn)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def prepare(self, settings: bytes = b"") -> None:
        """Makes psql ready for the text of a dump, and runs `settings`."""
        commands = "".join(f"\\unset {name}\n" for name in _VARIABLES) + _VERBOSE + self._bracket("restrict")
        self._send(commands.encode() + _UTF8 + b"SET search_path = pg_catalog;\n" + settings)
        self._send(f"SELECT '{self._sign}pid=' || pg_catalog.pg_backend_pid();\n".encode())

    def close_bracket(self) -> None:
        """Sends psql the end of the brackets; the text of the dump has been sent. No error when psql has ended."""
        with suppress(BrokenPipeError):
            self._send(f"\n{self._bracket('unrestrict')}".encode())

    def _bracket(self, command: str) -> str:
        return f"\\{command} {self._key}\n" if self._key else ""

    def begin(self, before: bytes) -> None:
        """Opens the transaction and runs `before` in it."""
        self._send(b"BEGIN;\n")
        self._xid = self.ask("xid", "pg_catalog.txid_current()")
        self._send(before + b"\n")

    def run(self, statements: bytes) -> None:
        """Runs statements of the restore; returns when psql has run everything so far."""
        self._send(_UTF8 + statements + b"\n")
        self.ask("here", "1")

    def send_all(self, texts: Iterable[bytes]) -> None:
        """Sends pieces of the dump. Raises BrokenPipeError when psql has ended."""
        for text in texts:
            self._lines.add(text)
            self._psql.send(text)

    def send_pieces(self, pieces: Iterable[Piece]) -> None:
        """The same, so that an error names the entry that it belongs to."""
        for piece in pieces:
            self._lines.add(piece.data, piece.entry)
            self._psql.send(piece.data)

    def run_all(self, texts: Iterable[bytes]) -> None:
        """Sends pieces of the dump; returns when psql has run everything so far. Raises as `send_all` and `end_all`."""
        self.begin_all(texts)
        self.end_all()

    def begin_all(self, texts: Iterable[bytes]) -> None:
        """Sends pieces of the dump, for psql to run while others work. Raises BrokenPipeError when psql has ended."""
        self.send_all([*texts, b"\n"])
        self._put_question(_READS, _READS_AS)

    def is_at_work(self, seconds: float) -> bool:
        """Whether psql still runs what `begin_all` sent; waits so long for its end. Raises as `ask`."""
        return not self._has_answered(_READS, seconds)

    def end_all(self) -> None:
        """Returns when psql has run what `begin_all` sent. Raises as `ask`.

        Raises BackupDamaged when psql and the server now read strings in another way than the dump was read.
        """
        reads_as = self._answer(_READS)
        if reads_as != self._reads_as():
            raise BackupDamaged(
                f"{self.filename}: code in the dump, such as a function that a CHECK calls, has changed "
                f"standard_conforming_strings and client_encoding of the session to {reads_as}, so what followed might "
                f"have been taken for commands: the restore into {self._dsn.place} was ended, and all of it undone."
            )

    def ask(self, name: str, expression: str) -> str:
        """The value of an SQL expression, asked within the transaction. Raises what `failure` gives.

        Raises BackupDamaged when psql waits for the end of something that the dump does not close.
        """
        self._put_question(name, expression)
        return self._answer(name)

    def _put_question(self, name: str, expression: str) -> None:
        self._silence = Silence(self._dsn)
        question = f"SELECT '{self._sign}{name}=' || ({expression});\n"
        self._send(question.encode("utf-8", "surrogateescape"))

    def _answer(self, name: str) -> str:
        while not self._has_answered(name, seconds=1.0):
            pass
        if name not in self._answers:
            raise self.failure()
        return self._answers.pop(name)

    def _has_answered(self, name: str, seconds: float) -> bool:
        """Whether the answer is there, or psql has ended; waits for it."""
        with self._changed:
            if self._changed.wait_for(lambda: name in self._answers or self._ended, timeout=seconds):
                return True
        if self._silence.is_too_long(self._answers.get("pid", "")):
            raise BackupDamaged(
                f"{self.filename}: psql has had all of the dump so far and waits for more, so it holds a string, a "
                f"function or rows without an end: the restore into {self._dsn.place} was ended; restore another "
                "backup."
            )
        return False

    def commit(self) -> None:
        """Returns when the transaction is known to be committed; raises RestoreFailed when it is known not to be.

        Raises Unreachable when the server does not answer that for a minute.
        """
        try:
            self._send(f"COMMIT;\nSELECT '{self._sign}committed=yes';\n".encode())
            self.close_bracket()
            self._psql.end_of_input()
        except BrokenPipeError:
            pass  # the server is asked
        self._psql.wait()
        self._listener.join()
        if "committed" not in self._answers and not self._was_committed():
            raise self.failure()

    def end(self) -> None:
        """Ends psql: what was not committed is rolled back."""
        self._psql.kill()
        self._listener.join()

    def failure(self) -> BackupSystemError:
        """The error for a psql that ended early, with the server's error, but without values of rows."""
        status = self._psql.wait()
        printed = self._psql.complaints()
        if _RESTRICTED in printed:
            return BackupDamaged(
                f"{self.filename}: the dump holds a command for psql that pg_dump does not write: psql refused it, and "
                f"the restore into {self._dsn.place} was ended; restore another backup."
            )
        error, may_pass = self.server_error(), any(sign in self._dsn.clean(printed) for sign in _MAY_PASS)
        words, advice = self._dsn.clean(printed)[-_LONGEST:] or "it printed nothing", ""
        if error is not None:
            entry = self._lines.entry_at(error.line)
            is_entry = entry.number > 0 and not may_pass
            words = self._dsn.clean(error.sentence(not is_entry or entry.kind in READ_ROWS))
            words, advice = (f"{entry_name(entry)}: {words}", _ADVICE_ON_ENTRY) if is_entry else (words, "")
        text = f"psql ended with status {status} while it restored {self.filename} into {self._dsn.place}, "
        text += f"and everything was rolled back: {words}"
        if "lock timeout" in words and (holders := self._holders()):
            text += f" {holders}"
        if advice := next((special for sign, special in _ADVICE.items() if sign in words), advice):
            text += f" What to do: {advice}"
        if status < 0 or may_pass:
            return RestoreFailed(text)
        return RestoreRefused(text, error.sqlstate if error else "")

    def server_error(self) -> SqlError | None:
        """The server's error that ended psql; None when the server gave none."""
        return last_error(self._psql.complaints())

    def warnings(self) -> tuple[str, ...]:
        """The server's warnings that are among the last lines of psql."""
        return tuple(dict.fromkeys(map(self._dsn.clean, warnings_in(self._psql.complaints()))))

    def _was_committed(self) -> bool:
        """Whether the server records the transaction as committed. Raises Unreachable when it does not answer."""
        give_up = time.monotonic() + _OUTCOME_SECONDS
        while True:
            try:
                with self._dsn.session("restore outcome") as connection, connection.cursor() as cursor:
                    cursor.execute("SELECT pg_catalog.txid_status(%s)", [int(self._xid)])
                    (status,) = cursor.fetchone() or ("aborted",)
                if status != "in progress":
                    return bool(status == "committed")
            except (Unreachable, AccessRefused) as error:  # a server that is starting may refuse, in any language
                if time.monotonic() > give_up:
                    raise Unreachable(str(error)) from None
            if time.monotonic() > give_up:
                raise Unreachable(f"The transaction that restores {self._dsn.place} has not ended in a minute.")
            time.sleep(0.5)

    def _send(self, text: bytes) -> None:
        self._lines.add(text)
        self._psql.send(text)
        self._psql.flush()

    def _listen(self) -> None:
        sign = self._sign.encode()
        while line := self._psql.stdout.readline(1 << 16):
            if line.startswith(sign):
                name, _, value = line[len(sign) :].decode().rstrip("\n").partition("=")
                with self._changed:
                    self._answers[name] = value
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def counted_within(session: PsqlSession, run: RestoreRun, left_out: Collection[str] = ()) -> tuple[TableCount, ...]:
    """The rows of the restored tables as the transaction sees them."""
    tables = expected_rows(run.backup, run.chosen) if run.chosen or not run.tables else []
    tables = [table for table in tables if rows_entry(table.name) not in left_out]
    if run.backup.database.encoding == "SQL_ASCII":  # names may be no UTF-8
        session.run(b"SET client_encoding = 'SQL_ASCII';")
    counts = list(without_partitions(tables, [_count(session, table) for table in tables]))
    if not run.tables and not any(name.startswith("BLOB") for name in left_out):
        count = session.ask("rows", "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata")
        counts.append(TableCount(LARGE_OBJECTS, run.backup.large_objects, int(count)))
    return tuple(counts)


def _count(session: PsqlSession, table: Expected) -> TableCount:
    raw = raw_name(table.name)
    quoted = raw.replace("'", "''")
    of_extension = (
        "EXISTS (SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
        f" AND objid = '{quoted}'::pg_catalog.regclass AND deptype = 'e')"
    )
    count, at_least = session.ask(
        "rows", f"(SELECT count(*) FROM {table.scope} {raw}) || ' ' || {of_extension}"
    ).split()
    return TableCount(table.name, table.rows, int(count), at_least=at_least == "true")


def check(run: RestoreRun, counted: Sequence[TableCount]) -> None:
    """Raises RowsDiffer when a table does not have the rows that the manifest says."""
    if different := [table for table in counted if table.differs]:
        raise RowsDiffer(difference(run.database, run.backup.filename, different))


class Silence:
    """How long the server's process of a psql has waited for psql, without a statement in between.

    A server that works, on an index for hours or behind a lock, does not wait for psql.
    """

    def __init__(self, dsn: Dsn) -> None:
        self._dsn = dsn
        self._seen: object = None
        self._since = self._looked = time.monotonic()

    def is_too_long(self, pid: str) -> bool:
        """Whether it has lasted too long. Asks the server every ten seconds; when it does not answer, it has not."""
        now = time.monotonic()
        if not pid or now - self._looked < _LOOKS_EVERY:
            return False
        self._looked, seen = now, None
        with suppress(BackupSystemError), source_session(self._dsn, "restore: watches psql") as connection:
            seen = next(iter(rows(connection, _WAITS_FOR_PSQL, pid=int(pid))), None)
        if seen is None or seen != self._seen:
            self._seen, self._since = seen, now
        return seen is not None and now - self._since >= LONGEST_SILENCE
