"""A verify run proves that a backup can be restored, touches nothing, and leaves nothing behind whatever becomes of it."""

from __future__ import annotations

import multiprocessing
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pyrage
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.catalogue.rows import Record
from tasks.errors import (
    AccessRefused,
    AlreadyRunning,
    BackupDamaged,
    BackupGone,
    BackupNotFound,
    BackupSystemError,
    EntriesFailed,
    PreflightFailed,
    RestoreFailed,
    RestoreRefused,
    RowsDiffer,
    VerifyImpossible,
)
from tasks.names import manifest_key
from tasks.plans.plan import Policy
from tasks.postgres.dsn import parse
from tasks.postgres.locks import verify_lock
from tasks.postgres.server import maintenance
from tasks.restore import load as loading
from tasks.restore.compare import compare_run
from tasks.restore.databases import drop_scratches
from tasks.restore.labels import (
    Label,
    is_scratch_name,
    is_verify_scratch_name,
    label_of,
    scratch_name,
    verify_scratch_name,
)
from tasks.restore.values import RestoreRun
from tasks.retention.debris import clear_databases
from tasks.retention.removal import retain
from tasks.storage.backup_stages import Backup
from tasks.storage.s3 import Storage
from tasks.storage.spool import open_spool
from tasks.verify.checks import run_checks
from tasks.verify.subject import Subject, examine, identify, no_scratch_left
from tasks.verify.verdict import (
    Verified,
    excuse,
    fault_of,
    plain_words,
    record_unverifiable,
    record_verified,
    removed_meanwhile,
    verified,
)
from tests.conftest import BIN_DIRECTORIES, DatabaseFactory
from tests.support import eventually, server_side
from tests.support.scene import Scene, SceneFactory, in_words, now

CONTENT = """
CREATE TABLE numbers AS SELECT i AS id, i * 7 AS n FROM generate_series(1, 4000) i;
CREATE TABLE words AS SELECT i AS id, md5(i::text) AS t FROM generate_series(1, 1500) i;
CREATE TABLE "odd | `name`" (); ALTER TABLE numbers ADD PRIMARY KEY (id);
SELECT lo_from_bytea(77, decode(repeat('00ff', 9000), 'hex'));
"""
ODD = ["S t\"o'ck | `100%` ü", "ü" * 31]
Show = Callable[[int], None]


def subject_of(scene: Scene, wanted: str = "latest") -> Subject:
    return identify(scene.plan, wanted, str(uuid.uuid4()), "tester", now())


def examined(scene: Scene, subject: Subject) -> RestoreRun:
    return examine(scene.plan, subject, lambda _: None)


@contextmanager
def lock(scene: Scene, subject: Subject) -> Iterator[None]:
    with verify_lock(scene.plan.database, f"run {subject.run_id}"):
        yield


def proved(scene: Scene, wanted: str = "latest") -> tuple[Subject, Verified]:
    """A whole verify run without its record."""
    subject = subject_of(scene, wanted)
    with lock(scene, subject):
        run = examined(scene, subject)
        with no_scratch_left(scene.plan, run, pytest.fail):
            loaded = scene.load(run)
            assert [name for name in scene.databases() if is_verify_scratch_name(name, scene.name)] == [run.scratch]
            compared = compare_run(scene.plan, run, loaded)
            checked = run_checks(scene.plan, run)
    return subject, verified(run, loaded, compared, checked, now())


def verify(scene: Scene, wanted: str = "latest") -> Verified:
    """A whole verify run."""
    subject, done = proved(scene, wanted)
    assert record_verified(scene.plan.catalogue, subject, done)
    return done


def row_of(scene: Scene, backup: Backup) -> Record:
    return next(row for row in scene.plan.catalogue.rows("shop") if row.filename == backup.filename)


def last_event(scene: Scene) -> dict[str, Any]:
    with scene.plan.catalogue.cursor() as cursor:
        cursor.execute("SELECT * FROM backup_events ORDER BY id DESC LIMIT 1")
        return dict(cursor.fetchone())


def left_behind(scene: Scene) -> list[str]:
    return [*scene.left_behind(), *(name for name in scene.databases() if is_verify_scratch_name(name, scene.name))]


@pytest.fixture
def shop(scene: SceneFactory) -> Scene:
    made = scene()
    made.sql(CONTENT)
    return made


one_version = pytest.mark.parametrize(
    "postgres_server", list(BIN_DIRECTORIES)[:1] or [0], indirect=True, ids=lambda major: f"pg{major}"
)


# --- passing


