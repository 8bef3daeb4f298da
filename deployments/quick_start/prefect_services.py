"""A Prefect server of our own, with a password and a profile, and the worker that runs the flows."""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.private import private_directory, remembered_secret, write_private
from deployments.quick_start.processes import LOOPBACK, remembered_port
from deployments.quick_start.service import HasService, Service, answer

LOGIN = "admin"
PROFILE = "database-backup-system"
_DATABASE_URL = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
#: A run that has not begun so long after its time is Late, which raises an alarm.
LATE_SECONDS = 600
#: A worker asks for runs this often. It ends itself when 12 questions in a row have failed, the last of them at eight
#: times this distance: after 44 times this, it no longer outlasts a server that is down (`critical_service_loop`).
QUERY_SECONDS = 5


class PrefectServer(HasService):
    """The server whose log, port, password and profile live in `directory`, its PREFECT_HOME.

    Its own database is on `database`, which starts and stops with it, or else on SQLite in `directory`. `owned=True`
    stops it with this process.
    """

    def __init__(
        self,
        directory: Path,
        *,
        database: PostgresCluster | None = None,
        owned: bool = False,
    ) -> None:
        self.directory = directory
        self.database = database
        self.service = Service("prefect-server", directory, owned=owned)

    @property
    def url(self) -> str:
        """Where a browser finds the UI."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    @property
    def password(self) -> str:
        """The password of `admin`; drawn once."""
        return remembered_secret(self.directory / "password")

    @property
    def auth_string(self) -> str:
        """`admin:<password>`, as the UI's login and PREFECT_API_AUTH_STRING want it."""
        return f"{LOGIN}:{self.password}"

    @property
    def is_running(self) -> bool:
        return self.service.is_running and (self.database is None or self.database.is_running)

    def settings(self) -> dict[str, str]:
        """Prefect's settings for the server, its clients, its worker and their flow runs."""
        return {
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_AUTH_STRING": self.auth_string,
            "PREFECT_SERVER_API_AUTH_STRING": self.auth_string,
            "PREFECT_SERVER_API_HOST": LOOPBACK,
            "PREFECT_SERVER_API_PORT": str(self._port),
            "PREFECT_SERVER_UI_API_URL": self.api_url,
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(self.directory.resolve() / "ui"),
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": str(LATE_SECONDS),
            "PREFECT_WORKER_QUERY_SECONDS": str(QUERY_SECONDS),
            # Waits of 2, 4, 8 … 128 s: a run outlasts a server that is down for four minutes.
            "PREFECT_CLIENT_MAX_RETRIES": "7",
        }

    def environment(self) -> dict[str, str]:
        """The caller's environment, changed so that Prefect programs talk to this server alone."""
        foreign = {*self.settings(), _DATABASE_URL, "PREFECT_PROFILE", "PREFECT_PROFILES_PATH", "PREFECT_API_KEY"}
        inherited = {name: value for name, value in os.environ.items() if name not in foreign}
        loopback = {name: _with_loopback(inherited.get(name, "")) for name in ("no_proxy", "NO_PROXY")}
        return {**inherited, **loopback, "PREFECT_HOME": str(self.directory.resolve()), "DO_NOT_TRACK": "1"}

    def start(self) -> None:
        """The server answers to its password. Starting a running one does nothing.

        Raises BadSetting with the reason.
        """
        if self.is_running:
            return
        self.service.stop()  # one whose database has died may not find it again
        private_directory(self.directory)
        database_url = self.start_database()
        remembered_port(self.directory / "port", renew=True)
        self.write_profile()
        self.service.start(
            [sys.executable, "-m", "prefect", "server", "start"],
            # Nobody else is told: this address holds a password, and flows have no business there.
            environment={**self.environment(), **({_DATABASE_URL: database_url} if database_url else {})},
            directory=self.directory,
            answers=self._answers,
            seconds=120.0,
        )

    def start_database(self) -> str:
        """The address of the server's own database, as SQLAlchemy wants it; empty for SQLite. Raises BadSetting."""
        if self.database is None:
            return ""
        self.database.start()
        url = self.database.ensure_database("prefect").replace("postgresql://", "postgresql+asyncpg://", 1)
        return f"{url}?ssl=disable"  # asyncpg would look for keys in HOME, which may be another user's after su

    def stop(self) -> None:
        """Neither the server nor its database runs; the data stay."""
        self.service.stop((signal.SIGTERM, signal.SIGTERM), patience=10.0)
        if self.database is not None:
            self.database.stop()

    def write_profile(self) -> None:
        """`profiles.toml`, readable by its owner alone, makes this server the one that `prefect` talks to."""
        values = "".join(f"{name} = {json.dumps(value)}\n" for name, value in self.settings().items())
        write_private(self.directory / "profiles.toml", f'active = "{PROFILE}"\n\n[profiles.{PROFILE}]\n{values}')

    def answer(self, path: str, body: object = None) -> httpx.Response | None:
        """What the API answers to its password; None while it does not answer."""
        return answer(f"{self.api_url}{path}", auth=(LOGIN, self.password), body=body)

    @property
    def _port(self) -> int:
        return remembered_port(self.directory / "port", renew=False)

    def _answers(self) -> bool:
        said = self.answer("/admin/version")
        return said is not None and said.is_success


class Worker(HasService):
    """A process worker of `server` that takes runs from `pool`; its working directory is `project`.

    Its log lies in the folder `worker` beside the server's.
    """

    def __init__(
        self,
        server: PrefectServer,
        project: Path,
        *,
        pool: str = "backups",
        name: str = "quick-start",
        owned: bool = False,
    ) -> None:
        self.server = server
        self.project = project
        self.pool = pool
        self.name = name
        self.service = Service("prefect-worker", server.directory.parent / "worker", owned=owned)

    def start(self) -> None:
        """The worker runs and the server has heard of it. Starting a running one does nothing.

        Raises BadSetting with the reason.
        """
        if self.is_running:
            return
        options = ["--pool", self.pool, "--type", "process", "--name", self.name]
        since = datetime.now(UTC)
        scratch = private_directory(self.service.directory / "tmp")
        self.service.start(
            [sys.executable, "-m", "prefect", "worker", "start", *options],
            # Prefect's runner keeps its files in one folder of the temporary directory, whoever's it is.
            environment={**self.server.environment(), "TMPDIR": str(scratch.resolve())},
            directory=self.project,
            answers=lambda: self._was_heard(since),
        )

    def stop(self) -> None:
        """Neither the worker nor any flow run that it started, nor a child of one, lives."""
        self.service.stop((signal.SIGTERM, signal.SIGTERM), patience=5.0)

    def _was_heard(self, since: datetime) -> bool:
        """Whether a worker of this name has reported to the server after `since`."""
        said = self.server.answer(f"/work_pools/{self.pool}/workers/filter", body={})
        if said is None or not said.is_success:
            return False
        heard = {each["name"]: datetime.fromisoformat(each["last_heartbeat_time"]) for each in said.json()}
        return self.name in heard and heard[self.name] >= since


def _with_loopback(no_proxy: str) -> str:
    hosts = [host for host in no_proxy.split(",") if host]
    return ",".join(hosts + [host for host in (LOOPBACK, "localhost") if host not in hosts])
