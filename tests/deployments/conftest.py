"""A Prefect server, and the set-up as `.env` would have it, for the tests that set up again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events import Event
from prefect.events.schemas.events import RelatedResource, Resource

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import PrefectServer
from deployments.quick_start.s3 import S3Server
from deployments.set_up import set_up
from tasks.alarms.event_names import FAILED, backup_name
from tasks.names import TAG
from tasks.plans.settings import settings_from
from tests.conftest import DatabaseFactory
from tests.support.prefect_start import started_server
from tests.support.senders import sent
from tests.support.world import World

SetUp = Callable[..., list[str]]


@pytest.fixture(scope="module")
def server(
    servers_directory: Path, any_postgres: PostgresCluster, request: pytest.FixtureRequest
) -> Iterator[PrefectServer]:
    """A Prefect server on which nothing was set up: each file of tests has one of its own, with data of its own."""
    own = started_server(servers_directory / request.module.__name__, any_postgres.bin_directory)
    yield own
    sent()
    own.stop()


@pytest.fixture(scope="module")
def world(
    server: PrefectServer,
    any_postgres: PostgresCluster,
    s3_server: S3Server,
    s3_bucket: Callable[[], str],
    fresh_database: DatabaseFactory,
    tmp_path_factory: pytest.TempPathFactory,
) -> World:
    return World(
        any_postgres,
        s3_server,
        s3_bucket(),
        fresh_database(any_postgres),
        fresh_database(any_postgres),
        tmp_path_factory.mktemp("spool"),
        environment=server.environment(),
    )


@pytest.fixture
def client(server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    """A client of the server; this process uses the server too."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    with temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_API_AUTH_STRING: server.auth_string}):
        with get_client(sync_client=True) as made:
            yield made


@pytest.fixture
def run(client: SyncPrefectClient, world: World) -> SetUp:
    """The set-up as `.env` would have it; `run(check=True, RETENTION_DAYS="9")`."""

    def start(check: bool = False, overwrite: bool = False, **variables: str) -> list[str]:
        settings = settings_from({**world.settings(), **variables})
        return list(set_up(settings, check=check, overwrite=overwrite))

    return start


def emit_failure(client: SyncPrefectClient) -> None:
    """The event of a failed backup of the plan default, which is told once until it is armed again."""
    resource = Resource({"prefect.resource.id": "backup-plan.default", "prefect.resource.name": backup_name("default")})
    tag = RelatedResource({"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"})
    event = Event(event=FAILED, resource=resource, related=[tag], payload={"plan": "default"})
    client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()
