"""A backup from end to end: what it leaves in the bucket and in the catalogue, and that `psql` alone restores it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

from deployments.quick_start.postgres import PostgresCluster
from deployments.sample import fill
from flows.backup import backup
from tasks.names import is_backup_filename, manifest_key
from tasks.postgres.dsn import parse
from tests.conftest import DatabaseFactory
from tests.support import eventually
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import FOLDER, Heard, World, masked, plain_dump


def restored(world: World, dump: bytes, fresh_database: DatabaseFactory, tmp_path: Path) -> str:
    """The URL of a database that stock `psql -1` made of a plain dump."""
    file, url = tmp_path / "restored.sql", fresh_database(world.cluster, f"{parse(world.database_url).dbname}_restored")
    file.write_bytes(dump)
    psql = [str(world.cluster.bin_directory / "psql"), "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", str(file), url]
    subprocess.run(psql, check=True, capture_output=True)
    return url


def test_a_backup_is_stored_recorded_and_restored_by_psql_alone(
    make_world: WorldFactory, postgres_server: PostgresCluster, fresh_database: DatabaseFactory, tmp_path: Path
) -> None:
    world = make_world(postgres_server, mebibytes=0)
    fill(world.database_url, megabytes=3)
    done = backup(world.plan, "a person")
    row, stored, manifest = world.newest()
    assert row.status == "completed" and row.created_by == "a person" and row.error is None
    assert row.filename == done.filename and is_backup_filename(done.filename)
    assert row.s3_key == done.key == f"{FOLDER}/{world.plan}/{done.filename}"
    assert row.file_size == row.plain_size == done.file_size == len(stored)
    assert set(world.objects()) == {done.key, manifest_key(done.key)}
    assert manifest["plain"] == {"size": len(stored), "sha256": hashlib.sha256(stored).hexdigest()}
    assert world.check_completed_are_intact() == 1
    assert world.events() == [("backup", "completed")]
    world.check_no_debris()
    url = restored(world, stored, fresh_database, tmp_path)
    assert plain_dump(world.cluster, url) == plain_dump(world.cluster, world.database_url) == masked(stored)


def test_what_will_need_attention_in_a_restore_is_warned_of_once(make_world: WorldFactory, heard: Heard) -> None:
    world = make_world(mebibytes=0)
    world.sql(
        "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';"
        "CREATE TABLE t AS SELECT 1 AS i; CREATE INDEX by_f ON t (f(i));"
        "CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql"
        " AS 'BEGIN RETURN (SELECT count(*) FROM t); END'"
    )
    first, second = backup(world.plan), backup(world.plan)
    warning = f"{first.filename} will need attention when it is restored. public.f(integer) names functions"
    assert heard.text.count("will need attention when it is restored") == 1 and warning in heard.text
    assert second.attention == () and world.events() == [("backup", "completed")] * 2


def test_the_manifest_tells_the_rows_of_every_table_and_where_they_lie(make_world: WorldFactory) -> None:
    world = make_world()
    backup(world.plan)
    _, stored, manifest = world.newest()
    [table] = manifest["tables"]
    assert table["rows"] == manifest["rows"] == 2048
    lines = stored[table["start"] : table["end"]].splitlines()
    assert sum(b"\t" in line for line in lines) == 2048
    assert manifest["database"]["name"] in world.database_url
    assert len(manifest["object"]["parts"]) == 2


def test_the_number_of_tables_is_the_same_everywhere(make_world: WorldFactory, heard: Heard) -> None:
    """It is that of the tables whose rows the dump holds: no partitioned tables, no materialised views."""
    world = make_world(mebibytes=1)
    world.sql("CREATE TABLE whole (a int) PARTITION BY LIST (a)")
    world.sql("CREATE TABLE one PARTITION OF whole FOR VALUES IN (1)")
    world.sql("CREATE TABLE others PARTITION OF whole DEFAULT")
    world.sql("CREATE MATERIALIZED VIEW seen AS SELECT 1 AS a")
    done = backup(world.plan)
    row, _, manifest = world.newest()
    assert done.tables == row.table_count == manifest["table_count"] == len(manifest["tables"]) == 3
    assert "Dumped 3 tables, 1,024 rows" in heard.text


def test_the_progress_of_a_backup_ends_at_100_and_its_log_holds_its_own_lines(
    make_world: WorldFactory, heard: Heard
) -> None:
    state = backup(make_world().plan, return_state=True)
    run = state.state_details.flow_run_id
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]), type=ArtifactFilterType(any_=["progress"]))
    with get_client(sync_client=True) as client:
        shares = {one.description.split()[0]: one.data for one in client.read_artifacts(artifact_filter=of_run)}
    assert shares == {"Dumping": 100, "Uploading": 100}
    assert "Finished in state" not in heard.text and "is completed." in heard.text


@pytest.mark.parametrize(("codec", "command"), [("zstd", ["zstd", "-d", "-c"]), ("gzip", ["gunzip", "-c"])])
def test_stock_tools_undo_the_compression(make_world: WorldFactory, codec: str, command: list[str]) -> None:
    world = make_world(codec=codec)
    backup(world.plan)
    row, stored, manifest = world.newest()
    plain = subprocess.run(command, input=stored, stdout=subprocess.PIPE, check=True).stdout
    assert masked(plain) == plain_dump(world.cluster, world.database_url)
    assert hashlib.sha256(plain).hexdigest() == manifest["plain"]["sha256"]
    assert len(plain) == row.plain_size > row.file_size == len(stored)
    assert row.filename.endswith({"zstd": ".sql.zst", "gzip": ".sql.gz"}[codec])
    world.check_completed_are_intact()


@pytest.mark.slow
def test_several_plans_lie_side_by_side_each_in_its_own_folder(make_world: WorldFactory) -> None:
    world = make_world()
    plans = [world, *(world.save_plan(name) for name in ("shop", "shop-two"))]
    done = [backup(one.plan) for one in plans]
    assert [one.statuses() for one in plans] == [["completed"]] * 3
    assert [one.key.split("/")[:2] for one in done] == [[FOLDER, one.plan] for one in plans]
    assert len(world.objects()) == 6
    for one in plans:
        assert one.check_completed_are_intact() == 1
    assert world.uploads() == world.spools() == []
    assert eventually(lambda: world.sessions() == []), world.sessions()


def test_a_second_backup_stands_beside_the_first_and_says_the_same(make_world: WorldFactory) -> None:
    world = make_world()
    first, second = backup(world.plan), backup(world.plan)
    assert first.filename != second.filename
    assert world.statuses() == ["completed", "completed"]
    assert masked(world.download(first.key)) == masked(world.download(second.key))
    assert world.check_completed_are_intact() == 2
    world.check_no_debris()


def test_an_empty_database_is_backed_up_too(make_world: WorldFactory) -> None:
    world = make_world(mebibytes=0)
    done = backup(world.plan)
    assert done.rows == done.tables == 0
    assert world.check_completed_are_intact() == 1
    world.check_no_debris()
