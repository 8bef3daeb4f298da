"""Feeds a proved dump into psql, as one transaction that is committed only when everything is known to be right.

    stored bytes → plain text → pieces of the dump → psql

psql's own `--single-transaction` would commit a text that was cut off. Here the COMMIT is sent last: after every
part was proved, the trailer was seen, and the SHA-256 of the plain text was the manifest's.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from tasks.errors import (
    OutcomeUnknown,
    RestoreFailed,
    RestoreRefused,
    Unreachable,
)
from tasks.postgres.child_processes import child, killed_when
from tasks.postgres.dsn import Dsn
from tasks.postgres.tools import needs_restrict
from tasks.restore.decode import feed
from tasks.restore.download import Parts
from tasks.restore.dump_reader import DumpReader, Piece
from tasks.restore.entries import LeftOut, no_such_entry
from tasks.restore.psql_session import PsqlSession, check, counted_within
from tasks.restore.values import Loaded, RestoreRun
from tasks.storage.spool import Spool

#: Memory for the indexes of one restore; several sessions share it.
INDEX_MEGABYTES = 256
#: For the length of the session alone. Nothing may end it early, and indexes get the memory that they need. A dump is
#: read as it was written, whatever the settings of the database are: pg_dump relies on array_nulls.
_SETTINGS = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",
    "maintenance_work_mem": f"{INDEX_MEGABYTES}MB",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
}


class Selection(Protocol):
    """Decides which pieces of a dump go into psql; may hold pieces back until that is known."""

    def take(self, piece: Piece) -> Iterable[Piece]:
        """What goes in now."""

    def finish(self) -> Iterable[Piece]:
        """What was held back and goes in at the end of the dump."""


class Everything:
    """All of the dump."""

    def take(self, piece: Piece) -> Iterable[Piece]:
        return (piece,)

    def finish(self) -> Iterable[Piece]:
        return ()


@dataclass(frozen=True)
class Script:
    """One transaction: `before`, the selected pieces of the dump, `after`; all in SQL, in UTF-8.

    `skipped` are ranges of the plain text (start, end) that need not be read at all: rows of tables not chosen.
    """

    before: bytes = b""
    selection: Selection = field(default_factory=Everything)
    after: bytes = b""
    skipped: tuple[tuple[int, int], ...] = ()


def psql_arguments(program: str, conninfo: str) -> list[str]:
    """The argument list: no settings of the user's, no questions, an end at the first error, no password. Pure."""
    return [
        program,
        "--no-psqlrc",
        "--quiet",
        "--no-align",
        "--tuples-only",
        "--no-password",
        "--set=ON_ERROR_STOP=1",
        f"--dbname={conninfo}",
        "--file=-",
    ]


def session_settings(mode: str, server_version: int) -> dict[str, str]:
    """The settings of the restoring session. Pure.

    A scratch database need not be safe on disk before all of it is loaded: see `tasks.restore.load`.
    """
    settings = dict(_SETTINGS)
    if mode != "in_place":
        settings["synchronous_commit"] = "off"
    if server_version >= 140000:
        settings["idle_session_timeout"] = "0"
    if server_version >= 170000:
        settings["transaction_timeout"] = "0"
    return settings


def bracket_key(run: RestoreRun) -> str:
    """A new key for the brackets around a dump; empty where psql does not know them."""
    return secrets.token_hex(16) if needs_restrict(run.ground.psql.version_text) else ""


def load(
    run: RestoreRun,
    dsn: Dsn,
    parts: Parts,
    script: Script,
    identities: Sequence[str],
    spool: Spool,
    show: Callable[[int], None],
    settings: bytes = b"",
    holders: Callable[[], str] = str,
    left_out: LeftOut | None = None,
    freeze: bool = False,
) -> Loaded:
    """Everything that `script` selects is in the database `dsn`, committed; nothing is unless that is so.

    In place, rows are counted before the COMMIT. `show` gets the bytes of SQL read so far. `settings` are statements
    for the session. `holders` gives a sentence on who holds the lock that psql waited for in vain. `freeze` is for a
    database that holds nothing yet.
    Raises RestoreFailed when another try may help, RestoreRefused, RowsDiffer, BackupDamaged, OutcomeUnknown, or
    Stopped when the flow ended the work.
    """
    began = time.monotonic()
    target = dsn.with_options(session_settings(run.mode, run.ground.server_version))
    arguments = psql_arguments(run.ground.psql.path, target.conninfo())
    with (
        child(arguments, target.child_environment(application_name(run.run_id)), with_input=True) as psql,
        killed_when(psql, spool.is_stopped),
    ):
        reader = DumpReader(run.ground.server_version, freeze)
        session = PsqlSession(psql, dsn, run.backup.filename, holders, lambda: reader.reads_as, bracket_key(run))
        try:
            session.prepare(notice(run.ground.server_version) + settings)
            session.begin(script.before)
            send = partial(_send, session, script.selection)
            size = feed(send, run.backup, parts, identities, script.skipped, reader, show)
            session.send_pieces(script.selection.finish())
            session.run_all(())
            session.run(script.after)
            names = left_out.names if left_out else ()
            if left_out and left_out.unused:
                raise RestoreRefused(no_such_entry(run.backup.filename, left_out.unused))
            counted = counted_within(session, run, names) if run.mode == "in_place" else ()
            check(run, counted)
            _commit(session, run)
            parts.loaded()  # not before: another try would wait for a download that has ended
        except BrokenPipeError:
            spool.check_stopped()
            raise session.failure() from None
        except (RestoreFailed, RestoreRefused):
            spool.check_stopped()
            raise
        finally:
            session.end()
    return Loaded(size, time.monotonic() - began, counted, session.warnings(), names)


def _commit(session: PsqlSession, run: RestoreRun) -> None:
    """Commits. In place, an unknown outcome is never tried again: OutcomeUnknown in place of Unreachable."""
    try:
        session.commit()
    except Unreachable as error:
        if run.mode != "in_place":
            raise
        raise OutcomeUnknown(
            f"The connection broke while the restore of {run.database} was committed, so it is either as it was or as "
            f"backed up, whole in both cases: look at it. {error}"
        ) from None


def notice(server_version: int) -> bytes:
    """The statement that lets the server notice within seconds that psql died, even in a long statement. Pure."""
    if server_version < 140000:
        return b""
    return (
        b"SELECT pg_catalog.set_config('client_connection_check_interval', '2s', false)"
        b" WHERE pg_catalog.version() LIKE '%linux%';\n"
    )


def application_name(run_id: str) -> str:
    """What a restore's sessions are called in pg_stat_activity (63 bytes at most)."""
    return f"restore {run_id}"[:63]


def _send(session: PsqlSession, selection: Selection, piece: Piece) -> None:
    session.send_pieces(selection.take(piece))
