"""One run of psql: what it is sent, what it answers, which error ended it, and whether it has committed.

psql ends at the first error, so the last message with an SQLSTATE is that error; what came before were warnings.
The messages are read in the form that `\\set VERBOSITY verbose` gives, which is the same in every language:
`psql:<stdin>:12: FEHLER:  23505: …`, and lines for details. Details (`Key (x)=(a)`, `Failing row contains …`) and the
context of a COPY show rows, so they are not repeated.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from tasks.errors import AccessRefused, BackupSystemError, RestoreFailed, RestoreRefused, RowsDiffer, Unreachable
from tasks.postgres.child_processes import Child
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import condition
from tasks.restore.compare import Expected, difference, expected_rows, without_partitions
from tasks.restore.entries import rows_entry
from tasks.restore.values import LARGE_OBJECTS, RestoreRun, TableCount
from tasks.storage.backup_values import raw_name

_MESSAGE = re.compile(r"^psql:<stdin>:\d+: (?P<severity>[^:\n]{1,30}):  (?P<code>[0-9A-Z]{5}): (?P<text>.*)$")
_NEXT = re.compile(r"^(?:psql:<stdin>:\d+: |LINE \d+: |[^\s:][^:\n]{0,30}:  )")
_DEPENDENT = "2B"
_NAMES = {"TABLE NAME": "table", "COLUMN NAME": "column", "CONSTRAINT NAME": "constraint"}
#: Classes of SQLSTATE whose messages hold names alone: no feature, constraints, privileges, objects, resources, the
#: server. All others (data exceptions, errors that a function raises) may repeat a value.
_NAMES_ALONE = frozenset(
    ("08", "0A", "23", "25", "28", "2B", "2D", "3D", "3F", "40", "42", "53", "54", "55", "57", "58")
)

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
#: With it psql prints the SQLSTATE of an error, which shows in every language whose fault the error is.
_VERBOSE = "\\set VERBOSITY verbose\n"
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

    def prepare(self, settings: bytes = b"") -> None:
        """Makes psql ready for the text of a dump, and runs `settings`."""
        unset = "".join(f"\\unset {name}\n" for name in _VARIABLES)
        self._send(unset.encode() + _VERBOSE.encode() + _UTF8 + settings)

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
            self._psql.send(text)

    def run_all(self, texts: Iterable[bytes]) -> None:
        """Sends pieces of the dump; returns when psql has run everything so far. Raises as `send_all` and `ask`."""
        self.send_all([*texts, b"\n"])
        self.ask("here", "1")

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
        """The error for a psql that ended early, with the server's error, but without values of rows."""
        status = self._psql.wait()
        printed = self._psql.complaints()
        error = self.server_error()
        if error is None:
            words = self._dsn.clean(printed)[-_LONGEST:] or "it printed nothing"
        else:
            words = self._dsn.clean(error.sentence(reads_rows=True))
        text = f"psql ended with status {status} while it restored {self.filename} into {self._dsn.place}, "
        text += f"and everything was rolled back: {words}"
        if "lock timeout" in words and (holders := self._holders()):
            text += f" {holders}"
        if advice := next((advice for sign, advice in _ADVICE.items() if sign in words), ""):
            text += f" What to do: {advice}"
        if status < 0 or any(sign in self._dsn.clean(printed) for sign in _MAY_PASS):
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


@dataclass(frozen=True)
class SqlError:
    """The server's error that ended psql."""

    sqlstate: str
    text: str
    """The primary message."""
    about: str = ""
    """Table, column and constraint that the server names."""
    dependents: str = ""
    """What depends on an object that was to be dropped, as the detail of such an error lists it."""

    @property
    def may_show_values(self) -> bool:
        """Whether the message may repeat a value of a row, when the statement reads rows."""
        return self.sqlstate[:2] not in _NAMES_ALONE

    def sentence(self, reads_rows: bool) -> str:
        """The error in words. Where the statement reads rows, without a text that may repeat a value of one."""
        if not (reads_rows and self.may_show_values):
            return f"{self.text}{self.dependents} (SQLSTATE {self.sqlstate})"
        about = f" in {self.about}" if self.about else ""
        return f"{condition(self.sqlstate)}{about} (SQLSTATE {self.sqlstate})"


def last_error(printed: str) -> SqlError | None:
    """The error that ended psql; None when the server gave none, such as for a broken connection. Pure."""
    lines = printed.splitlines()
    for number in range(len(lines) - 1, -1, -1):
        if match := _MESSAGE.match(lines[number]):
            following = lines[number + 1 :]
            return SqlError(
                match["code"],
                _whole(match["text"], following),
                _about(following),
                _dependents(following) if match["code"].startswith(_DEPENDENT) else "",
            )
    return None


def warnings_in(printed: str) -> list[str]:
    """The server's warnings, without SQLSTATE; not the message that ended psql."""
    found = [match for line in printed.splitlines() if (match := _MESSAGE.match(line))]
    return [f"{match['severity']}:  {match['text']}" for match in found if match["severity"] == "WARNING"]


def _whole(first: str, following: list[str]) -> str:
    """A primary message of several lines, on one line."""
    words = [first]
    for line in following:
        if _NEXT.match(line):
            break
        words.append(line)
    return " ".join(" ".join(words).split())


def _about(following: list[str]) -> str:
    named = (line.partition(":  ") for line in following)
    return ", ".join(f"{_NAMES[label]} {name}" for label, _, name in named if label in _NAMES)


def _dependents(following: list[str]) -> str:
    for number, line in enumerate(following):
        if line.startswith("DETAIL:  "):
            return f" ({_whole(line.removeprefix('DETAIL:  '), following[number + 1 :])})"
    return ""