def test_a_backup_that_passes_is_verified_and_the_live_database_is_what_it_was(shop: Scene) -> None:
    backup = shop.back_up()
    shop.sql("DELETE FROM numbers; CREATE TABLE since (i int)")
    before = shop.dumped_whole()
    done = verify(shop)
    row = row_of(shop, backup)
    assert row.verified_at == done.at and row.status == "completed"
    facts = row.metadata["verification"]
    assert facts["compared"] == {"tables": 3, "rows": 5500, "large_objects": 1}
    assert facts["outcome"] == "verified" and 0 < facts["restore_seconds"] <= facts["seconds"]
    assert row.metadata["bucket"] == shop.plan.storage.bucket  # the rest of it is still there
    event = last_event(shop)
    assert (event["action"], event["outcome"], event["filename"]) == ("verify-backup", "completed", backup.filename)
    assert event["details"]["tables"]["public.numbers"] == 4000
    assert event["details"]["verification"] == facts and event["bytes"] == backup.file_size
    assert shop.dumped_whole() == before
    assert left_behind(shop) == []


@one_version
@pytest.mark.parametrize("codec", ["gzip", "age"])
def test_compressed_and_encrypted_backups_pass_with_the_plans_key_alone(scene: SceneFactory, codec: str) -> None:
    secret = pyrage.x25519.Identity.generate()
    keys = {"recipients": (str(secret.to_public()),), "identities": (str(secret),)}
    shop = scene(codec="gzip") if codec == "gzip" else scene(codec="zstd", **keys)
    shop.sql(CONTENT)
    shop.back_up()
    assert verify(shop).decoded == {"gzip": "gzip", "age": "zstd, age"}[codec]
    if codec == "age":
        keyless = shop.with_plan(identities=())
        with pytest.raises(PreflightFailed, match=r"cannot be verified: .* the plan has no key for it") as refusal:
            examined(keyless, subject_of(keyless))
        assert fault_of(refusal.value) == "environment"
    assert left_behind(shop) == []


@one_version
def test_an_older_backup_is_named_by_file_name_or_id_and_no_other_is_touched(shop: Scene) -> None:
    first = shop.back_up()
    shop.sql("INSERT INTO numbers SELECT i FROM generate_series(5001, 5100) i")
    second = shop.back_up()
    assert verify(shop, first.filename).rows == 5500
    assert row_of(shop, second).verified_at is None
    assert verify(shop, str(second.backup_id)).rows == 5600
    assert row_of(shop, second).verified_at > row_of(shop, first).verified_at
    with pytest.raises(BackupNotFound, match="yesterday"):
        subject_of(shop, "yesterday's")


@pytest.mark.parametrize("name", ODD)
@one_version
def test_a_database_that_is_gone_and_one_with_an_odd_name_are_no_hindrance(
    scene: SceneFactory, postgres_server: PostgresCluster, fresh_database: DatabaseFactory, name: str
) -> None:
    shop = scene(fresh_database(postgres_server, name))
    shop.sql(CONTENT)
    shop.back_up()
    assert verify(shop).rows == 5500
    shop.discard(name)
    assert verify(shop).rows == 5500
    assert name not in shop.databases()
    assert [one for one in shop.databases() if is_verify_scratch_name(one, name)] == []


