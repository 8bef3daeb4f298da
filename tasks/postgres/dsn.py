"""How to reach a PostgreSQL database: its address, connections to it, and what a client program is given.

libpq's own parser reads the addresses, so every form that `psql` accepts is accepted here. A client program gets the
password through its environment alone, never as an argument.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn, parse_dsn

from tasks.errors import AccessRefused, BackupSystemError, BadSetting, Unreachable

CONNECT_TIMEOUT = "15"  # seconds
#: A server that vanished is noticed within a minute.
_KEEPALIVE = {"keepalives": "1", "keepalives_idle": "20", "keepalives_interval": "10", "keepalives_count": "3"}
#: The environment variables that a client program gets from this process, besides those named PG….
_HARMLESS = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
#: Parameters that this system sets itself: the name of the sessions, and the database's own encoding.
_OURS = ("application_name", "client_encoding")
_MASK = "[hidden]"
#: Secrets that client programs accept only as an argument.
_UNSAFE_OPTIONS = {"sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"}
#: Words of a server, or of a pooler, that takes no connection at the moment.
_BUSY = (
    "the database system is ",
    "too many ",
    "remaining connection slots",
    "no more connections allowed",
    "try again later",
)


@dataclass(frozen=True)
class Dsn:
    """The address of a database. `repr` shows neither the password nor any other parameter."""

    parameters: Mapping[str, str] = field(repr=False)

    @property
    def host(self) -> str:
        """The host as given, or libpq's default."""
        return self.parameters.get("host") or self.parameters.get("hostaddr") or os.environ.get("PGHOST", "localhost")

    @property
    def port(self) -> int:
        """The (first) port."""
        ports = self.parameters.get("port") or os.environ.get("PGPORT", "")
        return int(ports.split(",")[0] or 5432)

    @property
    def dbname(self) -> str:
        """The database's name; libpq's default is the user's."""
        return self.parameters.get("dbname") or self.user

    @property
    def user(self) -> str:
        """The role that connects."""
        return self.parameters.get("user") or os.environ.get("PGUSER", "")

    @property
    def place(self) -> str:
        """Host, port and database, for a person. Holds no secret."""
        return f"{self.host}:{self.port}/{self.dbname}"

    def with_dbname(self, dbname: str) -> Dsn:
        """The same server and role, another database."""
        return Dsn({**self.parameters, "dbname": dbname})

    def with_options(self, settings: Mapping[str, str]) -> Dsn:
        """The same database, with settings for the session besides those of the address."""
        ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
        return Dsn({**self.parameters, "options": f"{self.parameters.get('options', '')} {ours}".strip()})

    def conninfo(self) -> str:
        """A libpq connection string without the password, so that it may be an argument.

        It has no encoding, and no name of the application either, which `child_environment` gives.
        """
        shown = {k: v for k, v in self.parameters.items() if k != "password" and k not in _OURS}
        return str(make_dsn(**{**_KEEPALIVE, "connect_timeout": CONNECT_TIMEOUT, **shown}))

    def child_environment(self, application_name: str) -> dict[str, str]:
        """The environment of one client program: what it needs, the password, and no other secret."""
        kept = {k: v for k, v in os.environ.items() if k in _HARMLESS or k.startswith("PG")}
        kept.pop("PGCLIENTENCODING", None)
        kept.update(PGAPPNAME=application_name, LC_ALL="C")
        if password := self.parameters.get("password"):
            kept["PGPASSWORD"] = password
        return kept

    def clean(self, text: str) -> str:
        """`text` on one line, with the password replaced."""
        if password := self.parameters.get("password"):
            text = text.replace(password, _MASK)
        return " ".join(text.split())

    def connect(self, application_name: str, **more: str) -> Connection:
        """An open connection in autocommit mode.

        Raises AccessRefused when the server refuses, BadSetting when the host has no address, Unreachable when no
        server answers.
        """
        ours = {"application_name": application_name, "client_encoding": "UTF8"}
        settings: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, **_KEEPALIVE, **self.parameters, **more, **ours}
        try:
            connection = psycopg2.connect(**settings)
        except psycopg2.OperationalError as error:
            problem = connection_error(self, str(error))
        except psycopg2.ProgrammingError:
            problem = BadSetting(f"The address of the database at {self.host} has an option that libpq refuses.")
        else:
            connection.autocommit = True
            return connection
        raise problem  # outside the handler, so that it does not carry libpq's error, which may hold the password

    @contextmanager
    def session(self, application_name: str, **more: str) -> Iterator[Connection]:
        """A connection for the length of a `with` block. Errors in the block become those of `sentences`."""
        connection = self.connect(application_name, **more)
        try:
            with self.sentences():
                yield connection
        finally:
            connection.close()

    @contextmanager
    def sentences(self) -> Iterator[None]:
        """Raises AccessRefused for a missing privilege, Unreachable for a broken connection."""
        try:
            yield
        except psycopg2.errors.InsufficientPrivilege as error:
            raise AccessRefused(f"{self.place} refused role {self.user}: {self.clean(str(error))}") from None
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            raise Unreachable(f"The connection to {self.place} broke: {self.clean(str(error))}") from None


