"""How to reach a PostgreSQL database: its address, connections to it, and what a client program is given.

libpq's own parser reads the addresses, so every form that `psql` accepts is accepted here. What an address leaves open
(libpq then takes it from the environment or a service file) or leaves to chance (one of several hosts) is known once a
server has answered: `Dsn.pinned`. A client program gets the password through its environment alone, never as an
argument.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn

from tasks.errors import AccessRefused, BackupSystemError, BadSetting, Unreachable
from tasks.postgres.address import read_address
from tasks.postgres.same_server import Server, peer
from tasks.postgres.server_errors import advice, cleaned, ended, without_values

CONNECT_TIMEOUT = "15"  # seconds
#: A server that vanished is noticed within a minute.
_KEEPALIVE = {"keepalives": "1", "keepalives_idle": "20", "keepalives_interval": "10", "keepalives_count": "3"}
#: Milliseconds until a statement that no server acknowledges is given up. psql goes without: the kernel also ends a
#: connection whose server does not read on for that long, as during COPY into a table that somebody has locked.
_USER_TIMEOUT = "60000"
#: The environment variables that a client program gets from this process, besides those named PG….
HARMLESS = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
#: Parameters that this system sets itself: the name of the sessions, and the database's own encoding.
_OURS = ("application_name", "client_encoding")
_MASK = "[hidden]"
#: What has no meaning any more once it is known which server it is.
_CHOICES = ("load_balance_hosts", "target_session_attrs")
#: Options of a service file that say how to connect, not where and as whom; every supported libpq knows them.
_HOW_TO_CONNECT = (
    "channel_binding",
    "gssencmode",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslrootcert",
)
#: Where a database can be asked for that does not answer itself.
MAINTENANCE = ("postgres", "template1")
#: For sessions of our own alone: no limit of a role or a database ends them early, and none of their settings changes
#: how names and texts are read and written. standard_conforming_strings stays as it is: psycopg2 asks for it once, when
#: it connects, and writes every constant accordingly.
_UNHINDERED = (
    ("statement_timeout = 0", 0),
    ("lock_timeout = 0", 0),
    ("idle_in_transaction_session_timeout = 0", 0),
    ("default_transaction_read_only = off", 0),
    ("default_transaction_isolation = 'read committed'", 0),
    ("exit_on_error = off", 0),
    ("quote_all_identifiers = off", 0),
    ("array_nulls = on", 0),
    ("idle_session_timeout = 0", 140000),
    ("transaction_timeout = 0", 170000),
)
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
    """The address of a database. `repr` shows neither the password nor any other parameter.

    Until it is pinned, names that the address does not have are those of the environment, for a person to read.
    """

    parameters: Mapping[str, str] = field(repr=False)
    server: Server | None = field(default=None, repr=False, compare=False)
    """The server that was met first; None until the address is pinned."""
    _pinned: dict[str, Dsn] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        return self.parameters.get("dbname") or os.environ.get("PGDATABASE") or self.user

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
        return Dsn({**self.parameters, "dbname": dbname}, self.server)

    def with_options(self, settings: Mapping[str, str]) -> Dsn:
        """The same database, with settings for the session besides those that the address or PGOPTIONS gives."""
        given = self.parameters.get("options") or os.environ.get("PGOPTIONS", "")
        ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
        return Dsn({**self.parameters, "options": f"{given} {ours}".strip()}, self.server)

    def pinned(self) -> Dsn:
        """The database that answers now, with every name asked of the open connection; asked once.

        Every later session goes to the same server, and is refused when it meets another (`Server.check`). Where
        the database itself does not answer, its server is asked in another database. Raises as `connect`.
        """
        if self.server is None and not self._pinned:
            self._pinned.setdefault("", self._pin())  # of two threads, the first decides for both
        return self if self.server else self._pinned[""]

    def _pin(self) -> Dsn:
        try:
            return self._pin_to(self, "")
        except AccessRefused:
            dbname = self._dbname_of_libpq()
            for name in MAINTENANCE:
                with suppress(AccessRefused):
                    return self._pin_to(self.with_dbname(name), dbname)
            raise

    def _pin_to(self, where: Dsn, dbname: str) -> Dsn:
        with where.session("backup: which server") as connection:
            info, server = connection.info, Server(connection)
            given = {**_of_service(where, connection), **self.parameters}
            known = {
                **{name: value for name, value in given.items() if name not in (*_CHOICES, "hostaddr", "service")},
                "target_session_attrs": "any",
                "host": info.host,
                "hostaddr": peer(connection),
                "port": str(info.port),
                "user": info.user,
                "password": info.password,
                "options": info.options,
                "dbname": dbname or server.first_database,
            }
        return Dsn({name: value for name, value in known.items() if value}, server)

    def _dbname_of_libpq(self) -> str:
        """The name of the database that libpq would ask for, from wherever it takes it."""
        connection = psycopg2.connect(**self.parameters, async_=True)
        try:
            return str(connection.info.dbname)
        finally:
            connection.close()

    def conninfo(self, mostly_reads: bool = False) -> str:
        """A libpq connection string without the password, so that it may be an argument.

        `child_environment` gives what it leaves out: encoding, name of the application, options of the session.
        A program that `mostly_reads` gives up a statement that no server acknowledges.
        """
        hidden = {"password", *_OURS, *(() if self._has_service else ("options",))}
        shown = {k: v for k, v in self._for_libpq().items() if k not in hidden}
        patience = {"tcp_user_timeout": _USER_TIMEOUT} if mostly_reads else {}
        return str(make_dsn(**{**_KEEPALIVE, **patience, "connect_timeout": CONNECT_TIMEOUT, **shown}))

    def child_environment(self, application_name: str) -> dict[str, str]:
        """The environment of one client program: what it needs, the password, and no other secret.

        Its encoding is UTF-8, whatever the role's or the database's settings are.
        """
        kept = {k: v for k, v in os.environ.items() if k in HARMLESS or k.startswith("PG")}
        kept.update(PGAPPNAME=application_name, PGCLIENTENCODING="UTF8", LC_ALL="C")
        if self.server:  # a service would put its own password before this one
            kept.pop("PGSERVICE", None)
        if password := self.parameters.get("password"):
            kept["PGPASSWORD"] = password
        if options := self.parameters.get("options"):
            kept["PGOPTIONS"] = options
        return kept

    @property
    def _has_service(self) -> bool:
        """Whether a service file counts, whose options come before those of the environment."""
        return bool(self.parameters.get("service") or os.environ.get("PGSERVICE"))

    def _for_libpq(self) -> dict[str, str]:
        given = dict(self.parameters)
        if self.server:
            given["dbname"] = self.server.name_to_connect(self.dbname)
        return given

    def clean(self, text: str) -> str:
        """`text` on one line, with the password replaced."""
        if password := self.parameters.get("password"):
            text = text.replace(password, _MASK)
        return " ".join(text.split())

    def connect(self, application_name: str, **more: str) -> Connection:
        """An open connection in autocommit mode, without the limits that role and database set for sessions.

        Raises AccessRefused when the server refuses, BadSetting when the host has no address or, for a pinned address,
        another server answers, Unreachable when no server answers.
        """
        ours = {"application_name": application_name, "client_encoding": "UTF8"}
        settings: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT,
            **_KEEPALIVE,
            "tcp_user_timeout": _USER_TIMEOUT,
            **self._for_libpq(),
            **more,
            **ours,
        }
        try:
            connection = psycopg2.connect(**settings)
        except psycopg2.OperationalError as error:
            problem = connection_error(self, str(error))
        except psycopg2.ProgrammingError:
            problem = BadSetting(f"The address of the database at {self.host} has an option that libpq refuses.")
        else:
            connection.autocommit = True
            self._prepare(connection)
            return connection
        raise problem  # outside the handler, so that it does not carry libpq's error, which may hold the password

    def _prepare(self, connection: Connection) -> None:
        """Lifts the limits, and looks which server it is. Closes the connection when that raises.

        In the databases of a plan, and beside them, nothing that their users made can shadow PostgreSQL's own.
        """
        limits = [setting for setting, since in _UNHINDERED if connection.server_version >= since]
        if self.server:
            limits.append("search_path = pg_catalog")
        try:
            with self.sentences(), connection.cursor() as cursor:
                cursor.execute("; ".join(f"SET {setting}" for setting in limits))
                if self.server:
                    self.server.check(connection, self.place)
        except BaseException:
            connection.close()
            raise

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
        """Raises AccessRefused for a missing privilege, Unreachable for a broken connection.

        No error of the server that leaves the block repeats a value of a row.
        """
        try:
            yield
        except psycopg2.errors.InsufficientPrivilege as error:
            raise AccessRefused(f"{self.place} refused role {self.user}: {self.clean(without_values(error))}") from None
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            raise Unreachable(
                f"{ended(self.place, error)}: {self.clean(without_values(error)).rstrip('.')}.{advice(error)}"
            ) from None
        except (psycopg2.errors.CharacterNotInRepertoire, UnicodeError):
            raise BadSetting(f"A name at {self.place} is not in UTF-8: rename that role, database or object.") from None
        except psycopg2.Error as error:
            raise cleaned(error) from None


def parse(url: str, name: str = "DATABASE_URL") -> Dsn:
    """The address in `url` (`postgresql://…` or `host=… dbname=…`).

    Raises BadSetting, which says what to change and repeats no part of a password.
    """
    return Dsn(read_address(url, name))


def resolves(host: str) -> bool:
    """Whether `host` (or each of a comma-separated list) is a path, an address, or a name that has one."""
    try:
        names = [name for name in host.split(",") if name and not name.startswith(("/", "@"))]
        return all(socket.getaddrinfo(name, None) for name in names)
    except (OSError, UnicodeError):
        return False


def _of_service(dsn: Dsn, connection: Connection) -> dict[str, str]:
    """What a service file says of how to connect, if one counts; all else of it is asked of the connection by name."""
    if not dsn._has_service:
        return {}
    return {name: value for name, value in connection.info.dsn_parameters.items() if name in _HOW_TO_CONNECT}


def connection_error(dsn: Dsn, text: str) -> BackupSystemError:
    """The error for a failed connection, from libpq's message: permanent when the server refused, or has no address.

    libpq gives no SQLSTATE here, and a server's messages may be in any language, but FATAL stays as it is.
    """
    message = dsn.clean(text).rstrip(".") + "."
    if any(sign in re.sub('"[^"]*"', '""', message) for sign in _BUSY):  # names may hold any words
        return Unreachable(f"{dsn.place} takes no connection at the moment: {message}")
    if re.match(r"(invalid|could not match) ", message) or " for connection option " in message:
        return BadSetting(f"The address of the database at {dsn.host} has a value that libpq refuses: {message}")
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
