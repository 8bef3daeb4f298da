"""Looks, while psql works in the live database, at who holds it up: what psql's own error does not say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tasks.errors import BackupSystemError
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import rows, source_session
from tasks.restore.in_place import lock_holders

_EVERY = 1.0  # seconds
_PROCESS = "SELECT pid FROM pg_stat_activity WHERE application_name = %(name)s AND datname = current_database()"


class LockWatch:
    """What was seen last of those who hold a session up; empty when nobody does."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._seen = ""

    def told(self) -> str:
        """One sentence, or nothing."""
        return self._seen

    def look(self, dsn: Dsn, application_name: str) -> None:
        """Looks every second until it is told to end. A server that does not answer costs the sentence alone."""
        with suppress(BackupSystemError), source_session(dsn, "restore: lock watch") as connection:
            while not self.ended.wait(_EVERY):
                for row in rows(connection, _PROCESS, name=application_name):
                    self._seen = lock_holders(connection, row["pid"]) or self._seen


@contextmanager
def lock_watch(dsn: Dsn, application_name: str) -> Iterator[LockWatch]:
    """A watch over the sessions called `application_name` in the database `dsn`, for the length of the block."""
    watch = LockWatch()
    watcher = threading.Thread(target=watch.look, args=(dsn, application_name), daemon=True)
    watcher.start()
    try:
        yield watch
    finally:
        watch.ended.set()
        watcher.join()
