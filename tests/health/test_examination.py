"""Each check says ok where all is well, and each fault that is made real is found, alone."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import boto3
import psycopg2
import pytest
from psycopg2 import sql

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.processes import free_port
from deployments.quick_start.s3 import REGION, S3Server
from tasks.catalogue.catalogue import Catalogue
from tasks.errors import Unreachable
from tasks.health.lines import verdict
from tasks.health.prefect_server import PrefectFacts
from tasks.names import PROBE, is_backup_filename, manifest_key
from tasks.plans.plan import Replica
from tasks.postgres.dsn import Dsn, parse
from tasks.postgres.locks import exclusive
from tasks.restore.labels import Label
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tests.conftest import DatabaseFactory
from tests.health.conftest import Patient, now, well, wrong
from tests.support.faulty_store import FaultyStore
from tests.support.servers import catalogue_at_a_standby

MARKER = "m4rker-p4ssword"
DATABASE = {"Database": "failed", "Replaced databases": "warning", "pg_dump": "warning", "psql": "warning"}
CATALOGUE = {
    "Catalogue": "failed",
    "Last backup": "warning",
    "Verification": "warning",
    "Unfinished uploads": "warning",
}
BUCKET = {"Bucket": "failed"}


def store(endpoint_url: str, s3: S3Server, bucket: str, secret: str = "") -> Storage:
    session = boto3.Session(s3.access_key_id, secret or s3.secret_access_key, region_name=REGION)
    return Storage(make_client(session, endpoint_url), bucket)


def elsewhere(dsn: Dsn, **parameters: str) -> Dsn:
    return Dsn({**dsn.parameters, **parameters})


def add_role(patient: Patient, database: str, *grants: str) -> Dsn:
    """A role with the marker for its password, and the address of `database` for it."""
    role = f"health_{time.monotonic_ns()}"
    with closing(psycopg2.connect(patient.scene.cluster.url(database))) as connection:
        connection.autocommit = True
        for statement in (f"CREATE ROLE {{}} LOGIN PASSWORD '{MARKER}'", *grants):
            connection.cursor().execute(sql.SQL(statement).format(sql.Identifier(role)))
    return parse(patient.scene.cluster.url(database, role, MARKER))


@contextmanager
def silence() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as server:
        yield server.getsockname()[1]


# --- all well


def test_all_lines_are_ok_when_all_is_well(
    make_patient: Callable[..., Patient], postgres_server: PostgresCluster
) -> None:
    patient = make_patient(postgres_server)
    patient.scene.back_up()
    before = patient.keys()
    lines = patient.lines()
    psql = lines.pop("psql")  # whose version is that of this machine
    assert psql.status != "failed"
    assert wrong(lines) == {}
    assert len(lines) == 15
    assert patient.keys() == before


def test_before_the_first_backup_nothing_has_failed_and_it_is_said_how_to_make_one(patient: Patient) -> None:
    made_now = well(scheduled=(*(_made_now(one) for one in well().scheduled),))
    lines = patient.lines(lambda: made_now)
    assert "failed" not in wrong(lines).values()
    assert lines["Last backup"].status == "warning"
    assert "There is no backup yet. The schedule makes the first at" in lines["Last backup"].what
    assert "backup/manual" in lines["Last backup"].to_do


def test_a_plan_that_only_receives_restores_fails_no_check_for_its_missing_backups(patient: Patient) -> None:
    lines = patient.lines(lambda: well(scheduled=()))
    assert "failed" not in wrong(lines).values()
    lines = patient.lines(lambda: well(scheduled=(), verifies=True), restore_only=True)
    assert wrong({check: lines[check] for check in ("Schedule", "Last backup")}) == {}
    assert "Verification" not in lines
    assert "None is expected: the plan is only restored into." in lines["Last backup"].what
    schedule = patient.lines(restore_only=True)["Schedule"]
    assert schedule.status == "warning" and "which is only restored into: these runs fail" in schedule.what


def _made_now(scheduled: Any) -> Any:
    return type(scheduled)(**{**vars(scheduled), "made_at": now()})


# --- no check stops another


def test_a_server_that_is_stopped_is_named_and_the_other_checks_go_on(patient: Patient) -> None:
    patient.scene.back_up()
    lines = patient.lines(database=elsewhere(patient.plan.database, port=str(free_port())))
    assert {check: lines[check].status for check in DATABASE} == DATABASE
    assert "Nobody answers at" in lines["Database"].what
    assert lines["Catalogue"].status == lines["Bucket"].status == lines["Last backup"].status == "ok"


def test_a_catalogue_that_is_stopped_is_named_and_the_other_checks_go_on(patient: Patient) -> None:
    lines = patient.lines(catalogue=Catalogue(elsewhere(patient.plan.catalogue.dsn, port=str(free_port()))))
    assert {check: lines[check].status for check in CATALOGUE} == CATALOGUE
    assert lines["Database"].status == lines["Bucket"].status == "ok"


def test_servers_that_never_answer_hold_nobody_up(patient: Patient, s3_server: S3Server) -> None:
    def never() -> NoReturn:
        time.sleep(3600)
        raise AssertionError

    with silence() as port:
        began = time.monotonic()
        lines = patient.lines(
            never,
            seconds=3,
            database=elsewhere(patient.plan.database, port=str(port), host="127.0.0.1"),
            catalogue=Catalogue(elsewhere(patient.plan.catalogue.dsn, port=str(port), host="127.0.0.1")),
            storage=store(f"http://127.0.0.1:{port}", s3_server, patient.plan.storage.bucket),
        )
        assert time.monotonic() - began < 60
    for check in ("Database", "Catalogue", "Bucket", "Prefect"):
        assert "did not answer within 3 s" in lines[check].what, lines[check]
    assert lines["Prefect"].status == "warning"
    assert lines["Spool"].status == "ok" or "largest" in lines["Spool"].to_do


def test_a_check_that_breaks_is_a_failure_of_its_own_and_tells_no_secret(patient: Patient) -> None:
    def broken() -> PrefectFacts:
        raise KeyError(MARKER)

    lines = patient.lines(broken)
    assert "KeyError at test_examination.py" in lines["Prefect"].what
    assert MARKER not in "".join(line.text() for line in lines.values())
    assert lines["Database"].status == "ok"


def test_without_a_prefect_server_one_warning_says_so(patient: Patient) -> None:
    def gone() -> PrefectFacts:
        raise Unreachable("no Prefect server is in use.")

    patient.scene.back_up()
    lines = patient.lines(gone)
    assert "Schedule, worker and alarms were not checked: no Prefect server is in use." in lines["Prefect"].what
    assert {"Schedule", "Worker", "Alarms"}.isdisjoint(lines)
    assert "failed" not in wrong(lines).values()


# --- secrets


def test_no_line_holds_a_secret_when_every_credential_is_wrong(patient: Patient, s3_server: S3Server) -> None:
    other = store(s3_server.endpoint_url, s3_server, patient.plan.storage.bucket, secret=MARKER)
    lines = patient.lines(
        database=_refused(patient, patient.plan.database),
        catalogue=Catalogue(_refused(patient, patient.plan.catalogue.dsn)),
        storage=other,
    )
    said = "\n".join(line.text() for line in lines.values()) + verdict("shop", list(lines.values()))
    assert MARKER not in said
    assert "the password is wrong" in lines["Database"].what
    assert "the password is wrong" in lines["Catalogue"].what
    assert lines["Bucket"].status == "failed"


def _refused(patient: Patient, dsn: Dsn) -> Dsn:
    """The same with a password that is wrong."""
    asking = add_role(patient, dsn.dbname)
    return elsewhere(asking, password=f"{MARKER}-no-longer")


# --- the database


def test_a_table_that_the_role_cannot_read_is_named(patient: Patient) -> None:
    dsn = add_role(patient, patient.scene.name)
    lines = patient.lines(database=dsn)
    assert lines["Database"].status == "failed"
    assert "has no SELECT on table public.things" in lines["Database"].what


def test_row_level_security_that_hides_rows_is_named(patient: Patient) -> None:
    dsn = add_role(
        patient, patient.scene.name, "GRANT SELECT ON things TO {}", "ALTER TABLE things ENABLE ROW LEVEL SECURITY"
    )
    assert "Row-level security hides rows" in patient.lines(database=dsn)["Database"].what


def test_replaced_databases_are_counted_and_named_when_they_are_due(
    patient: Patient, fresh_database: DatabaseFactory
) -> None:
    name = f"{patient.scene.name}__before_old"
    fresh_database(patient.scene.cluster, name)
    for age, status in ((timedelta(days=1), "ok"), (timedelta(days=4), "warning")):
        label = Label("kept", name, patient.scene.name, now() - age, "run", None, patient.plan.name)
        patient.scene.sql(f"COMMENT ON DATABASE \"{name}\" IS '{label.text()}'")
        line = patient.lines()["Replaced databases"]
        assert line.status == status
        assert "MiB" in line.what
    assert name in line.what and "cleanup/clean-up-now" in line.to_do


def test_clocks_that_are_apart_are_told(patient: Patient) -> None:
    line = patient.lines(clock=lambda: now() + timedelta(minutes=10))["Clocks"]
    assert line.status == "warning"
    assert "the database server is 10 min behind" in line.what or "9 min" in line.what
    assert f"the store of {patient.plan.storage.bucket}" in line.what


# --- the catalogue


def test_a_catalogue_without_tables_is_named(patient: Patient, fresh_database: DatabaseFactory) -> None:
    empty = Catalogue(parse(fresh_database(patient.scene.cluster)))
    assert "run the set-up" in patient.lines(catalogue=empty)["Catalogue"].what


@pytest.mark.parametrize(
    "grants",
    [
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}",
        "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {}",
        "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {}",
    ],
)
def test_a_catalogue_that_cannot_be_written_is_named(patient: Patient, grants: str) -> None:
    dsn = add_role(patient, patient.plan.catalogue.dsn.dbname, grants)
    line = patient.lines(catalogue=Catalogue(dsn))["Catalogue"]
    assert line.status == "failed"
    assert dsn.place in line.what


def test_a_catalogue_that_is_read_only_is_named(patient: Patient, tmp_path: Path) -> None:
    with catalogue_at_a_standby(patient.scene.cluster.bin_directory, tmp_path / "pair") as catalogue:
        line = patient.lines(catalogue=catalogue)["Catalogue"]
    assert line.status == "failed" and "read-only" in line.what


def test_looking_at_the_catalogue_writes_nothing_into_it(patient: Patient) -> None:
    patient.lines()
    assert patient.plan.catalogue.rows("shop") == []
    [(rows,)] = patient.scene.sql("SELECT last_value FROM backup_events_id_seq", patient.plan.catalogue.dsn.dbname)
    assert rows == 1


def test_the_row_of_a_dead_run_is_found_and_that_of_a_live_one_is_not(patient: Patient) -> None:
    patient.plan.catalogue.open("backup_x.sql", "key", "shop", "run", "tester", now(), "full")
    line = patient.lines()["Unfinished backups"]
    assert line.status == "warning" and "backup_x.sql" in line.what
    with exclusive(patient.plan.catalogue.dsn, "backup", "shop", "run"):
        lines = patient.lines()
    assert lines["Unfinished backups"].status == "ok"
    assert "is being made" in lines["Last backup"].what


def test_the_upload_of_a_dead_run_is_found_and_that_of_a_live_one_is_not(patient: Patient) -> None:
    key = patient.plan.key("backup_2026-03-01_02-00-00_9f2c41ab.sql")
    patient.plan.storage.begin(key)
    line = patient.lines()["Unfinished uploads"]
    assert line.status == "warning" and key in line.what
    patient.plan.catalogue.open("backup_2026-03-01_02-00-00_9f2c41ab.sql", key, "shop", "run", "tester", now(), "full")
    with exclusive(patient.plan.catalogue.dsn, "backup", "shop", "run"):
        assert patient.lines()["Unfinished uploads"].status == "ok"


# --- the last backup


def test_an_old_backup_has_failed_its_schedule(patient: Patient) -> None:
    done = patient.scene.back_up()
    patient.record("UPDATE database_backups SET created_at = created_at - interval '3 days'")
    line = patient.lines()["Last backup"]
    assert line.status == "failed"
    assert done.filename in line.what and "3 d 0 h old" in line.what and "was due at" in line.what


def test_an_old_backup_is_a_warning_while_the_next_one_is_being_made(patient: Patient) -> None:
    patient.scene.back_up()
    patient.record("UPDATE database_backups SET created_at = created_at - interval '3 days'")
    with exclusive(patient.plan.catalogue.dsn, "backup", "shop", "run"):
        assert patient.lines()["Last backup"].status == "warning"


@pytest.mark.parametrize("suffix", ["", ".manifest.json"])
def test_a_backup_that_is_gone_from_the_bucket_is_no_backup(patient: Patient, suffix: str) -> None:
    older, newer = patient.scene.back_up(), patient.scene.back_up()
    patient.plan.storage.delete(newer.key + suffix)
    line = patient.lines()["Last backup"]
    assert line.status == "failed"
    assert f"{newer.filename} is gone" in line.what
    assert f"The newest whole backup: {older.filename}" in line.what


def test_a_backup_that_was_cut_in_the_bucket_is_no_backup(patient: Patient) -> None:
    done = patient.scene.back_up()
    patient.plan.storage.put(done.key, b"cut")
    line = patient.lines()["Last backup"]
    assert line.status == "failed"
    assert f"{done.filename} has 3 bytes in the bucket, not {done.file_size:,}." in line.what


def test_a_failed_attempt_after_the_last_backup_is_a_warning_with_its_reason(patient: Patient) -> None:
    patient.scene.back_up()
    patient.plan.catalogue.open("backup_x.sql", "key", "shop", "run", "tester", now(), "full")
    patient.record("UPDATE database_backups SET status = 'failed', error = 'no room' WHERE filename = 'backup_x.sql'")
    line = patient.lines()["Last backup"]
    assert line.status == "warning" and "failed: no room" in line.what


def test_no_backup_at_all_after_a_failed_attempt_is_a_failure(patient: Patient) -> None:
    patient.plan.catalogue.open("backup_x.sql", "key", "shop", "run", "tester", now(), "full")
    patient.record("UPDATE database_backups SET status = 'failed', error = 'no room'")
    line = patient.lines()["Last backup"]
    assert line.status == "failed" and "There is no backup." in line.what and "no room" in line.what


def test_a_suspicious_backup_is_a_warning(patient: Patient) -> None:
    patient.scene.back_up()
    patient.record("UPDATE database_backups SET suspicious = 'It lost half of its tables.'")
    line = patient.lines()["Last backup"]
    assert line.status == "warning" and "lost half" in line.what


def test_a_verification_that_is_too_old_is_a_warning_where_one_is_scheduled(patient: Patient) -> None:
    patient.scene.back_up()
    patient.record("UPDATE database_backups SET verified_at = now() - interval '9 days'")
    assert patient.lines()["Verification"].status == "ok"
    line = patient.lines(lambda: well(verifies=True))["Verification"]
    assert line.status == "warning" and "9 d 0 h ago" in line.what
    patient.record("UPDATE database_backups SET verified_at = now() - interval '7 days'")
    assert patient.lines(lambda: well(verifies=True))["Verification"].status == "ok"


# --- the buckets


@pytest.mark.parametrize(
    ("method", "lists", "verb"),
    [
        ("PUT", False, "Write"),
        ("GET", False, "Read"),
        ("GET", True, "List"),
        ("DELETE", False, "Delete"),
    ],
)
def test_what_the_bucket_refuses_is_named(
    patient: Patient, faulty_store: FaultyStore, s3_server: S3Server, method: str, lists: bool, verb: str
) -> None:
    faulty_store.rule = lambda r: 403 if r.method == method and lists == ("list-type" in r.query) else None
    line = patient.lines(storage=store(faulty_store.endpoint_url, s3_server, patient.plan.storage.bucket))["Bucket"]
    assert line.status == ("warning" if verb == "Delete" else "failed")
    assert line.what.startswith(f"{verb} failed: The store refused"), line.what
    left = [patient.plan.prefix + PROBE] if verb == "Delete" else []
    assert patient.keys() == left


def test_a_probe_that_had_to_stay_is_taken_away_by_the_next_check_and_is_no_backup(
    patient: Patient, faulty_store: FaultyStore, s3_server: S3Server
) -> None:
    faulty_store.rule = lambda r: 403 if r.method == "DELETE" else None
    behind = store(faulty_store.endpoint_url, s3_server, patient.plan.storage.bucket)
    for _ in range(2):
        assert patient.lines(storage=behind)["Bucket"].status == "warning"
    assert patient.keys() == [patient.plan.prefix + PROBE]
    assert not is_backup_filename(PROBE) and not is_backup_filename(manifest_key(PROBE))
    assert patient.lines()["Bucket"].status == "ok"
    assert patient.keys() == []


def test_a_read_only_bucket_fails_to_write_alone(
    patient: Patient, faulty_store: FaultyStore, s3_server: S3Server
) -> None:
    faulty_store.rule = lambda r: 403 if r.method in ("PUT", "POST", "DELETE") else None
    lines = patient.lines(storage=store(faulty_store.endpoint_url, s3_server, patient.plan.storage.bucket))
    assert lines["Bucket"].what.startswith("Write failed: The store refused PutObject")
    assert "Delete failed: The store refused DeleteObject" in lines["Bucket"].what
    assert "Read" not in lines["Bucket"].what and "List" not in lines["Bucket"].what


def test_a_store_that_gives_back_something_else_is_not_relied_upon(
    patient: Patient, faulty_store: FaultyStore, s3_server: S3Server
) -> None:
    faulty_store.rule = lambda r: "wrong" if r.method == "GET" and r.key.endswith(PROBE) else None
    line = patient.lines(storage=store(faulty_store.endpoint_url, s3_server, patient.plan.storage.bucket))["Bucket"]
    assert line.status == "failed" and "gives back other bytes" in line.what


def test_a_bucket_that_is_not_there_is_named(patient: Patient, s3_server: S3Server) -> None:
    lines = patient.lines(storage=store(s3_server.endpoint_url, s3_server, "no-such-bucket"))
    assert lines["Bucket"].status == "failed"
    assert "There is no bucket no-such-bucket" in lines["Bucket"].what
    assert lines["Catalogue"].status == lines["Database"].status == "ok"


def test_a_replica_is_looked_at_by_itself(patient: Patient, s3_server: S3Server, s3_bucket: Callable[[], str]) -> None:
    good, bad = s3_bucket(), "no-such-replica"
    replicas = tuple(Replica(store(s3_server.endpoint_url, s3_server, name), "copies") for name in (good, bad))
    patient.scene.back_up()
    lines = patient.lines(replicas=replicas)
    assert lines[f"Replica {good}"].status == lines["Bucket"].status == "ok"
    assert lines[f"Replica {bad}"].status == "failed"


def test_another_check_that_takes_the_probe_away_at_the_same_time_harms_nobody(
    patient: Patient, faulty_store: FaultyStore, s3_server: S3Server
) -> None:
    taken = []

    def take(request: Any) -> None:
        if request.method == "GET" and request.key.endswith(PROBE) and len(taken) < 2:
            taken.append(patient.plan.storage.delete(patient.plan.prefix + PROBE))

    faulty_store.rule = take
    line = patient.lines(storage=store(faulty_store.endpoint_url, s3_server, patient.plan.storage.bucket))["Bucket"]
    assert line.status == "ok" and len(taken) == 2


# --- the machine


def test_a_disk_without_room_is_named(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    line = patient.lines()["Spool"]
    assert line.status == "failed"
    assert "has 1 MiB free" in line.what and str(patient.plan.spool_directory) in line.what


def test_client_programs_that_are_missing_are_named(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.postgres.tools.USUAL_PLACES", ())
    monkeypatch.setenv("PATH", "/nowhere")
    lines = patient.lines(tools_directory="")
    assert lines["pg_dump"].status == lines["psql"].status == "failed"
    assert "Install postgresql-client-" in lines["psql"].what
