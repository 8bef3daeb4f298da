"""A PostgreSQL server of our own: one data directory, a free loopback port, a generated password."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg2

from deployments.quick_start.private import private_directory, remembered_secret
from deployments.quick_start.processes import LOOPBACK, remembered_port
from deployments.quick_start.service import HasService, Service
from tasks.errors import BadSetting
from tasks.postgres.as_ordinary_user import prefix_for
from tasks.postgres.dsn import parse
from tasks.postgres.server import ensure_database
from tasks.postgres.tools import installed

SUPERUSER = "postgres"
#: For tests: nothing survives a crash of the machine, and everything is faster.
CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB"}


class PostgresCluster(HasService):
    """The server whose data, log, port and password live in `directory`.

    It is run by the programs in `bin_directory`. `durable=False` trades safety in a crash of the machine for
    speed; `owned=True` stops it with this process.
    """

    def __init__(self, directory: Path, bin_directory: Path, *, durable: bool = True, owned: bool = False) -> None:
        self.directory = directory
        self.bin_directory = bin_directory
        self.data_directory = directory / "data"
        self._password_file = directory / "password"
        self.service = Service("postgresql", directory, owned=owned)
        self._durable = durable

    @cached_property
    def major(self) -> int:
        """Major version of the programs, such as 18."""
        return installed("postgres", str(self.bin_directory))[0].major

    @property
    def port(self) -> int:
        return remembered_port(self.directory / "port", renew=False)

    @property
    def password(self) -> str:
        """The superuser's password; drawn once."""
        return remembered_secret(self._password_file)

    def url(self, dbname: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """A libpq URL of a database here; as the superuser with its password unless another user is named."""
        if user is None:
            user, password = SUPERUSER, self.password if password is None else password
        login = quote(user, safe="") + (":" + quote(password, safe="") if password is not None else "")
        return f"postgresql://{login}@{LOOPBACK}:{self.port}/{quote(dbname, safe='')}"

    def start(self) -> None:
        """The server answers; its data are made on the first call. Starting a running one does nothing.

        Raises BadSetting with the reason, such as a full disk.
        """
        if self.is_running:
            return
        private_directory(self.directory)
        prefix = prefix_for(self.data_directory)
        if not self.data_directory.exists():
            self._create_data(prefix)
        self._forget_recycled_pid()
        remembered_port(self.directory / "port", renew=True)
        self.service.start(
            self._arguments(),
            environment=_environment(),
            directory=self.directory,
            answers=self._answers,
            seconds=120.0,
            prefix=prefix,
        )

    def ensure_database(self, dbname: str) -> str:
        """The URL of a database of this name, which exists. The server runs."""
        with parse(self.url()).session("quick start") as connection:
            ensure_database(connection, dbname)
        return self.url(dbname)

    def stop(self, immediate: bool = False) -> None:
        """The server does not run. `immediate` leaves recovery to the next start, as a power cut would."""
        signals = (signal.SIGQUIT,) if immediate else (signal.SIGINT, signal.SIGQUIT)
        self.service.stop(signals, patience=30.0)

    def _arguments(self) -> list[str]:
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **({} if self._durable else CARELESS),
        }
        settings = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        return [str(self.bin_directory / "postgres"), "-D", str(self.data_directory), *settings]

    def _create_data(self, prefix: tuple[str, ...]) -> None:
        aside = self.directory / "data.new"
        shutil.rmtree(aside, ignore_errors=True)
        remembered_secret(self._password_file)
        arguments = [
            *prefix,
            str(self.bin_directory / "initdb"),
            f"--pgdata={aside}",
            f"--username={SUPERUSER}",
            f"--pwfile={self._password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            *(() if self._durable else ("--no-sync",)),
        ]
        done = subprocess.run(
            arguments,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = " / ".join(done.stderr.strip().splitlines()[-3:])
            raise BadSetting(f"The data directory {self.data_directory} could not be made: initdb: {last}")
        aside.rename(self.data_directory)

    def _forget_recycled_pid(self) -> None:
        """After a crash of the machine the old pid may be another program's: PostgreSQL would not start."""
        file = self.data_directory / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError, psutil.Error):
            process = psutil.Process(int(file.read_text(encoding="utf-8").splitlines()[0]))
            if "postgres" not in process.name():
                file.unlink()

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.url(), connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True


def _environment() -> dict[str, str]:
    """The caller's environment without its libpq variables, and with messages in English."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**inherited, "LC_ALL": "C"}
