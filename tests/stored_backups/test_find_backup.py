"""The backup that a restore takes is the one that was asked for, and the very one that was recorded."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import psycopg2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.processes import free_port
from deployments.quick_start.s3 import REGION, S3Server
from tasks.backup.record_backup import record
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Record
from tasks.errors import AccessRefused, BackupDamaged, BackupNotFound, BadSetting, Unreachable
from tasks.names import backup_filename, manifest_key, object_key
from tasks.plans.plan import Plan, Policy, Replica
from tasks.postgres.dsn import parse
from tasks.storage.backup_stages import BackupRun, Dump, StoredObject
from tasks.storage.backup_values import Part, SourceFacts, TableData
from tasks.storage.manifest_text import with_checksum
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tasks.stored_backups.backup_files import storage_of
from tasks.stored_backups.find_backup import chosen_backup
from tests.conftest import DatabaseFactory
from tests.support.manifests import DATABASE

NOW = datetime(2026, 3, 18, 12, tzinfo=UTC)
CONTENT = b"-- PostgreSQL database dump\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NUMBERS = itertools.count(1)


class House:
    """One plan with buckets of its own, and the backups that a test puts into it."""

    def __init__(self, client: Any, s3_bucket: Callable[[], str], catalogue_url: str) -> None:
        self.client, self.s3_bucket = client, s3_bucket
        self.storage = Storage(client, s3_bucket())
        self.replica = Replica(Storage(client, s3_bucket()), "copies")
        self.catalogue = Catalogue(parse(catalogue_url))
        number = next(NUMBERS)
        self.plan = Plan(f"plan-{number}", parse(catalogue_url), self.catalogue, self.storage, "folder", Policy(days=7))
        self.lost = replace(self.plan, catalogue=Catalogue(parse(f"postgresql://u@127.0.0.1:{free_port()}/catalogue")))
        self.runs = itertools.count(1)

    def backup(self, days_old: float = 1, kind: str = "full", plan: Plan | None = None) -> str:
        """A completed backup, recorded as a run records it; its file name."""
        plan = plan or self.plan
        run_id, at = f"run-{plan.name}-{next(self.runs)}", NOW - timedelta(days=days_old)
        name = backup_filename(plan.name, run_id, at)
        key = plan.key(name)
        plan.storage.put(key, CONTENT)
        backup_id = plan.catalogue.open(name, key, plan.name, run_id, "test", at, kind)
        parts = (Part(1, len(CONTENT), SHA256),)
        run = BackupRun(
            backup_id,
            plan.name,
            run_id,
            name,
            key,
            "test",
            at,
            "pg_dump",
            "18.1",
            "none",
            False,
            1 << 20,
            10,
            1,
            (),
            "/",
            1,
            kind,
        )
        source = SourceFacts(DATABASE, (), (), large_objects=0)
        tables = (TableData("public.t", 2, 4, 8),)
        dump = Dump(len(CONTENT), SHA256, len(CONTENT), SHA256, parts, tables, source, at, at)
        record(plan, run, dump, StoredObject(key, len(CONTENT), parts, "", at), at)
        return name

    def copy(self, name: str, replica: Replica | None = None) -> str:
        """The replica has the backup too; its key there."""
        replica = replica or self.replica
        key = object_key(replica.folder, self.plan.name, name)
        replica.storage.put(key, self.storage.get(self.plan.key(name)))
        replica.storage.put(manifest_key(key), self.storage.get(manifest_key(self.plan.key(name))))
        return key

    def forget(self) -> None:
        """The catalogue loses every row of the plan."""
        self.sql("DELETE FROM database_backups WHERE plan = %s", self.plan.name)

    def row(self, name: str) -> Record:
        return next(row for row in self.catalogue.rows(self.plan.name) if row.filename == name)

    def change(self, name: str, assignment: str, *values: Any) -> None:
        self.sql(f"UPDATE database_backups SET {assignment} WHERE filename = %s", *values, name)

    def sql(self, statement: str, *values: Any) -> None:
        with self.catalogue.dsn.session("test") as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)

    def refusal(self, wanted: str, plan: Plan | None = None, kind: type[Exception] = BackupNotFound) -> str:
        with pytest.raises(kind) as caught:
            chosen_backup(plan or self.plan, wanted)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value) and len(str(caught.value)) < 700
        return str(caught.value)

    def rewrite(self, name: str, **changes: Any) -> None:
        """Another manifest beside the object, with a checksum of its own."""
        key = manifest_key(self.plan.key(name))
        self.storage.put(key, with_checksum({**json.loads(self.storage.get(key)), **changes}))


@pytest.fixture(scope="module")
def client(s3_server: S3Server) -> Any:
    session = boto3.Session(s3_server.access_key_id, s3_server.secret_access_key, region_name=REGION)
    return make_client(session, s3_server.endpoint_url)


@pytest.fixture
def house(client: Any, s3_bucket: Callable[[], str], catalogue_url: str) -> Iterator[House]:
    yield House(client, s3_bucket, catalogue_url)


# --- with the catalogue


def test_latest_is_the_newest_completed_full_backup_of_the_plan(house: House) -> None:
    house.backup(3)
    newest = house.backup(2)
    house.backup(1, kind="pre_restore")
    failed = house.backup(0.5)
    house.change(failed, "status = 'expired'")
    house.backup(0.1, plan=replace(house.plan, name=f"{house.plan.name}-other"))
    found = chosen_backup(house.plan, "latest")
    assert (found.filename, found.backup_id, found.plan) == (newest, house.row(newest).id, house.plan.name)
    assert (found.bucket, found.key) == (house.storage.bucket, house.plan.key(newest))
    assert found.size == len(CONTENT) and found.database == DATABASE and found.warnings == ()
    assert storage_of(house.plan, found) is house.storage


def test_latest_overlooks_what_lies_in_an_earlier_bucket_of_the_plan(house: House) -> None:
    old = house.backup(2)
    house.change(house.backup(1), 'metadata = metadata || \'{"bucket": "the-old-one"}\'')
    assert chosen_backup(house.plan, "latest").filename == old


@pytest.mark.parametrize(
    "write", ["{}", "  {}\n", "folder/plan/{}", "s3://bucket/folder/{}", "{}.manifest.json", "\t/{} "]
)
def test_a_file_name_may_come_with_spaces_and_folders(house: House, write: str) -> None:
    house.backup(1)
    wanted = house.backup(2)
    assert chosen_backup(house.plan, write.format(wanted)).filename == wanted


@pytest.mark.parametrize("write", ["{}", " {} ", "00{}"])
def test_an_id_is_understood(house: House, write: str) -> None:
    wanted = house.backup(2)
    house.backup(1)
    assert chosen_backup(house.plan, write.format(house.row(wanted).id)).filename == wanted


def test_a_backup_of_another_type_can_be_named(house: House) -> None:
    name = house.backup(kind="pre_restore")
    assert chosen_backup(house.plan, name).backup_type == "pre_restore"


@pytest.mark.parametrize("status", ["in_progress", "failed", "expired", "deleted", "missing"])
def test_a_backup_that_is_not_completed_is_refused_with_its_status(house: House, status: str) -> None:
    good, name = house.backup(2), house.backup(1)
    house.change(name, "status = %s", status)
    for wanted in (name, str(house.row(name).id)):
        said = house.refusal(wanted)
        assert f"{name} of plan {house.plan.name} has the status {status} (" in said and f"such as {good}." in said


def test_the_backup_of_another_plan_is_refused_with_that_plan_s_name(house: House) -> None:
    other = replace(house.plan, name=f"{house.plan.name}-other")
    name = house.backup(plan=other)
    house.backup()
    [row] = house.catalogue.rows(other.name)
    for wanted in (name, str(row.id), other.key(name)):
        assert f"is a backup of plan {other.name}, not of {house.plan.name}" in house.refusal(wanted)


def test_a_wrong_name_is_refused_with_the_newest_few(house: House) -> None:
    names = [house.backup(days) for days in (1, 2, 3, 4)]
    said = house.refusal("backup_2020-01-01_00-00-00_00000000.sql")
    assert "has no backup 'backup_2020-01-01_00-00-00_00000000.sql'" in said
    assert f"such as {', '.join(names[:3])}." in said


ODD = (
    "",
    " ",
    "/",
    "..",
    "../..",
    "latest/",
    "LATEST",
    "latest\0",
    "0",
    "-1",
    "1.5",
    "9" * 19,
    "9" * 10_000,
    "²",
    "٣",
    "x" * 10_240,
    "a\nb",
    "'; DROP TABLE database_backups; --",
    "%s",
    "{}",
    "\ud800",
    "💾",
    "backup_*.sql",
    "backup_٢٠٢٦-03-01_02-00-00_9f2c41ab.sql",
)


@pytest.mark.parametrize("lost", [False, True])
def test_nothing_odd_causes_anything_but_the_sentence(house: House, lost: bool) -> None:
    name = house.backup()
    for wanted in ODD:
        said = house.refusal(wanted, house.lost if lost else None)
        assert name in said and said.encode()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(wanted=st.text())
@example(wanted="\x85")
def test_no_text_at_all_causes_anything_but_the_sentence(house: House, wanted: str) -> None:
    if not (wanted.strip().isascii() and wanted.strip().isdigit()):
        house.refusal(wanted)


def test_a_plan_without_backups_says_so(house: House) -> None:
    for wanted in ("latest", "7777777"):
        assert house.refusal(wanted).endswith("nothing of this plan can be restored yet.")


def test_a_suspicious_backup_is_restored_with_a_warning(house: House) -> None:
    name = house.backup()
    house.change(name, "suspicious = 'It has half the rows.'")
    assert chosen_backup(house.plan, "latest").warnings == (f"{name} is suspicious: It has half the rows.",)


# --- what is not as it was recorded


def test_an_object_of_another_size_is_refused(house: House) -> None:
    name = house.backup()
    house.storage.put(house.plan.key(name), CONTENT[:-1])
    said = house.refusal("latest", kind=BackupDamaged)
    assert f"has {len(CONTENT) - 1} bytes" in said and f"object.size of its manifest says {len(CONTENT)}" in said


def test_a_changed_manifest_is_refused_with_the_field_of_the_catalogue(house: House) -> None:
    name = house.backup()
    house.rewrite(name, created_by="somebody else")
    said = house.refusal(name, kind=BackupDamaged)
    assert "manifest_sha256" in said and manifest_key(house.plan.key(name)) in said


@pytest.mark.parametrize(
    ("assignment", "field"),
    [
        ("file_size = file_size + 1", "file_size"),
        ("plain_size = 7", "plain_size"),
        ("row_count = 3", "row_count"),
        ("table_count = 0", "table_count"),
        ("backup_type = 'other'", "backup_type"),
        ("manifest_sha256 = ''", "manifest_sha256"),
    ],
)
def test_a_row_that_does_not_agree_is_refused_with_the_field(house: House, assignment: str, field: str) -> None:
    name = house.backup()
    house.change(name, assignment)
    assert field in house.refusal(name, kind=BackupDamaged)


def test_what_an_older_row_does_not_say_is_no_difference(house: House) -> None:
    name = house.backup()
    house.change(name, "plain_size = NULL, row_count = NULL, table_count = NULL")
    assert chosen_backup(house.plan, name).filename == name


def test_a_missing_object_or_manifest_is_told(house: House) -> None:
    name = house.backup()
    house.storage.delete(manifest_key(house.plan.key(name)))
    assert "nothing can be proved without it" in house.refusal(name, kind=BackupDamaged)
    house.storage.delete(house.plan.key(name))
    assert f"{name} is missing from bucket {house.storage.bucket}" in house.refusal("latest")


def test_the_manifest_of_another_backup_is_refused(house: House) -> None:
    one, other = house.backup(2), house.backup(1)
    house.storage.put(manifest_key(house.plan.key(one)), house.storage.get(manifest_key(house.plan.key(other))))
    assert "manifest_sha256" in house.refusal(one, kind=BackupDamaged)
    assert f"the field filename is {other}" in house.refusal(one, house.lost, kind=BackupDamaged)


def test_a_newer_format_is_refused(house: House) -> None:
    name = house.backup()
    house.rewrite(name, format=2)
    assert "update the program" in house.refusal(name, house.lost, kind=BadSetting)


# --- without the catalogue


def test_the_bucket_alone_will_do_when_the_catalogue_does_not_answer(house: House) -> None:
    older, newest = house.backup(2), house.backup(1)
    house.backup(0.5, kind="pre_restore")
    for wanted, name in (("latest", newest), (older, older), (house.plan.key(older), older)):
        found = chosen_backup(house.lost, wanted)
        assert (found.filename, found.backup_id) == (name, None)
        [warning] = found.warnings
        assert warning.startswith("The catalogue could not be asked (") and "Nobody answers" in warning
    said = house.refusal(str(house.row(newest).id), house.lost)
    assert "cannot be asked which backup has the id" in said and "give a file name, such as backup_" in said


def test_the_bucket_alone_will_do_when_the_catalogue_has_no_tables(
    house: House, any_postgres: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    name = house.backup()
    for url in (fresh_database(any_postgres), any_postgres.url("no such database")):
        found = chosen_backup(replace(house.plan, catalogue=Catalogue(parse(url))), "latest")
        assert found.filename == name and "could not be asked" in found.warnings[0]


def test_a_table_of_somebody_else_is_no_catalogue(
    house: House, any_postgres: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    name, url = house.backup(), fresh_database(any_postgres)
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE database_backups (a int)")
        cursor.execute("COMMENT ON TABLE database_backups IS 'Database Backup System, catalogue version 1'")
    connection.close()
    assert chosen_backup(replace(house.plan, catalogue=Catalogue(parse(url))), "latest").filename == name


def test_a_catalogue_that_has_lost_the_plan_or_the_backup_is_helped_by_the_bucket(house: House) -> None:
    older = house.backup(2)
    house.forget()
    assert "does not know this backup" in chosen_backup(house.plan, "latest").warnings[0]
    newer = house.backup(1)
    assert chosen_backup(house.plan, "latest").filename == newer
    assert "does not know this backup" in chosen_backup(house.plan, older).warnings[0]
    assert f"has no backup '7777777': give latest, an id or a file name, such as {newer}" in house.refusal("7777777")


def test_latest_never_takes_from_the_bucket_what_the_catalogue_says_is_no_backup(house: House) -> None:
    house.change(house.backup(), "status = 'failed'")
    house.refusal("latest")


def test_without_the_catalogue_a_damaged_newest_backup_is_told_and_not_passed_over(house: House) -> None:
    house.backup(2)
    newest = house.backup(1)
    key = manifest_key(house.plan.key(newest))
    house.storage.put(key, house.storage.get(key).replace(b'"rows": 2', b'"rows": 3'))
    assert "the field checksum does not match" in house.refusal("latest", house.lost, kind=BackupDamaged)
    house.storage.put(house.plan.key(newest), CONTENT + b"x")
    house.rewrite(newest)
    assert "object.size" in house.refusal("latest", house.lost, kind=BackupDamaged)


def test_without_the_catalogue_only_whole_backups_of_the_plan_count(house: House) -> None:
    name = house.backup(3)
    house.backup(1, plan=replace(house.plan, name=f"{house.plan.name}-other"))
    alone = house.backup(2)
    house.storage.delete(manifest_key(house.plan.key(alone)))
    orphan = house.backup(1.5)
    house.storage.delete(house.plan.key(orphan))
    for odd in (
        "notes.manifest.json",
        f"below/{name}",
        f"below/{name}.manifest.json",
        "zzz.sql",
        "zzz.sql.manifest.json",
    ):
        house.storage.put(house.plan.prefix + odd, b"{}")
    assert chosen_backup(house.lost, "latest").filename == name


def test_a_manifest_that_names_another_plan_is_refused(house: House) -> None:
    name = house.backup()
    house.rewrite(name, plan="somebody")
    assert "the field plan is somebody, not" in house.refusal(name, house.lost, kind=BackupDamaged)


# --- replicas


def test_a_replica_stands_in_for_what_the_bucket_has_lost(house: House) -> None:
    name = house.backup()
    key = house.copy(name)
    plan = replace(house.plan, replicas=(house.replica,))
    assert chosen_backup(plan, name).bucket == house.storage.bucket
    house.storage.delete(house.plan.key(name))
    house.storage.delete(manifest_key(house.plan.key(name)))
    for one in (plan, replace(plan, catalogue=house.lost.catalogue)):
        found = chosen_backup(one, "latest")
        assert (found.filename, found.bucket, found.key) == (name, house.replica.storage.bucket, key)
        assert storage_of(one, found) is house.replica.storage
        assert f"It is read from the replica in bucket {house.replica.storage.bucket}." in found.warnings[-1]


def test_a_replica_stands_in_for_what_is_damaged_and_the_damage_is_told(house: House) -> None:
    name = house.backup()
    house.copy(name)
    house.rewrite(name, created_by="somebody")
    found = chosen_backup(replace(house.plan, replicas=(house.replica,)), name)
    assert found.bucket == house.replica.storage.bucket and "manifest_sha256" in found.warnings[-1]


def test_a_replica_stands_in_for_a_bucket_that_nobody_may_read(house: House) -> None:
    name = house.backup()
    house.copy(name)
    closed = replace(house.plan, storage=Storage(house.client, house.storage.bucket), replicas=(house.replica,))
    session = boto3.Session("nobody", "nothing", region_name=REGION)
    closed = replace(closed, storage=Storage(make_client(session, house.client.meta.endpoint_url), "gone"))
    house.change(name, 'metadata = metadata || \'{"bucket": "gone"}\'')
    assert chosen_backup(closed, "latest").bucket == house.replica.storage.bucket
    assert chosen_backup(replace(closed, catalogue=house.lost.catalogue), "latest").filename == name
    with pytest.raises((AccessRefused, BadSetting, Unreachable)):
        chosen_backup(replace(closed, replicas=(), catalogue=house.lost.catalogue), "latest")


def test_a_replica_that_is_damaged_too_does_not_help(house: House) -> None:
    name = house.backup()
    key = house.copy(name)
    house.replica.storage.put(manifest_key(key), b"{}")
    house.storage.delete(house.plan.key(name))
    house.refusal(name, replace(house.plan, replicas=(house.replica,)))


def test_the_storage_of_a_backup_is_found_among_buckets_of_one_name(house: House) -> None:
    name = house.backup()
    twin = Replica(Storage(house.client, house.storage.bucket), "folder")
    plan = replace(house.plan, replicas=(twin,))
    assert storage_of(plan, chosen_backup(plan, name)).bucket == house.storage.bucket
    elsewhere = replace(chosen_backup(plan, name), bucket="another")
    with pytest.raises(BadSetting, match="has no bucket another"):
        storage_of(plan, elsewhere)
