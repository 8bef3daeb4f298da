"""Which server a session has met: two servers can answer to one address, and a run needs one of them to its end."""

from __future__ import annotations

import os
import socket
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection

from tasks.errors import BadSetting

_STARTED = "SELECT pg_catalog.pg_postmaster_start_time()"
#: The same for a primary and its standbys. Without an operator or a type: a search_path could replace PostgreSQL's own.
_SYSTEM = "SELECT system_identifier FROM pg_catalog.pg_control_system()"


class Server:
    """The server that the first session of a run met.

    A server that was started again is the same one. When another server was started later than it, that is only known
    once the first one answers again.
    """

    def __init__(self, connection: Connection) -> None:
        self._started = _first(connection, _STARTED)
        self.first_database = str(_first(connection, "SELECT pg_catalog.current_database()"))
        self._alias = str(connection.info.dbname)
        try:
            self._system = _first(connection, _SYSTEM)
        except psycopg2.errors.InsufficientPrivilege:
            self._system = None

    def name_to_connect(self, dbname: str) -> str:
        """The name under which a database is connected to: a pooler in between can have another one for the first."""
        return self._alias if dbname == self.first_database else dbname

    def is_same(self, other: Server) -> bool:
        """Whether `other` is this server, by whatever address it was met."""
        return bool(self._started == other._started and self._system == other._system)

    def check(self, connection: Connection, place: str) -> None:
        """Raises BadSetting when `connection` has met another server: another try would meet either of them again."""
        started = _first(connection, _STARTED)
        if started < self._started or (self._system and _first(connection, _SYSTEM) != self._system):
            raise BadSetting(f"Two servers answer at {place}, and a run needs one: give the address of one of them.")
        self._started = started


def peer(connection: Connection) -> str:
    """The IP address of the server's end of the connection; empty for a Unix socket. (psycopg2 has no PQhostaddr.)"""
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        return str(end.getpeername()[0]) if end.family in (socket.AF_INET, socket.AF_INET6) else ""


def _first(connection: Connection, query: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]