def parse(url: str, name: str = "DATABASE_URL") -> Dsn:
    """The address in `url` (`postgresql://…` or `host=… dbname=…`).

    Raises BadSetting, which does not repeat the address, when it cannot be read.
    """
    if not url.strip():
        raise BadSetting(f"{name} is empty: give the address of a database, postgresql://user:password@host/database.")
    dsn = _readable(url.strip())
    if dsn is None:
        raise BadSetting(
            f"{name} cannot be read as a PostgreSQL address; write postgresql://user:password@host:port/database "
            "and percent-encode special characters in user, password and database name (@ is %40, / is %2F, % is %25)."
        )
    if unsafe := sorted(_UNSAFE_OPTIONS & dsn.parameters.keys()):
        raise BadSetting(
            f"{name} has {unsafe[0]}, which client programs can only take as an argument: use a password, "
            "or a key file that needs no pass phrase, readable by its owner alone."
        )
    return dsn


def _readable(url: str) -> Dsn | None:
    """The address, or None. libpq's own error may hold the password, so it is dropped here."""
    try:
        dsn = Dsn(parse_dsn(url))
        return dsn if dsn.port else None
    except (psycopg2.Error, ValueError):
        return None


def resolves(host: str) -> bool:
    """Whether `host` (or each of a comma-separated list) is a path, an address, or a name that has one."""
    try:
        names = [name for name in host.split(",") if name and not name.startswith(("/", "@"))]
        return all(socket.getaddrinfo(name, None) for name in names)
    except (OSError, UnicodeError):
        return False


def connection_error(dsn: Dsn, text: str) -> BackupSystemError:
    """The error for a failed connection, from libpq's message: permanent when the server refused, or has no address.

    libpq gives no SQLSTATE here, and a server's messages may be in any language, but FATAL stays as it is.
    """
    message = dsn.clean(text).rstrip(".") + "."
    if any(sign in re.sub('"[^"]*"', '""', message) for sign in _BUSY):  # names may hold any words
        return Unreachable(f"{dsn.place} takes no connection at the moment: {message}")
    if not resolves(dsn.host):
        return BadSetting(f"The host {dsn.host} has no address: check the spelling in the database's URL.")
    if "password authentication failed" in message or "no password supplied" in message:
        return AccessRefused(
            f"{dsn.place} refused role {dsn.user}: the password is wrong or has expired; "
            "put the valid one into the plan."
        )
    if "FATAL" in message or "SSL" in message or "certificate" in message or "invalid" in message:
        return AccessRefused(f"{dsn.place} refused the connection of role {dsn.user}: {message}")
    return Unreachable(f"Nobody answers at {dsn.place}: {message}")
