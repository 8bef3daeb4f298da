"""Notices a psql that waits for more text though it has had all of it: the dump has opened what it does not close.

A server that works, on an index for hours or behind a lock, is none of that: it does not wait for psql.
"""

from __future__ import annotations

import time
from contextlib import suppress

from tasks.errors import BackupSystemError
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import rows, source_session

#: How long the server may wait for psql, in seconds, while psql has all that it needs.
LONGEST_SILENCE = 300.0
_LOOKS_EVERY = 10.0  # seconds
_WAITS_FOR_PSQL = """
    SELECT backend_start, query_start, state_change, state FROM pg_catalog.pg_stat_activity
     WHERE pid = %(pid)s AND wait_event = 'ClientRead'
"""


class Silence:
    """How long the server's process of a psql has waited for psql, without a statement in between."""

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