def test_a_role_that_may_only_create_databases_can_hold_a_verify_run_of_what_it_owns(
    scene: SceneFactory, postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    """The database itself is another's, so this role could not put it back: the scratch is its own."""
    server_side.role(postgres_server, "verifying role", "CREATEDB")
    url = fresh_database(postgres_server, "lent out")
    with server_side.session(postgres_server, "lent out") as server:
        server_side.run(
            server,
            "GRANT CREATE ON DATABASE {d} TO {r}; CREATE SCHEMA own AUTHORIZATION {r}",
            "ALTER DATABASE {d} CONNECTION LIMIT 7",
            d="lent out",
            r="verifying role",
        )
    shop = scene(postgres_server.url("lent out", "verifying role", "pw"))
    shop.sql("CREATE TABLE own.things AS SELECT 1 AS i")
    shop.back_up()
    assert verify(shop).rows == 1
    with server_side.session(postgres_server, "lent out") as server:  # a member of the owner's role, and no superuser
        server_side.role(postgres_server, "landlord")
        server_side.run(
            server,
            "GRANT {o} TO {r}; ALTER DATABASE {d} OWNER TO {o}; CREATE TABLE let (i int);ALTER TABLE let OWNER TO {o}",
            d="lent out",
            r="verifying role",
            o="landlord",
        )
    shop.back_up()
    assert len(verify(shop).tables) == 2
    server_side.role(postgres_server, "verifying role", "NOCREATEDB")
    with pytest.raises(PreflightFailed, match=r"run ALTER ROLE \S* ?\S* CREATEDB as a superuser\.$") as refusal:
        examined(shop, subject_of(shop))
    assert "in_place" not in str(refusal.value) and fault_of(refusal.value) == "environment"
    assert left_behind(shop) == [] and url


@one_version
def test_a_role_that_the_server_lacks_is_named_and_nothing_is_made(shop: Scene) -> None:
    shop.sql('CREATE ROLE "lost | soul"; GRANT SELECT ON numbers TO "lost | soul"', superuser=True)
    shop.back_up()
    shop.sql('DROP OWNED BY "lost | soul"; DROP ROLE "lost | soul"', superuser=True)
    with pytest.raises(PreflightFailed) as refusal:
        examined(shop, subject_of(shop))
    in_words(r'The backup needs the role "lost \| soul": create it \(NOLOGIN will do\)\.$', refusal.value)
    assert fault_of(refusal.value) == "environment"
    assert left_behind(shop) == []


@one_version
def test_without_the_catalogue_a_backup_is_proved_and_nothing_can_be_recorded(shop: Scene) -> None:
    backup = shop.back_up()
    lost = shop.without_catalogue()
    subject, done = proved(lost)
    assert (subject.backup_id, done.backup_id, done.filename) == (None, None, backup.filename)
    assert any("nothing proves that its manifest is the one that was recorded" in one for one in done.warnings)
    with pytest.raises(BackupSystemError):
        record_verified(lost.plan.catalogue, subject, done)
    forgetful = shop.plan.catalogue
    shop.sql("DELETE FROM database_backups", forgetful.dsn.dbname)
    subject, done = proved(shop)
    assert not record_verified(forgetful, subject, done)
    assert last_event(shop)["filename"] == backup.filename


# --- not passing


def failing(scene: Scene, wanted: str = "latest") -> tuple[Subject, BackupSystemError]:
    """The error of a verify run that fails, after which nothing is left."""
    subject = subject_of(scene, wanted)
    with pytest.raises(BackupSystemError) as failure, lock(scene, subject):
        run = examined(scene, subject)
        with no_scratch_left(scene.plan, run, pytest.fail):
            compare_run(scene.plan, run, scene.load(run))
    assert left_behind(scene) == []
    assert "\n" not in str(failure.value)
    return subject, failure.value


def test_a_damaged_file_takes_back_that_it_was_verified(shop: Scene) -> None:
    backup = shop.back_up()
    before, first = shop.dumped_whole(), verify(shop).at
    content, its_manifest = shop.stored(backup)
    shop.store(backup, content[:5000] + b"?" + content[5001:])
    subject, error = failing(shop)
    assert isinstance(error, BackupDamaged) and fault_of(error) == "backup"
    assert record_unverifiable(shop.plan.catalogue, subject, "backup", str(error), now())
    row = row_of(shop, backup)
    assert (row.verified_at, row.status) == (None, "completed")
    told = row.metadata["verification"]
    assert told["outcome"] == "unverifiable" and told["reason"] == str(error)
    assert datetime.fromisoformat(told["verified_before"]) == first
    event = last_event(shop)
    assert (event["outcome"], event["error"]) == ("failed", str(error))
    assert event["details"]["fault"] == "backup" and event["details"]["verification"] == told
    assert shop.dumped_whole() == before
    for key, kind in ((manifest_key(backup.key), BackupDamaged), (backup.key, BackupGone)):
        shop.store(backup, content, its_manifest)
        shop.plan.storage.delete(key)
        _, error = failing(shop)
        assert isinstance(error, kind) and fault_of(error) == "backup"


@one_version
def test_rows_that_are_not_those_of_the_manifest_are_the_backups_fault(shop: Scene) -> None:
    backup = shop.back_up()

    def change(told: dict[str, Any]) -> None:
        tables = {one["name"]: one for one in told["tables"]}
        tables["public.numbers"]["rows"] += 1
        tables["public.words"]["rows"] -= 1

    shop.rewrite(backup, change)
    _, error = failing(shop)
    assert isinstance(error, RowsDiffer) and fault_of(error) == "backup"
    in_words(r"public\.numbers has 4,000 rows, expected 4,001; public\.words has 1,500 rows, expected 1,499", error)


@one_version
def test_what_psql_meets_in_the_backup_is_its_fault_and_what_it_lacks_is_not(
    scene: SceneFactory, postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    shop = scene()
    shop.sql("""
        CREATE TABLE t (i int); INSERT INTO t VALUES (1);
        CREATE FUNCTION is_fine(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM 1 FROM t; RETURN true; END';
        ALTER TABLE t ADD CHECK (is_fine(i));
    """)  # works by the search path of the day alone, which pg_dump empties
    shop.back_up()
    _, error = failing(shop)
    assert isinstance(error, EntriesFailed) and fault_of(error) == "database"
    said = plain_words(error, "another")
    in_words(r'TABLE DATA public\.t: relation "t" does not exist \(SQLSTATE 42P01\)', said)
    assert "without" not in said

    server_side.role(postgres_server, "distant", "CREATEDB")
    server_side.role(postgres_server, "somebody else")
    other = scene(fresh_database(postgres_server, "abandoned"))
    other.sql('CREATE TABLE t (i int); ALTER TABLE t OWNER TO "somebody else"')
    other.back_up()
    other.discard("abandoned")  # else the preflight knows beforehand
    distant = other.with_plan(database=parse(postgres_server.url("abandoned", "distant", "pw")))
    _, error = failing(distant)
    assert isinstance(error, RestoreRefused) and fault_of(error) == "environment"


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (BackupDamaged("x"), "backup"),
        (BackupGone("x"), "backup"),
        (BackupNotFound("x"), "environment"),
        (RowsDiffer("x"), "backup"),
        (RestoreFailed("x"), "environment"),
        (AccessRefused("x"), "environment"),
        (RestoreRefused("The server cannot create a database like x: no."), "environment"),
        (RestoreRefused("psql ended with status 3 while …: voll", "53100"), "environment"),
        (RestoreRefused("psql ended with status 3 while …: x", "23505"), "database"),
        (RestoreRefused("psql ended with status 3 while …: it said nothing"), "environment"),
        (EntriesFailed("Two", "x", [("EXTENSION x", "0A000", "x"), ("TABLE DATA t", "53100", "x")]), "environment"),
        (EntriesFailed("Two", "x", [("EXTENSION x", "0A000", "x"), ("INDEX i", "23505", "x")]), "database"),
        (EntriesFailed("Two", "x", [("TABLE t", "42501", "x"), ("TABLE DATA t", "42P01", "x")]), "environment"),
        (EntriesFailed("Two", "x", [("INDEX i", "42P01", "x"), ("TABLE t", "42501", "x")]), "database"),
        (EntriesFailed("One", "x", [("INDEX s.i", "42704", "x")]), "database"),
        (EntriesFailed("One", "x", [("TABLE s.t", "42704", "x")]), "environment"),
    ],
)
def test_whose_fault_an_error_is(error: BackupSystemError, fault: str) -> None:
    assert fault_of(error) == fault


