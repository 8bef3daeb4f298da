"""One run of psql, which is one transaction, and whether that was committed."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from tasks.errors import AccessRefused, BackupSystemError, RestoreFailed, RestoreRefused, RowsDiffer, Unreachable
from tasks.postgres.child_processes import Child
from tasks.postgres.dsn import Dsn
from tasks.restore.compare import difference
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
_UTF8 = b"\nSET client_encoding = 'UTF8';\n"
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
_LONGEST = 2000  # characters of what psql printed last
_OUTCOME_SECONDS = 60.0


class PsqlSession:
    """A running psql, fed by `send_all`; what it prints is read all the while, so neither waits for the other."""

    def __init__(self, psql: Child, dsn: Dsn, filename: str, holders: Callable[[], str]) -> None:
        self.filename = filename
        self._psql, self._dsn, self._holders = psql, dsn, holders
        self._sign = f"{secrets.token_hex(8)}:"
        self._answers: dict[str, str] = {}
        self._changed = threading.Condition()
        self._ended = False
        self._xid = ""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def begin(self, before: bytes) -> None:
        """Opens the transaction and runs `before` in it."""
        unset = "".join(f"\\unset {name}\n" for name in _VARIABLES)
        self._send(unset.encode() + _UTF8 + b"BEGIN;\n")
        self._xid = self.ask("xid", "pg_catalog.txid_current()")
        self._send(before + b"\n")

    def run(self, statements: bytes) -> None:
        """Runs statements of the restore; returns when psql has run everything so far."""
        self._send(_UTF8 + statements + b"\n")
        self.ask("here", "1")

    def send_all(self, texts: Iterable[bytes]) -> None:
        """Sends pieces of the dump. Raises BrokenPipeError when psql has ended."""
        for text in texts:
            self._psql.send(text)

    def ask(self, name: str, expression: str) -> str:
        """The value of an SQL expression, asked within the transaction. Raises what `failure` gives."""
        question = f"SELECT '{self._sign}{name}=' || ({expression});\n"
        self._send(question.encode("utf-8", "surrogateescape"))
        with self._changed:
            while name not in self._answers and not self._ended:
                self._changed.wait(1.0)
            if name not in self._answers:
                raise self.failure()
            return self._answers.pop(name)

    def commit(self) -> None:
        """Returns when the transaction is known to be committed; raises RestoreFailed when it is known not to be.

        Raises Unreachable when the server does not answer that for a minute.
        """
        try:
            self._send(f"COMMIT;\nSELECT '{self._sign}committed=yes';\n".encode())
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
        """The error for a psql that ended early, with what it printed last."""
        status = self._psql.wait()
        printed = self._dsn.clean(self._psql.complaints())[-_LONGEST:] or "it printed nothing"
        text = f"psql ended with status {status} while it restored {self.filename} into {self._dsn.place}, "
        text += f"and everything was rolled back: {printed}"
        if "lock timeout" in printed and (holders := self._holders()):
            text += f" {holders}"
        if advice := next((advice for sign, advice in _ADVICE.items() if sign in printed), ""):
            text += f" What to do: {advice}"
        if status < 0 or any(sign in printed for sign in _MAY_PASS):
            return RestoreFailed(text)
        return RestoreRefused(text)

    def warnings(self) -> tuple[str, ...]:
        """The server's warnings that are among the last lines of psql."""
        lines = (re.sub(r"^psql:<stdin>:\d+: ", "", line) for line in self._psql.complaints().splitlines())
        return tuple(dict.fromkeys(self._dsn.clean(line) for line in lines if line.startswith("WARNING:")))

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


def counted_within(session: PsqlSession, run: RestoreRun) -> tuple[TableCount, ...]:
    """The rows of the restored tables as the transaction sees them."""
    chosen = set(run.chosen)
    tables = [table for table in run.backup.tables if not run.tables or table.name in chosen]
    if run.backup.database.encoding == "SQL_ASCII":  # names may be no UTF-8
        session.run(b"SET client_encoding = 'SQL_ASCII';")
    counts = [_count(session, table.name, table.rows) for table in tables]
    if not run.tables:
        count = session.ask("rows", "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata")
        counts.append(TableCount(LARGE_OBJECTS, run.backup.large_objects, int(count)))
    return tuple(counts)


def _count(session: PsqlSession, name: str, expected: int) -> TableCount:
    raw = raw_name(name)
    quoted = raw.replace("'", "''")
    of_extension = (
        "EXISTS (SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
        f" AND objid = '{quoted}'::pg_catalog.regclass AND deptype = 'e')"
    )
    count, at_least = session.ask("rows", f"(SELECT count(*) FROM ONLY {raw}) || ' ' || {of_extension}").split()
    return TableCount(name, expected, int(count), at_least=at_least == "true")


def check(run: RestoreRun, counted: Sequence[TableCount]) -> None:
    """Raises RowsDiffer when a table does not have the rows that the manifest says."""
    if different := [table for table in counted if table.differs]:
        raise RowsDiffer(difference(run.database, run.backup.filename, different))