def test_a_backup_that_is_removed_during_its_verify_run_is_not_at_fault(shop: Scene) -> None:
    backup = shop.back_up()
    shop.back_up(now() + timedelta(hours=1))
    subject = subject_of(shop, backup.filename)
    assert not removed_meanwhile(shop.plan, subject, [0])  # it is there
    shop.plan.storage.delete(backup.key)
    assert not removed_meanwhile(shop.plan, subject, [0, 0.1])  # it is gone, and nobody has said so
    shop.sql(
        "UPDATE database_backups SET status = 'deleted' WHERE id = " + str(backup.backup_id),
        shop.plan.catalogue.dsn.dbname,
    )
    assert removed_meanwhile(shop.plan, subject, [0])
    assert not record_unverifiable(shop.plan.catalogue, subject, "backup", "gone", now())


@one_version
def test_a_backup_in_a_bucket_that_the_plan_no_longer_names_is_not_at_fault(
    shop: Scene, s3_bucket: Callable[[], str]
) -> None:
    backup = shop.back_up()
    moved = shop.with_plan(storage=Storage(shop.plan.storage._client, s3_bucket()))
    subject, error = failing(moved, backup.filename)
    assert isinstance(error, BackupGone)
    assert f"It lies in bucket {backup.bucket}, and plan shop names bucket" in excuse(moved.plan, subject, error)
    assert excuse(shop.plan, subject_of(shop), BackupDamaged("x")) == ""


# --- dying, and living beside others


def hang(scene: Scene, slow: Callable[[], object]) -> None:
    """A verify run that gets no further than into the middle of psql."""
    subject = subject_of(scene)
    with lock(scene, subject):
        run = examined(scene, subject)
        with (
            no_scratch_left(scene.plan, run, print),
            open_spool(scene.plan.spool_directory, run.run_id, 1 << 20, 1 << 30) as parts,
        ):
            loading.load(scene.plan, run, parts, lambda _: slow() and None, lambda _: None)


@contextmanager
def hanging(scene: Scene) -> Iterator[Any]:
    """A process that does so; killed at the latest when the block ends."""
    process = multiprocessing.get_context("fork").Process(target=hang, args=(scene, lambda: time.sleep(600)))
    process.start()
    try:
        assert eventually(
            lambda: scene.sql(
                "SELECT 1 FROM pg_stat_activity WHERE datname LIKE '%__verifying_%' AND application_name LIKE 'restore%'",
                "postgres",
            )
        )
        yield process
    finally:
        process.kill()
        process.join()


def clear_by_clean_up(scene: Scene) -> None:
    told = clear_databases(scene.plan, now())
    assert told.problems == () and any(
        "left unfinished by a verify run that died, was dropped" in one for one in told.scratches
    )


def clear_by_restore(scene: Scene) -> None:
    scene.discard(scene.restore().kept)


def clear_by_verify(scene: Scene) -> None:
    verify(scene)


@one_version
@pytest.mark.parametrize("clear", [clear_by_clean_up, clear_by_restore, clear_by_verify])
def test_what_a_killed_verify_run_leaves_goes_by_itself_but_never_while_it_lives(
    shop: Scene, clear: Callable[[Scene], None]
) -> None:
    shop.back_up()
    with hanging(shop) as process:
        [scratch] = [name for name in shop.databases() if is_verify_scratch_name(name, shop.name)]
        with pytest.raises(AlreadyRunning, match="is being verified already by run "), lock(shop, subject_of(shop)):
            pytest.fail("two verify runs at once")
        clear_databases(shop.plan, now())
        shop.discard(shop.restore().kept)  # waits for nothing
        shop.back_up()
        assert scratch in shop.databases() and process.is_alive()
        os.kill(process.pid, 9)
        process.join()
        assert scratch in shop.databases()
    assert eventually(
        lambda: not shop.sql("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'run %'", "postgres")
    )
    clear(shop)
    assert scratch not in shop.databases()
    if clear is not clear_by_clean_up:  # which looks after databases and backups, not after this machine
        assert eventually(lambda: left_behind(shop) == []), left_behind(shop)


@one_version
def test_a_verify_run_that_is_cancelled_leaves_nothing(shop: Scene) -> None:
    shop.back_up()

    def cancelled() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hang(shop, cancelled)
    assert eventually(lambda: left_behind(shop) == []), left_behind(shop)


@one_version
def test_a_verify_run_that_nobody_can_see_to_be_alive_makes_no_scratch(shop: Scene) -> None:
    shop.back_up()
    run = examined(shop, subject_of(shop))
    with pytest.raises(VerifyImpossible, match="run verify-backup again"):
        shop.load(run)
    assert left_behind(shop) == []


@one_version
def test_a_persons_database_of_such_a_name_stays(shop: Scene) -> None:
    name = verify_scratch_name(shop.name, now())
    shop.sql(f'CREATE DATABASE "{name}"', "postgres")
    shop.sql("CREATE TABLE precious (i int)", name)
    with maintenance(shop.plan.database).session("test") as server:
        [told] = drop_scratches(server, shop.name)
    assert "no verify run made it: it stays" in told and name in shop.databases()
    shop.discard(name)


def test_names_and_labels_of_verify_runs_are_not_those_of_restores() -> None:
    for database in ("shop", *ODD, "x" * 63):
        name = verify_scratch_name(database, now())
        assert len(name.encode()) <= 63
        assert is_verify_scratch_name(name, database) and not is_scratch_name(name, database)
        assert not is_verify_scratch_name(scratch_name(database, now()), database)
        label = label_of(name, Label("verify", name).text())
        assert label and label.kind == "verify"


# --- what retention makes of it


@one_version
def test_retention_keeps_the_newest_verified_backup_until_it_is_so_no_more(shop: Scene) -> None:
    weekly = shop.with_plan(policy=Policy(days=7))
    made = [shop.back_up(now() - timedelta(days=days)) for days in (40, 30, 20, 1)]
    for backup in made[:2]:
        verify(weekly, backup.filename)
    subject = subject_of(weekly, made[1].filename)
    done = retain(weekly.plan, "run", "tester", now())
    assert sorted(done.removed) == sorted([made[0].filename, made[2].filename])
    assert row_of(shop, made[1]).status == "completed"
    record_unverifiable(weekly.plan.catalogue, subject, "backup", "It is damaged.", now())
    assert retain(weekly.plan, "run", "tester", now()).removed == (made[1].filename,)
    assert row_of(shop, made[3]).status == "completed"
